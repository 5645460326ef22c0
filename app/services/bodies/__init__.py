"""Bodies of requests: found in files, read, and checked against what the services document."""

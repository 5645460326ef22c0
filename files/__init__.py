"""Files that appear whole or not at all, and that no other process overwrites."""

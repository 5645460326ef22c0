"""Many jobs of one workflow: a row of a table each, every one exactly once, on this machine or on a Ray cluster."""

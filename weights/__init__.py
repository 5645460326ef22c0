"""Model files: read by what they hold, and named where they are broken. Every reader of the pack stands on it."""

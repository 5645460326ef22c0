"""Images that nodes draw, check and hide."""

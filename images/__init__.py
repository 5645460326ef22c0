"""Pictures that nodes draw, judge and hide."""

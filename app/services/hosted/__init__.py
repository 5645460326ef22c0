"""A page for each service: its parameters, and what each asks of the workflow."""

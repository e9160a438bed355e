"""Single-view networks."""

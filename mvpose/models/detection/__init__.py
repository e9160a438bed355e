"""People and their 2D joints in single frames."""

"""Detection of people and their 2D joints in single frames."""

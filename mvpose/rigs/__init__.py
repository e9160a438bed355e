"""Camera poses adjusted or recovered from the people seen."""

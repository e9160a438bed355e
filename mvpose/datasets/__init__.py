"""Datasets of others, in their own files, units and axes, to one table of multi-view samples in metres, Z up."""

TRAIN, VALIDATION, TEST, NEITHER = "train", "validation", "test", ""
"""Splits as the datasets' authors or their first users made them; NEITHER is for what they left out."""

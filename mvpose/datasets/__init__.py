"""Datasets of others, in their own files, units and axes, to one table of multi-view samples in metres, Z up."""

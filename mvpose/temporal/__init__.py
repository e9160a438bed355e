"""Filters over time: outliers, gaps, smoothing, constant bone lengths."""

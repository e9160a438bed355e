"""Temporal filters: outliers, gaps, smoothing, constant bone lengths."""

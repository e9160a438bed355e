"""Evaluation of networks and runs against ground truth: error tables, figures with intervals, and a page."""

"""Errors of poses against ground truth, with confidence intervals."""

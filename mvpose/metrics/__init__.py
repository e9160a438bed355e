"""Errors of poses against ground truth, and their intervals."""

"""Checks of captures and figures of merit of poses; no ground truth is needed."""

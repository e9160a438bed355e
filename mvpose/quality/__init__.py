"""Checks of captures and figures of merit of poses, without ground truth."""

"""Formats of other tools: export of poses and calibrations, import of 2D joints."""

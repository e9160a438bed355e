"""Formats of other tools: poses and calibrations out, 2D joints in."""

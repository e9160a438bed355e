"""Fusion of several views' features."""

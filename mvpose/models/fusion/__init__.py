"""Fusion of features from several views."""

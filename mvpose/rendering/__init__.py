"""Rendered images of synthetic people for any rig, with exact ground truth: joints, cameras, visibility."""

"""Backbones, their heads and pretrained weights."""

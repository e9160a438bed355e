"""Reconstruct 3D joints from the 2D joints of all views: association, triangulation, tracks, identities.

`clip.reconstruct` shows the steps in order. This package uses no files, jobs or networks.
"""

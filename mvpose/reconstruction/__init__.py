"""2D joints of all views to the 3D joints of one clip: association, triangulation with rejection, tracks, quality.

Which steps there are, in order, is read in `reconstruct.reconstruct`. No files, no jobs, no networks.
"""

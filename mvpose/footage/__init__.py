"""Input footage: archive layouts, `capture.toml`, the catalogue of captures, calibrations and video decoding.

Foreign units, axes and pixel conventions are converted here. Everything outside this package is in metres, Z up, with
OpenCV camera axes.
"""

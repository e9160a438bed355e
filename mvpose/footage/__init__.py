"""Files to records and back: locations, calibrations, the catalogue of captures, video decoding, results.

Foreign units, axes and pixel rules end here: what leaves this package is in metres, Z up, with OpenCV's camera axes.
"""

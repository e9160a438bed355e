"""Overlays on the footage, plots and HTML pages. Only this package imports matplotlib.

All functions work on records and need no display. Files are written through `mvpose.storage`. The entry point is
`mvpose.report.run_report.write_report`.
"""

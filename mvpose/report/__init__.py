"""Images people look at: overlays on the footage, plots, and one page. The only home of matplotlib.

Everything is a function over records, headless; files are written through `mvpose.storage`. The door is
`mvpose.report.run_report.write_report`.
"""

"""Networks and runs against ground truth: rows of errors, their sums with intervals, tables and a page."""

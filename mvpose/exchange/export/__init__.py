"""Poses in the formats of other tools: one module a format, a generator of files in each.

An exporter takes a `Recording` and yields (relative name, content). Nothing is written and nothing is filtered here:
what is missing in the recording is missing in the file, in the format's own way. Units and axes change at this border
alone, and each module states its own.
"""

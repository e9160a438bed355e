"""Export poses to the formats of other tools: one module per format, each with a generator of files.

An exporter takes a `Recording` and yields (relative name, content). It writes and filters nothing: values missing in
the recording are missing in the file, in the format's own way. Units and axes change only here, and each module states
its own.
"""

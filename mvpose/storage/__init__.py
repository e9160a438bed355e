"""Where bytes are: URIs on a local disk and S3, files that are created once, pickles read as plain data."""

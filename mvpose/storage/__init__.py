"""Storage on local disk and S3: URIs, files that are created once, pickles read as plain data."""

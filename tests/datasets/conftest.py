"""The S3 server of tests/archive, for tables in a bucket."""

from tests.archive.conftest import s3, s3_endpoint

__all__ = ["s3", "s3_endpoint"]

"""The S3 server of tests/footage, for tables in a bucket."""

from tests.footage.conftest import s3, s3_endpoint

__all__ = ["s3", "s3_endpoint"]

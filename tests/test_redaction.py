import pickle

import pytest

from mvpose.config import flatten
from mvpose.errors import ResultsError, VideoError
from mvpose.redaction import redacted
from mvpose.tracking import TrackingConfig


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("s3://key:secret@bucket/a", "s3://bucket/a"),
        ("s3://AKIA:ab/c+d=@bucket/walk 1", "s3://bucket/walk 1"),
        ("http://u:p%40@h:5000/x and 'postgresql+psycopg2://u:p@h/db?sslmode=x'", "http://h:5000/x and "
         "'postgresql+psycopg2://h/db'"),
        ("http://u:p@ss@h/x", "http://h/x"),
        ("http://u:12345@h/x", "http://h/x"),
        ("http://token@h/x", "http://h/x"),
        ("https://b.s3.amazonaws.com/k?X-Amz-Signature=1&y", "https://b.s3.amazonaws.com/k"),
    ],
)  # fmt: skip
def test_user_info_and_tokens_are_left_out(text, shown):
    assert redacted(text) == shown


@pytest.mark.parametrize(
    "text",
    ["s3://bucket/k@x?y", "http://h:5000/a@b", "sqlite:////tmp/a b.db", "a@b.org: at http://h:5000, x@y", "/a?b@c"],
)
def test_what_is_no_secret_stays(text):
    assert redacted(text) == text


def test_errors_and_settings_are_shown_without_credentials_wherever_they_go():
    error = pickle.loads(pickle.dumps(VideoError("s3://key:secret@bucket/cam.mp4 is cut off")))
    assert str(error) == "s3://bucket/cam.mp4 is cut off"
    assert "secret" not in repr(ResultsError("http://u:secret@h"))
    assert flatten(TrackingConfig(uri="http://u:secret@h"))["uri"] == "http://h"
    assert flatten({"a": ("s3://k:secret@b/m", {"x": ["s3://k:s@b"]})}) == {"a": ("s3://b/m", {"x": ["s3://b"]})}

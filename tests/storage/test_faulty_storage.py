"""An S3 server that stumbles: every key fails twice before it answers, in each of the ways that real ones do."""

import threading
import uuid
from collections import Counter

import boto3
import pyarrow as pa
import pytest
from moto.server import DomainDispatcherApplication, create_backend_app
from s3fs import S3FileSystem
from werkzeug.serving import make_server

from mvpose.records import Clip
from mvpose.run.store import ClipStore
from mvpose.storage.commits import create_once
from mvpose.storage.locations import join, read_bytes

STUMBLES = 2
CLIP = Clip("trial", 0, 3)
TABLE = pa.table({"frame": [0, 1, 2]})


class Stumbling:
    """moto, except that the first requests of each method and key fail."""

    def __init__(self, fault: str) -> None:
        self.moto = DomainDispatcherApplication(create_backend_app)
        self.fault, self.armed = fault, False
        self.seen: Counter[tuple[str, str]] = Counter()

    def __call__(self, environ, start_response):
        requested = environ["REQUEST_METHOD"], environ["PATH_INFO"]
        self.seen[requested] += self.armed
        if not self.armed or self.seen[requested] > STUMBLES:
            return self.moto(environ, start_response)
        if self.fault == "cut short" and requested[0] == "GET":
            headers = [("Content-Length", "1000"), ("Content-Type", "binary/octet-stream"), ("ETag", '"x"')]
            start_response("200 OK", headers)
            return [b"half of"]
        status, code = {"500": ("500 Internal Server Error", "InternalError")}.get(
            self.fault, ("503 Slow Down", "SlowDown")
        )
        environ["wsgi.input"].read(
            -1 if environ.get("wsgi.input_terminated") else int(environ.get("CONTENT_LENGTH") or 0)
        )
        start_response(status, [("Content-Type", "application/xml")])
        return [f"<Error><Code>{code}</Code><Message>Please reduce your request rate.</Message></Error>".encode()]


@pytest.fixture(params=["500", "503", "cut short"])
def stumbling(request, monkeypatch):
    """(the server, the URI of an empty bucket in it)."""
    application = Stumbling(request.param)
    server = make_server("127.0.0.1", 0, application, threaded=True)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    endpoint = f"http://127.0.0.1:{server.server_port}"
    for variable in ("AWS_PROFILE", "AWS_SESSION_TOKEN"):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setenv("AWS_ENDPOINT_URL", endpoint)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "testing")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "testing")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    bucket = f"faulty-{uuid.uuid4().hex[:12]}"
    boto3.client("s3", endpoint_url=endpoint).create_bucket(Bucket=bucket)
    S3FileSystem.clear_instance_cache()
    application.armed = True
    yield application, f"s3://{bucket}"
    S3FileSystem.clear_instance_cache()
    server.shutdown()
    thread.join()


@pytest.mark.fault
def test_a_result_is_written_once_and_read_whole_in_spite_of_it(stumbling):
    server, bucket = stumbling
    store = ClipStore(join(bucket, "run"), "poses")
    commit = store.commit_table(CLIP, "f" * 16, TABLE, {})
    assert store.committed(CLIP, "f" * 16) == commit
    assert store.read(commit).equals(TABLE)
    assert not create_once(store.commit_uri(CLIP, "f" * 16), b"a second commit")
    assert b"a second" not in read_bytes(store.commit_uri(CLIP, "f" * 16))
    assert max(server.seen.values()) > STUMBLES

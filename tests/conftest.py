"""Shapes are checked under pytest alone: the hook must be installed before anything imports mvpose."""

import os
import tempfile
import uuid
from collections.abc import Iterator

import pytest
from hypothesis import settings
from jaxtyping import install_import_hook

install_import_hook("mvpose", "beartype.beartype")

# The same examples each time, so that a commit is judged by what it changed; HYPOTHESIS_PROFILE=explore draws new ones.
settings.register_profile("same", derandomize=True)
settings.register_profile("explore", derandomize=False)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "same"))

# Ray runs its workers 15 steps nicer: beside other tests that compute they got 2 % of a core, and two tests of faults
# waited 120 s for a first commit in vain.
os.environ.setdefault("RAY_worker_niceness", "0")

# Records of tests are kept apart from those of the user.
os.environ["XDG_DATA_HOME"] = tempfile.mkdtemp(prefix="mvpose-tests-")

REPOSITORY = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))


def _folder(variable: str, default: str) -> str:
    folder = os.environ.get(variable) or os.path.join(REPOSITORY, "..", "shared", default)
    if not os.path.isdir(folder):
        pytest.skip(f"no {default} here: name its folder in {variable}")
    return os.path.abspath(folder)


@pytest.fixture(scope="session")
def footage() -> str:
    """Folder of the demo footage (Demo_SinglePerson, Demo_MultiPerson, StaticTrial)."""
    return _folder("MVPOSE_FOOTAGE", "footage")


@pytest.fixture(scope="session")
def weights() -> str:
    """Folder of the detector's ONNX files."""
    return _folder("MVPOSE_WEIGHTS", "weights")


@pytest.fixture(scope="session")
def s3_endpoint() -> Iterator[str]:
    """An S3 server in this process, on loopback."""
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer("127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    yield f"http://{host}:{port}"
    server.stop()


@pytest.fixture
def s3(s3_endpoint: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """`s3://<bucket>` of an empty bucket; the environment is set so that this process and its children reach it."""
    import boto3
    from s3fs import S3FileSystem

    for variable in ("AWS_PROFILE", "AWS_SESSION_TOKEN"):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setenv("AWS_ENDPOINT_URL", s3_endpoint)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "testing")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "testing")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    bucket = f"archive-{uuid.uuid4().hex[:12]}"
    boto3.client("s3", endpoint_url=s3_endpoint).create_bucket(Bucket=bucket)
    S3FileSystem.clear_instance_cache()
    yield f"s3://{bucket}"
    S3FileSystem.clear_instance_cache()

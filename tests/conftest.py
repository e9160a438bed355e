"""Shapes are checked under pytest alone: the hook must be installed before anything imports mvpose."""

from __future__ import annotations

import gc
import os
import re
import socket
import sys
import tempfile
import uuid
from collections.abc import Iterator
from functools import cache
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import settings

from tests import shape_checks

if TYPE_CHECKING:
    from mvpose.pipeline.engine import Engine

# Where an environment forbids bytecode to be kept, every process of the tests, each worker of Ray included, compiles
# the package anew: 14 s of CPU time here.
sys.dont_write_bytecode = False
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)

shape_checks.install()

# What is imported stays: looking through it for garbage takes 3 s while it grows, and a second each time after.
gc.disable()

# The same examples each time, so that a commit is judged by what it changed; HYPOTHESIS_PROFILE=explore draws new ones.
# No example has a deadline: a busy machine makes any of them late.
settings.register_profile("same", derandomize=True, deadline=None)
settings.register_profile("explore", derandomize=False, deadline=None)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "same"))

# Ray runs its workers 15 steps nicer: beside other tests that compute they got 2 % of a core, and two tests of faults
# waited 120 s for a first commit in vain.
os.environ.setdefault("RAY_worker_niceness", "0")

# Ray starts a worker per CPU before it knows the job's environment: each costs 0.5 s of CPU time and is never used.
os.environ.setdefault("RAY_prestart_worker_first_driver", "0")

# Records of tests are kept apart from those of the user.
os.environ["XDG_DATA_HOME"] = tempfile.mkdtemp(prefix="mvpose-tests-")

# Two processes of tests share two cores: with two threads each, half of them only wait for the others.
os.environ.setdefault("OMP_NUM_THREADS", "1")

RAY = pytest.StashKey["Engine"]()
REPOSITORY = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))


# Registering a network needs the detector's weights, which become part of the version.
if os.path.isdir(os.path.join(REPOSITORY, "..", "shared", "weights")):
    os.environ.setdefault("MVPOSE_WEIGHTS", os.path.abspath(os.path.join(REPOSITORY, "..", "shared", "weights")))


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """Tests go to processes by file, those of files with tests on Ray to one process, where they share one Ray.

    Each Ray takes ten seconds of CPU time, the actors of Ray Data included.
    """
    from xdist.scheduler import LoadFileScheduling

    class RayInOne(LoadFileScheduling):
        def _split_scope(self, nodeid: str) -> str:
            file = super()._split_scope(nodeid)
            return "ray" if _uses_ray(file) else file

    return RayInOne(config, log) if config.getoption("dist") == "loadfile" else None


@cache
def _uses_ray(file: str) -> bool:
    with open(os.path.join(REPOSITORY, file)) as source:
        return not {"shared_ray", "stopped_ray"}.isdisjoint(re.findall(r"\w+", source.read()))


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Tests on Ray come first: those on the shared one, then those that start their own."""
    items.sort(key=_after_ray)


def _after_ray(item: pytest.Item) -> int:
    names = getattr(item, "fixturenames", ())
    return 0 if "shared_ray" in names else 1 if "stopped_ray" in names else 2


@pytest.hookimpl(trylast=True)
def pytest_runtest_teardown(item: pytest.Item, nextitem: pytest.Item | None) -> None:
    """Ray is shut down after its last test: idle, it takes 5 % of a core."""
    if RAY in item.config.stash and (nextitem is None or _after_ray(nextitem) == 2):
        item.config.stash[RAY].close()


def pytest_collection_finish() -> None:
    """From here on garbage is what tests made."""
    gc.freeze()
    gc.enable()


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


def _reaching(s3_endpoint: str, patch: pytest.MonkeyPatch) -> None:
    """Set the environment so that this process and its children reach the S3 server."""
    for variable in ("AWS_PROFILE", "AWS_SESSION_TOKEN"):
        patch.delenv(variable, raising=False)
    patch.setenv("AWS_ENDPOINT_URL", s3_endpoint)
    patch.setenv("AWS_ACCESS_KEY_ID", "testing")
    patch.setenv("AWS_SECRET_ACCESS_KEY", "testing")
    patch.setenv("AWS_DEFAULT_REGION", "us-east-1")


@pytest.fixture
def s3(s3_endpoint: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """`s3://<bucket>` of an empty bucket, in the environment of `_reaching`."""
    import boto3
    from s3fs import S3FileSystem

    _reaching(s3_endpoint, monkeypatch)
    bucket = f"archive-{uuid.uuid4().hex[:12]}"
    boto3.client("s3", endpoint_url=s3_endpoint).create_bucket(Bucket=bucket)
    S3FileSystem.clear_instance_cache()
    yield f"s3://{bucket}"
    S3FileSystem.clear_instance_cache()


@pytest.fixture(scope="session")
def stopped_ray(pytestconfig) -> Iterator[Engine]:
    """The Ray of `shared_ray`, not yet started, or stopped with `close` by a test that starts Ray itself."""
    from mvpose.pipeline.engine import Engine, EngineConfig

    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    engine = pytestconfig.stash[RAY] = Engine(EngineConfig(workers=3, metrics_port=port))
    yield engine
    engine.close()


@pytest.fixture
def shared_ray(stopped_ray: Engine, s3_endpoint: str) -> Engine:
    """A running Ray of four CPUs. Every job or conversion of this process that would start one joins it.

    Starting one, and importing torch into its workers, takes ten seconds of CPU time. Its workers find `tests` and the
    server of `s3`.
    """
    with pytest.MonkeyPatch.context() as patch:
        _reaching(s3_endpoint, patch)
        patch.setenv("PYTHONPATH", REPOSITORY)
        patch.setenv("RAY_metrics_report_interval_ms", "500")
        stopped_ray.start()
    return stopped_ray

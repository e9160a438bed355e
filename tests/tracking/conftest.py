"""A store of MLflow for each test: making the tables of one takes seconds, so that one is made and copied."""

import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.request

import pytest

from mlflow import MlflowClient
from mvpose.tracking import TrackingConfig


@pytest.fixture(scope="session")
def empty_store(tmp_path_factory) -> str:
    path = tmp_path_factory.mktemp("store") / "mlflow.db"
    MlflowClient(f"sqlite:///{path}").search_experiments()
    return str(path)


@pytest.fixture
def config(tmp_path, empty_store) -> TrackingConfig:
    shutil.copy(empty_store, tmp_path / "mlflow.db")
    return TrackingConfig(uri=f"sqlite:///{tmp_path}/mlflow.db", folder=str(tmp_path / "tracking"))


@pytest.fixture(autouse=True)
def with_weights(weights, monkeypatch) -> None:
    """A version brings the detector's weights, so that registering one needs them."""
    monkeypatch.setenv("MVPOSE_WEIGHTS", weights)


class Server:
    """A tracking server of its own process on a port of this machine; it can be ended and begun again."""

    def __init__(self, folder, port: int, arguments: list[str], environment: dict[str, str]) -> None:
        self.uri = f"http://127.0.0.1:{port}"
        self._folder, self._environment = (
            folder,
            {**os.environ, "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false", **environment},
        )
        program = os.path.join(os.path.dirname(sys.executable), "mlflow")
        self._command = [program, "server", "--host", "127.0.0.1", "--port", str(port), "--workers", "1", *arguments]
        self._process: subprocess.Popen | None = None

    def start(self) -> None:
        with open(self._folder / "server.log", "ab") as log:
            self._process = subprocess.Popen(
                self._command, cwd=self._folder, env=self._environment, stdout=log, stderr=log, start_new_session=True
            )
        while True:
            try:
                with urllib.request.urlopen(f"{self.uri}/health", timeout=5):
                    return
            except OSError:
                reported = (self._folder / "server.log").read_text()
                assert self._process.poll() is None, reported[-3000:]
                time.sleep(0.1)

    def kill(self) -> None:
        if self._process is not None and self._process.poll() is None:
            os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()
            self._process = None


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


@pytest.fixture
def server(tmp_path, empty_store):
    """A server that is not started yet, on a SQLite store with its artifacts behind it."""
    shutil.copy(empty_store, tmp_path / "server.db")
    store = ["--backend-store-uri", f"sqlite:///{tmp_path}/server.db"]
    made = Server(tmp_path, free_port(), [*store, "--artifacts-destination", str(tmp_path / "artifacts")], {})
    yield made
    made.kill()

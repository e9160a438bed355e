"""The only Ray layer: how the job, training and sweeps start or join Ray, set up workers, and keep their logs.

OUTPUT/logs/START.log   one file per start: output of the workers, and warnings of this process

Workers' output reaches this process through Ray, so it is kept in the same way for local and cluster workers, and
survives a worker's crash. For an S3 output the file is uploaded when the session ends.
"""

from __future__ import annotations

import logging
import os
import re
import tempfile
import time
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from importlib.metadata import version
from typing import Any

from mvpose.accelerator import require_cuda
from mvpose.errors import ConfigError, ResultsError, is_debugging, redacted, set_debugging
from mvpose.storage.commits import storage_errors, write_whole_file
from mvpose.storage.locations import absolute, is_remote, join, name

LOGS = "logs"
PROBE_S = 5.0
"""Maximum wait for the answer whether a running Ray requires a token."""
DRAIN_S = 0.5
"""Wait before Ray shuts down: workers' lines arrive up to 0.2 s after printing (Ray polls every 0.1 s)."""
QUIET_LOGGERS = ("ray.data", "ray.tune", "ray.train")
logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class LocalRay:
    """Size of a Ray started on this machine."""

    cpus: int
    """More than the workers use: an actor pool that takes all CPUs holds up everything else, or hangs Ray Data."""
    gpus: float = 0.0
    """GPUs per worker; if above 0, Ray gets all GPUs of this machine."""
    dashboard: bool = False
    object_store_mib: int | None = None
    metrics_port: int | None = None

    def settings(self) -> dict[str, Any]:
        """Arguments of `ray.init`. ConfigError if GPUs are requested on a machine without one."""
        settings: dict[str, Any] = {
            # Never join another user's Ray on this machine by accident.
            "address": "local",
            "num_cpus": self.cpus,
            "num_gpus": require_cuda(self.gpus) if self.gpus > 0 else 0,
            "include_dashboard": self.dashboard,
        }
        if self.object_store_mib is not None:
            settings["object_store_memory"] = self.object_store_mib * 2**20
        if self.metrics_port is not None:
            settings["_metrics_export_port"] = self.metrics_port
        return settings


def worker_environment(threads: int, **others: str) -> dict[str, str]:
    """Environment of workers that compute with `threads` threads each."""
    return {"OMP_NUM_THREADS": str(threads), "OPENCV_FFMPEG_THREADS": "1", "MALLOC_ARENA_MAX": "2"} | others


@contextmanager
def ray_session(
    address: str | None, local: LocalRay, environment: Mapping[str, str], output: str = ""
) -> Iterator[None]:
    """Join the Ray at `address`, or start one of size `local` on this machine; leave it or shut it down afterwards.

    If this process is already connected to a Ray, that one is used and left running. `environment` is that of the
    workers. Their output is kept in `logs/` of `output`, and also shown when debugging. Ray's own messages are
    suppressed: errors of a job are raised as exceptions. ConfigError as for `LocalRay.settings`, or if the Ray at
    `address` requires a token that this process does not send; ResultsError if `logs/` cannot be written.
    """
    import ray

    _set_ray_loggers()
    if ray.is_initialized():
        yield
        return
    if address and re.fullmatch(r"[^/]+:\d+", address):
        _require_token(address)
    where = {"address": address} if address else local.settings()
    with _logs_kept(output):
        ray.init(**where, **_settings(environment))
        if not is_debugging():
            _worker_output().remove_handler("ray_print_logs")
        try:
            yield
        finally:
            time.sleep(DRAIN_S)
            ray.shutdown()


def _require_token(address: str) -> None:
    """ConfigError if the Ray at HOST:PORT requires a token that this process does not send.

    A head requires one if its home folder had ~/.ray/auth_token, which any Ray started by a program leaves there. A
    client sends none unless RAY_AUTH_MODE is `token`: Ray then tries for 20 to 30 s and only says that it failed to
    connect (2.60). Any other problem of the connection is left to Ray.
    """
    import grpc
    from ray._raylet import AuthenticationTokenLoader  # pyright: ignore[reportAttributeAccessIssue]

    sent = os.environ.get("RAY_AUTH_MODE", "").lower() == "token"
    token = AuthenticationTokenLoader.instance().get_raw_token(ignore_auth_mode=True) if sent else ""
    with grpc.insecure_channel(address, [("grpc.enable_http_proxy", 0)]) as channel:
        ask = channel.unary_unary("/ray.rpc.NodeInfoGcsService/GetClusterId")
        try:
            ask(b"", timeout=PROBE_S, metadata=(("authorization", f"Bearer {token}"),) if token else ())
        except grpc.RpcError as error:
            if isinstance(error, grpc.Call) and error.code() == grpc.StatusCode.UNAUTHENTICATED:
                raise ConfigError(
                    f"the Ray at {address} requires {'another' if token else 'a'} token: set RAY_AUTH_MODE=token, and "
                    "RAY_AUTH_TOKEN to what `ray get-auth-token` prints on its head."
                ) from None


def _settings(environment: Mapping[str, str]) -> dict[str, Any]:
    """Arguments of `ray.init` that are common to every session."""
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    # A local Ray starts a worker per CPU before it knows their environment: each costs 0.5 s of CPU time for nothing.
    os.environ.setdefault("RAY_prestart_worker_first_driver", "0")
    # Ray's C++ code warns about every actor with arguments.
    os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "warning" if is_debugging() else "fatal")
    runtime_env: dict[str, Any] = {"env_vars": dict(environment)}
    if is_debugging():
        runtime_env["worker_process_setup_hook"] = f"{__name__}.{debug_worker.__name__}"
    return {
        "runtime_env": runtime_env,
        "log_to_driver": True,
        "logging_level": "INFO" if is_debugging() else "ERROR",
    }


def debug_worker() -> None:
    """Called by Ray at the start of each worker when debugging."""
    set_debugging(True)


def _set_ray_loggers() -> None:
    import ray.data

    for quiet in QUIET_LOGGERS:
        logging.getLogger(quiet).setLevel(logging.INFO if is_debugging() else logging.ERROR)
    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = False
    context.print_on_execution_start = False


def _worker_output() -> Any:
    """Ray's dispatcher of worker output. It has no public name (checked in Ray 2.60)."""
    from ray._private.ray_logging import global_worker_stdstream_dispatcher

    return global_worker_stdstream_dispatcher


@contextmanager
def _logs_kept(output: str) -> Iterator[None]:
    """Write workers' output, and warnings of mvpose in this process, to a new file in OUTPUT/logs."""
    if not output:
        yield
        return
    uri = join(output, LOGS, f"{time.strftime('%Y%m%d-%H%M%S')}-{uuid.uuid4().hex[:8]}.log")
    with tempfile.TemporaryDirectory() as scratch:
        path = os.path.join(scratch, name(uri)) if is_remote(uri) else absolute(uri)
        with storage_errors(uri):
            os.makedirs(os.path.dirname(path), exist_ok=True)
            handler = logging.FileHandler(path, errors="backslashreplace")
        try:
            with _written_by(handler):
                yield
        finally:
            if is_remote(uri):
                _upload(uri, path)


@contextmanager
def _written_by(handler: logging.Handler) -> Iterator[None]:
    """Send workers' lines and log records of mvpose to a handler. A full disk must not end a job because of its log."""
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
    handler.handleError = lambda record: None

    def write(batch: dict[str, Any]) -> None:
        if batch.get("pid") == "autoscaler":  # prints its status every few seconds; not a worker
            return
        who = f"{batch.get('ip')} pid {batch.get('pid')}"
        for line in batch.get("lines", ()):
            said = f"{who} {batch.get('actor_name') or batch.get('task_name') or 'worker'}: {redacted(str(line))}"
            handler.emit(logging.makeLogRecord({"levelname": "WORKER", "msg": said}))

    own = logging.getLogger("mvpose")
    own.addHandler(handler)
    about = f"mvpose {version('mvpose')}, Ray {version('ray')}"
    handler.emit(logging.makeLogRecord({"levelname": "START", "msg": about}))
    _worker_output().add_handler(__name__, write)
    try:
        yield
    finally:
        _worker_output().remove_handler(__name__)
        own.removeHandler(handler)
        handler.close()


def _upload(uri: str, path: str) -> None:
    """Upload the log; errors are ignored, since unavailable storage has already stopped the job with its own error."""
    with suppress(ResultsError):
        write_whole_file(uri, path)

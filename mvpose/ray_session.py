"""The one Ray layer: how the job, trainings and sweeps start or join Ray, set up its workers, and keep their logs.

OUTPUT/logs/START.log   one file per start: what the workers printed, and warnings of this process

Workers' output travels through Ray to this process, so that it is kept alike for workers of this machine and of a
cluster, and is there when a worker has crashed. In an S3 output the file is uploaded when the session ends.
"""

from __future__ import annotations

import logging
import os
import tempfile
import time
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from importlib.metadata import version
from typing import Any

from mvpose.accelerator import require_cuda
from mvpose.errors import ResultsError, is_debugging, redacted, set_debugging
from mvpose.storage.commits import storage_errors, write_whole_file
from mvpose.storage.locations import absolute, is_remote, join, name

LOGS = "logs"
DRAIN_S = 0.5
"""Before Ray ends: lines of workers arrive up to 0.2 s after they were printed (Ray looks for new ones every 0.1 s)."""
QUIET_LOGGERS = ("ray.data", "ray.tune", "ray.train")
logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class LocalRay:
    """The size of a Ray that is started on this machine."""

    cpus: int
    """One more than the workers take: an actor pool that takes all CPUs hangs Ray Data's own small tasks."""
    gpus: float = 0.0
    """Of each worker; with any, all GPUs of this machine are offered."""
    dashboard: bool = False
    object_store_mib: int | None = None
    metrics_port: int | None = None

    def settings(self) -> dict[str, Any]:
        """Arguments of `ray.init`. ConfigError where GPUs are asked for on a machine without one."""
        settings: dict[str, Any] = {
            # A Ray that somebody else runs on this machine is not joined unasked.
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
    """Environment of workers that compute by so many threads each."""
    return {"OMP_NUM_THREADS": str(threads), "OPENCV_FFMPEG_THREADS": "1", "MALLOC_ARENA_MAX": "2"} | others


@contextmanager
def ray_session(
    address: str | None, local: LocalRay, environment: Mapping[str, str], output: str = ""
) -> Iterator[None]:
    """Join the Ray at `address`, or start one of the size `local` on this machine; leave or end it afterwards.

    A Ray that this process has already is used as it is, and stays. `environment` is that of the workers. Their output
    is kept in `logs/` of `output`, and shown too while debugging. Ray itself is quiet: what concerns a job comes as an
    exception. ConfigError as `LocalRay.settings`; ResultsError if `logs/` cannot be written.
    """
    import ray

    _set_ray_loggers()
    if ray.is_initialized():
        yield
        return
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


def _settings(environment: Mapping[str, str]) -> dict[str, Any]:
    """What every Ray of mvpose is started or joined with."""
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    # Ray's C++ side warns of every actor with arguments.
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
    """Called by Ray in each worker as it starts, while debugging."""
    set_debugging(True)


def _set_ray_loggers() -> None:
    import ray.data

    for quiet in QUIET_LOGGERS:
        logging.getLogger(quiet).setLevel(logging.INFO if is_debugging() else logging.ERROR)
    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = False
    context.print_on_execution_start = False


def _worker_output() -> Any:
    """Where Ray hands out what workers of a job print. It has no public name (looked at in Ray 2.60)."""
    from ray._private.ray_logging import global_worker_stdstream_dispatcher

    return global_worker_stdstream_dispatcher


@contextmanager
def _logs_kept(output: str) -> Iterator[None]:
    """Keep what workers print, and warnings of mvpose in this process, in a new file of OUTPUT/logs."""
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
    """Hand workers' lines and records of mvpose to a handler. A full disk must not end a job because of its log."""
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
    handler.handleError = lambda record: None

    def write(batch: dict[str, Any]) -> None:
        if batch.get("pid") == "autoscaler":  # its status every few seconds, of no worker
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
    """A storage that has gone away has stopped the job already, with its own sentence."""
    with suppress(ResultsError):
        write_whole_file(uri, path)

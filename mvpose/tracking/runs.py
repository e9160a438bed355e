"""Runs: records of a job, written to a local file first and sent to MLflow once it can be reached.

A run is identified by an ID generated here. It is plain text, shared by all processes that record to the run.
"""

from __future__ import annotations

import logging
import os
import time
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from mvpose.errors import ConfigError
from mvpose.tracking.circumstances import commit, environment
from mvpose.tracking.delivery import deliver, send
from mvpose.tracking.spool import Spool, spools
from mvpose.tracking.tracking_config import TrackingConfig, spool_folder, tracking_uri

logger = logging.getLogger(__name__)


def unrecordable(config: TrackingConfig) -> str | None:
    """Return a sentence why runs cannot be recorded, or None if they can. Called before any work is done."""
    folder = spool_folder(config)
    try:
        os.makedirs(folder, exist_ok=True)
        if os.access(folder, os.W_OK):
            return None
        why = "it cannot be written"
    except OSError as error:
        why = error.strerror or str(error)
    return f"this run is not recorded in MLflow: {folder}: {why}. Name a folder in --tracking.folder or XDG_DATA_HOME."


def start_run(
    config: TrackingConfig,
    name: str,
    settings: Mapping[str, Any],
    *,
    tags: Mapping[str, str] | None = None,
    parent: str | None = None,
    run_id: str | None = None,
) -> str:
    """Open a run with its flat settings as parameters and return its ID.

    `parent` is the ID of the run that contains this one. A caller that may be restarted passes its own stable `run_id`
    (letters and digits): an existing run is then resumed. Settings, package versions and the commit are stored with
    the run; digests of data belong in `tags`.
    """
    spool = Spool(spool_folder(config), run_id or uuid.uuid4().hex)
    head = commit()
    tags = {"mlflow.source.git.commit": head, "mvpose.commit": head, **(tags or {})}
    with _write_errors_as_warnings(config):
        if spool.exists():
            spool.append({"kind": "resume", "time": _now()})
            spool.append({"kind": "tags", "time": _now(), "tags": tags})
        else:
            plain = {key: value if _is_plain(value) else str(value) for key, value in settings.items()}
            start = {"kind": "start", "time": _now(), "name": name, "experiment": config.experiment, "parent": parent}
            spool.append({**start, "settings": plain, "tags": tags, "environment": environment()})
        deliver(config, spool, urgent=True)
    return spool.run_id


def log_metrics(config: TrackingConfig, run_id: str, figures: Mapping[str, float], step: int) -> None:
    """Record one point of each curve; non-finite values are skipped. Sent in batches every few seconds."""
    _metrics(config, run_id, figures, step, urgent=False)


def log_figures(config: TrackingConfig, run_id: str, figures: Mapping[str, float]) -> None:
    """Record results, one value each; non-finite values are skipped."""
    _metrics(config, run_id, figures, 0, urgent=True)


def log_tags(config: TrackingConfig, run_id: str, tags: Mapping[str, str]) -> None:
    """Record tags to search a run by."""
    _record(config, run_id, {"kind": "tags", "tags": dict(tags)}, urgent=True)


def log_files(config: TrackingConfig, run_id: str, path: str, artifact_path: str) -> None:
    """Record a local file or folder under `artifact_path`; it may change or be deleted once this returns."""
    with _write_errors_as_warnings(config):
        copy = Spool(spool_folder(config), run_id).keep_files(path)
        _record(config, run_id, {"kind": "files", "copy": copy, "artifact_path": artifact_path}, urgent=True)


def end_run(config: TrackingConfig, run_id: str, succeeded: bool) -> None:
    """Close a run."""
    _record(config, run_id, {"kind": "end", "status": "FINISHED" if succeeded else "FAILED"}, urgent=True)


def described(config: TrackingConfig, run_id: str) -> str:
    """Describe where a run is recorded."""
    spool = Spool(spool_folder(config), run_id)
    if not spool.exists():
        return unrecordable(config) or f"this run is not recorded: {spool.path} could not be written."
    arrived = spool.arrived()
    if arrived and not spool.is_waiting():
        return f"MLflow run {arrived.remote_id} in {arrived.uri}"
    folder = os.path.abspath(spool.folder)
    return f"record of the run in {spool.path}, not yet in MLflow: mvpose track sync {folder}"


def sync_runs(config: TrackingConfig) -> tuple[int, int]:
    """Send pending records of the runs in `config.folder`; returns the numbers of such runs and records.

    They go to the store in the settings. If a run was created in another store and `config.uri` does not say which is
    meant, nothing is sent: ConfigError. UnreachableError if the store cannot be reached; the rest can be sent later.
    """
    here = tracking_uri(config)
    found = [(spool, spool.arrived()) for spool in spools(spool_folder(config))]
    elsewhere = [(s, arrived.uri) for s, arrived in found if arrived and arrived.uri != here and s.is_waiting()]
    if elsewhere and config.uri is None:
        spool, before = elsewhere[0]
        raise ConfigError(
            f"{len(elsewhere)} runs were recorded elsewhere before ({spool.run_id} at {before}), but your settings "
            f"name {here}: choose one with --tracking.uri."
        )
    runs = records = 0
    for spool, arrived in found:
        if spool.is_waiting() or (config.uri is not None and arrived and arrived.uri != here):
            records += send(config, spool, wait=True)
            runs += 1
    return runs, records


def _metrics(config: TrackingConfig, run_id: str, figures: Mapping[str, float], step: int, *, urgent: bool) -> None:
    finite = {key: float(value) for key, value in figures.items() if abs(value) < float("inf")}
    if finite:
        _record(config, run_id, {"kind": "metrics", "step": step, "figures": finite}, urgent=urgent)


def _record(config: TrackingConfig, run_id: str, record: dict[str, Any], *, urgent: bool) -> None:
    spool = Spool(spool_folder(config), run_id)
    with _write_errors_as_warnings(config):
        spool.append({"time": _now(), **record})
        deliver(config, spool, urgent=urgent)


@contextmanager
def _write_errors_as_warnings(config: TrackingConfig) -> Iterator[None]:
    """Turn a failure to write a record into a warning: tracking never fails a job."""
    try:
        yield
    except OSError as error:
        logger.warning("A record of this run is lost: %s: %s", spool_folder(config), error.strerror or error)


def _is_plain(value: Any) -> bool:
    return value is None or isinstance(value, (str, int, bool)) or (isinstance(value, float) and value - value == 0)


def _now() -> int:
    """Milliseconds, as in MLflow."""
    return time.time_ns() // 1_000_000

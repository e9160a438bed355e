"""Runs: what a job tells of itself, written to a local file first and to MLflow as soon as it can be reached.

A run is known by an id that is made here. It is plain text, the same for every process that speaks for the run.
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
from mvpose.tracking.config import TrackingConfig, spool_folder, tracking_uri
from mvpose.tracking.delivery import deliver, send
from mvpose.tracking.spool import Spool, spools

logger = logging.getLogger(__name__)


def unrecordable(config: TrackingConfig) -> str | None:
    """Why runs cannot be recorded, in a sentence; None where they can. Asked before any work is done."""
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
    """Open a run with its flat settings as parameters; its id.

    `parent` is the id of the run that this one is a part of. A caller that may be started again names its run by a
    `run_id` of its own (letters and digits, the same each time): then a run that is there is taken up. Settings,
    versions of packages and the commit are kept with the run; digests of data belong into `tags`.
    """
    spool = Spool(spool_folder(config), run_id or uuid.uuid4().hex)
    head = commit()
    tags = {"mlflow.source.git.commit": head, "mvpose.commit": head, **(tags or {})}
    with _written_or_warned(config):
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
    """Record one point of each curve; values that are not finite are left out. Sent with others, every few seconds."""
    _metrics(config, run_id, figures, step, urgent=False)


def log_figures(config: TrackingConfig, run_id: str, figures: Mapping[str, float]) -> None:
    """Record results, one value each; values that are not finite are left out."""
    _metrics(config, run_id, figures, 0, urgent=True)


def log_tags(config: TrackingConfig, run_id: str, tags: Mapping[str, str]) -> None:
    """Record what a run is to be found by."""
    _record(config, run_id, {"kind": "tags", "tags": dict(tags)}, urgent=True)


def log_files(config: TrackingConfig, run_id: str, path: str, artifact_path: str) -> None:
    """Record a local file, or a folder of them, under `artifact_path`; it may change or go as soon as this returns."""
    with _written_or_warned(config):
        copy = Spool(spool_folder(config), run_id).keep_files(path)
        _record(config, run_id, {"kind": "files", "copy": copy, "artifact_path": artifact_path}, urgent=True)


def end_run(config: TrackingConfig, run_id: str, succeeded: bool) -> None:
    """Close a run."""
    _record(config, run_id, {"kind": "end", "status": "FINISHED" if succeeded else "FAILED"}, urgent=True)


def described(config: TrackingConfig, run_id: str) -> str:
    """Where a run is to be found, in words."""
    spool = Spool(spool_folder(config), run_id)
    if not spool.exists():
        return unrecordable(config) or f"this run is not recorded: {spool.path} could not be written."
    arrived = spool.arrived()
    if arrived and not spool.is_waiting():
        return f"MLflow run {arrived.remote_id} in {arrived.uri}"
    folder = os.path.abspath(spool.folder)
    return f"record of the run in {spool.path}, not yet in MLflow: mvpose track sync {folder}"


def sync_runs(config: TrackingConfig) -> tuple[int, int]:
    """Send what has not arrived of the runs in `config.folder`; how many runs had some, and how many records it was.

    They go to the store of the settings. Where one was begun in another, and `config.uri` does not say which is meant,
    nothing is sent: ConfigError. UnreachableError where the store cannot be reached; the rest can be sent again.
    """
    here = tracking_uri(config)
    found = [(spool, spool.arrived()) for spool in spools(spool_folder(config))]
    elsewhere = [(s, arrived.uri) for s, arrived in found if arrived and arrived.uri != here and s.is_waiting()]
    if elsewhere and config.uri is None:
        spool, before = elsewhere[0]
        raise ConfigError(
            f"{len(elsewhere)} runs were recorded elsewhere before ({spool.run_id} at {before}), and your settings "
            f"name {here}: say with --tracking.uri which of the two is meant."
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
    with _written_or_warned(config):
        spool.append({"time": _now(), **record})
        deliver(config, spool, urgent=urgent)


@contextmanager
def _written_or_warned(config: TrackingConfig) -> Iterator[None]:
    """A record that cannot be written is a warning: it is never a part of the work."""
    try:
        yield
    except OSError as error:
        logger.warning("A record of this run is lost: %s: %s", spool_folder(config), error.strerror or error)


def _is_plain(value: Any) -> bool:
    return value is None or isinstance(value, (str, int, bool)) or (isinstance(value, float) and value - value == 0)


def _now() -> int:
    """Milliseconds, as MLflow counts."""
    return time.time_ns() // 1_000_000

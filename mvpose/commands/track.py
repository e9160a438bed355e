"""`mvpose track sync`: send pending run records to MLflow."""

from __future__ import annotations

import os
from dataclasses import dataclass, field, replace
from typing import Literal

import tyro

from mvpose.errors import ConfigError
from mvpose.tracking import TrackingConfig, spool_folder, sync_runs


@dataclass(frozen=True, kw_only=True)
class TrackSync:
    """Send the run records that MLflow has not received yet."""

    what: tyro.conf.Positional[Literal["sync"]] = "sync"
    folder: tyro.conf.Positional[str] = ""
    """Folder with the records (RUN.jsonl), or a parent of such folders (default: --tracking.folder)."""
    tracking: TrackingConfig = field(default_factory=TrackingConfig)


def run(command: TrackSync) -> int:
    """Exit code 0 once everything is sent. An unreachable store raises, and no record is lost."""
    folder = command.folder or spool_folder(command.tracking)
    if not os.path.isdir(folder):
        raise ConfigError(f"{folder}: there is no such local folder; records are in the folder of --tracking.folder.")
    runs, records = sync_runs(replace(command.tracking, folder=folder))
    print(f"{records} records of {runs} runs sent." if runs else "Nothing to do: all records were already sent.")
    return 0

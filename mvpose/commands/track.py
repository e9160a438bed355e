"""`mvpose track sync`: send the records of runs that did not reach MLflow when they were made."""

from __future__ import annotations

import os
from dataclasses import dataclass, field, replace
from typing import Literal

import tyro

from mvpose.errors import ConfigError
from mvpose.tracking import TrackingConfig, spool_folder, sync_runs


@dataclass(frozen=True, kw_only=True)
class Track:
    """Send what MLflow has not received of the runs recorded in a folder."""

    what: tyro.conf.Positional[Literal["sync"]] = "sync"
    folder: tyro.conf.Positional[str] = ""
    """Folder with the records (RUN.jsonl), or one that holds such folders; without it the one of --tracking.folder."""
    tracking: TrackingConfig = field(default_factory=TrackingConfig)


def run(command: Track) -> int:
    """Exit code 0 when everything has arrived; a store that cannot be reached is an error, and nothing is lost."""
    folder = command.folder or spool_folder(command.tracking)
    if not os.path.isdir(folder):
        raise ConfigError(f"{folder}: there is no such local folder; records are where --tracking.folder says.")
    runs, records = sync_runs(replace(command.tracking, folder=folder))
    print(f"{records} records of {runs} runs sent." if runs else "Nothing to do: everything has arrived.")
    return 0

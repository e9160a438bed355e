"""Runs, models, versions and aliases in MLflow: the only home of mlflow.

The embedded default is a SQLite file and a folder of artifacts in the user's data folder; a server is named by
`MLFLOW_TRACKING_URI`. A record of what happened is never a part of the work: each is written to a local file first, and
a server that cannot be reached is said aloud and stops nothing.
"""

from mvpose.tracking.circumstances import system_figures
from mvpose.tracking.config import TrackingConfig, spool_folder, tracking_uri
from mvpose.tracking.delivery import UnreachableError
from mvpose.tracking.output_record import output_record, remember
from mvpose.tracking.runs import (
    described,
    end_run,
    log_figures,
    log_files,
    log_metrics,
    log_tags,
    start_run,
    sync_runs,
    unrecordable,
)

__all__ = [
    "TrackingConfig",
    "UnreachableError",
    "described",
    "end_run",
    "log_figures",
    "log_files",
    "log_metrics",
    "log_tags",
    "output_record",
    "remember",
    "spool_folder",
    "start_run",
    "sync_runs",
    "system_figures",
    "tracking_uri",
    "unrecordable",
]

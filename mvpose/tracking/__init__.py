"""Recording of runs, models, versions and aliases in MLflow. Only this package imports mlflow.

The default store is a SQLite file and a folder of artifacts in the user's data folder; `MLFLOW_TRACKING_URI` names a
server instead. Tracking never fails a job: each record is written to a local file first, and an unreachable server
only causes a warning.
"""

from mvpose.tracking.circumstances import system_figures
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
from mvpose.tracking.tracking_config import TrackingConfig, spool_folder, tracking_uri

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

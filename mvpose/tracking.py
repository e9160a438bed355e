"""Runs in MLflow: the only home of mlflow.

The embedded default is a SQLite file and a folder of artifacts in the working directory; a server is named by
`MLFLOW_TRACKING_URI`. The driver alone talks to MLflow, when its work is done: it is a record of what happened, never a
part of the work, so a server that cannot be reached is said aloud and stops nothing.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

logger = logging.getLogger(__name__)

MAX_PARAMETER_LENGTH = 500


@dataclass(frozen=True, kw_only=True)
class TrackingConfig:
    """Where runs are recorded."""

    enabled: bool = True
    uri: str | None = None
    """Tracking server or store; without it `MLFLOW_TRACKING_URI`, else `sqlite:///mlflow.db` here."""
    experiment: str = "reconstruct"


def tracking_uri(config: TrackingConfig) -> str:
    """The tracking store in use; a SQLite file is told by its absolute path, since runs remember it."""
    uri = config.uri or os.environ.get("MLFLOW_TRACKING_URI") or "sqlite:///mlflow.db"
    scheme, separator, path = uri.partition("sqlite:///")
    return f"sqlite:///{os.path.abspath(path)}" if separator and not scheme else uri


def start_run(config: TrackingConfig, name: str, settings: Mapping[str, Any]) -> str | None:
    """Open a run with its settings as parameters; its id, or None where tracking is off or out of reach."""
    if not config.enabled:
        return None
    with _reported():
        client = _client(config)
        run = client.create_run(_experiment(client, config), run_name=name)
        for key, value in settings.items():
            client.log_param(run.info.run_id, key, str(value)[:MAX_PARAMETER_LENGTH])
        return run.info.run_id
    return None


def log_figures(config: TrackingConfig, run_id: str, figures: Mapping[str, float]) -> None:
    """Record metrics; those that are not finite are left out."""
    with _reported():
        client = _client(config)
        for key, value in figures.items():
            if abs(value) < float("inf"):
                client.log_metric(run_id, _metric_name(key), value)


def log_files(config: TrackingConfig, run_id: str, folder: str, artifact_path: str) -> None:
    """Record a local folder of pictures and pages."""
    with _reported():
        _client(config).log_artifacts(run_id, folder, artifact_path)


def end_run(config: TrackingConfig, run_id: str, succeeded: bool) -> None:
    """Close a run."""
    with _reported():
        _client(config).set_terminated(run_id, "FINISHED" if succeeded else "FAILED")


def _client(config: TrackingConfig):
    # A server that is down is asked for seconds, not for MLflow's default of some minutes.
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "2")
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "10")
    for noisy in ("alembic", "mlflow"):
        logging.getLogger(noisy).setLevel(logging.WARNING)
    from mlflow import MlflowClient

    return MlflowClient(tracking_uri=tracking_uri(config))


def _experiment(client: Any, config: TrackingConfig) -> str:
    found = client.get_experiment_by_name(config.experiment)
    if found is not None:
        return found.experiment_id
    uri = tracking_uri(config)
    beside = os.path.dirname(os.path.abspath(uri.removeprefix("sqlite:///")))
    location = f"file://{beside}/mlartifacts" if uri.startswith("sqlite:///") else None
    return client.create_experiment(config.experiment, artifact_location=location)


def _metric_name(key: str) -> str:
    """MLflow allows letters, digits and `_-. :/` in names of metrics."""
    return "".join(c if c.isalnum() or c in "_-. :/" else "_" for c in key)


@contextmanager
def _reported() -> Iterator[None]:
    """A tracking store that cannot be reached is a warning, not the end of a job."""
    from mlflow.exceptions import MlflowException
    from sqlalchemy.exc import SQLAlchemyError

    try:
        yield
    except (MlflowException, SQLAlchemyError, OSError) as error:
        logger.warning("MLflow: %s. The job goes on without its record.", str(error).splitlines()[0])

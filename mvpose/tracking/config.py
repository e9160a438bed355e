"""Where runs are recorded."""

from __future__ import annotations

import os
from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class TrackingConfig:
    """Where runs are recorded."""

    enabled: bool = True
    """Send records to MLflow as they come. Without it they stay in the local folder, for `mvpose track sync`."""
    uri: str | None = None
    """Tracking server or store; without it `MLFLOW_TRACKING_URI`, else `sqlite:///mlflow.db` here."""
    experiment: str = "reconstruct"
    folder: str = "tracking"
    """Local folder where every record is written before it is sent; `mvpose track sync` sends what did not arrive."""


def tracking_uri(config: TrackingConfig) -> str:
    """The tracking store in use; a SQLite file is told by its absolute path, since runs remember it."""
    uri = config.uri or os.environ.get("MLFLOW_TRACKING_URI") or "sqlite:///mlflow.db"
    scheme, separator, path = uri.partition("sqlite:///")
    return f"sqlite:///{os.path.abspath(path)}" if separator and not scheme else uri

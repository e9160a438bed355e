"""Settings of experiment tracking."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Literal
from urllib.parse import unquote, urlsplit

from mvpose.config import home_folder
from mvpose.errors import redacted


@dataclass(frozen=True, kw_only=True)
class TrackingConfig:
    """Where runs are recorded."""

    enabled: bool = True
    """Send records to MLflow during the job. If off, records stay in the local folder for `mvpose track sync`."""
    uri: str | None = None
    """Tracking server or store (default: `MLFLOW_TRACKING_URI`, else `mlflow.db` in the user's data folder)."""
    experiment: str = "reconstruct"
    folder: str = ""
    """Local folder in which every record is written before it is sent (default: `tracking` in the user's data
    folder). `mvpose track sync` sends pending records."""


def tracking_uri(config: TrackingConfig) -> str:
    """URI of the tracking store for display and records, without credentials; a SQLite file has an absolute path."""
    return redacted(_configured(config))


def connection(config: TrackingConfig) -> str:
    """URI of the tracking store for MLflow.

    User and password of a server move to MLflow's environment variables, so that no URL that it prints or raises
    contains them. Those of a database stay in the URI, since MLflow has no other place for them.
    """
    uri = _configured(config)
    parts = urlsplit(uri)
    if parts.scheme not in ("http", "https") or parts.username is None:
        return uri
    os.environ["MLFLOW_TRACKING_USERNAME"] = unquote(parts.username)
    os.environ["MLFLOW_TRACKING_PASSWORD"] = unquote(parts.password or "")
    return redacted(uri)


def _configured(config: TrackingConfig) -> str:
    """The store from the user's settings and environment only."""
    uri = config.uri or os.environ.get("MLFLOW_TRACKING_URI") or f"sqlite:///{data_folder()}/mlflow.db"
    scheme, separator, path = uri.partition("sqlite:///")
    return f"sqlite:///{os.path.abspath(path)}" if separator and not scheme else uri


def spool_folder(config: TrackingConfig) -> str:
    """The local folder of records."""
    return config.folder or os.path.join(data_folder(), "tracking")


def data_folder() -> str:
    """The user's data folder: `mvpose` in $XDG_DATA_HOME, else in ~/.local/share."""
    share = os.environ.get("XDG_DATA_HOME") or os.path.join(home_folder(), ".local", "share")
    return os.path.join(os.path.abspath(share), "mvpose")


Metric = Literal["mpjpe_m", "mpjpe_relative_m", "pa_mpjpe_m"]


MIN_SEQUENCES = 5


@dataclass(frozen=True, kw_only=True)
class Gate:
    """Requirements that a version must meet before an alias moves to it."""

    metric: Metric = "mpjpe_m"
    margin_m: float = 0.0
    """Margin in metres by which the lower end of the improvement's 95 % interval must exceed zero."""
    min_sequences: int = MIN_SEQUENCES
    """Minimum number of held-out captures for a decision."""

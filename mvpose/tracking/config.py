"""Where runs are recorded."""

from __future__ import annotations

import os
from dataclasses import dataclass
from urllib.parse import unquote, urlsplit

from mvpose.config import home_folder
from mvpose.redaction import redacted


@dataclass(frozen=True, kw_only=True)
class TrackingConfig:
    """Where runs are recorded."""

    enabled: bool = True
    """Send records to MLflow as they come. Without it they stay in the local folder, for `mvpose track sync`."""
    uri: str | None = None
    """Tracking server or store; without it `MLFLOW_TRACKING_URI`, else `mlflow.db` in the user's data folder."""
    experiment: str = "reconstruct"
    folder: str = ""
    """Local folder where every record is written before it is sent, without it `tracking` in the user's data folder;
    `mvpose track sync` sends what did not arrive."""


def tracking_uri(config: TrackingConfig) -> str:
    """The tracking store in use as it is shown and remembered, without credentials; a SQLite file by its absolute
    path."""
    return redacted(_configured(config))


def connection(config: TrackingConfig) -> str:
    """What MLflow is told of the tracking store.

    User and password of a server move to the environment variables that MLflow has for them, so that they are in no
    URL that it prints or raises. Those of a database stay, since it has no other place for them.
    """
    uri = _configured(config)
    parts = urlsplit(uri)
    if parts.scheme not in ("http", "https") or parts.username is None:
        return uri
    os.environ["MLFLOW_TRACKING_USERNAME"] = unquote(parts.username)
    os.environ["MLFLOW_TRACKING_PASSWORD"] = unquote(parts.password or "")
    return redacted(uri)


def _configured(config: TrackingConfig) -> str:
    """From the user's settings and environment alone."""
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

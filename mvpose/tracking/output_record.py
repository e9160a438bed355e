"""`tracking.json` of an output: the MLflow run of this output, and the store where it was recorded.

An output may come from an untrusted source. Its record is only compared with the user's settings; credentials and
records are never sent to the store it names.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass

from mvpose.errors import ConfigError, ResultsError, redacted
from mvpose.storage.commits import create_once
from mvpose.storage.locations import exists, join, read_text
from mvpose.tracking.spool import check_name
from mvpose.tracking.tracking_config import TrackingConfig, tracking_uri

FILE = "tracking.json"


@dataclass(frozen=True)
class OutputRecord:
    """The run recorded with an output."""

    run_id: str
    uri: str
    """Store in which the run was recorded, without credentials."""

    def is_elsewhere(self, config: TrackingConfig) -> bool:
        """Whether this is a different store from the one in the user's settings."""
        return self.uri != tracking_uri(config)


def output_record(output: str) -> OutputRecord | None:
    """Return the record of an output, or None; ResultsError if it cannot be read."""
    uri = join(output, FILE)
    if not exists(uri):
        return None
    try:
        known = json.loads(read_text(uri))
        check_name(known["run_id"])
        return OutputRecord(known["run_id"], redacted(known["uri"]))
    except (ConfigError, OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise ResultsError(f"{uri} is not a run record ({error!r}): remove it.") from error


def remember(output: str, config: TrackingConfig, run_id: str) -> OutputRecord:
    """Record the run of an output. An existing record is kept and returned."""
    create_once(join(output, FILE), json.dumps(asdict(OutputRecord(run_id, tracking_uri(config)))).encode())
    known = output_record(output)
    assert known is not None
    return known

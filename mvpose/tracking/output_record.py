"""`tracking.json` of an output: the run that speaks for it, and where that run was recorded.

An output may come from anybody. What it remembers is compared with the user's settings and is never where credentials
or records are sent.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass

from mvpose.archive.commits import create_once
from mvpose.archive.locations import exists, join, read_text
from mvpose.errors import ConfigError, ResultsError
from mvpose.redaction import redacted
from mvpose.tracking.config import TrackingConfig, tracking_uri
from mvpose.tracking.spool import check_name

FILE = "tracking.json"


@dataclass(frozen=True)
class OutputRecord:
    """What an output remembers of its run."""

    run_id: str
    uri: str
    """The store that the run was recorded in, without credentials."""

    def is_elsewhere(self, config: TrackingConfig) -> bool:
        """Whether that is another store than the user's settings name now."""
        return self.uri != tracking_uri(config)


def output_record(output: str) -> OutputRecord | None:
    """What an output remembers, if it does; ResultsError where that cannot be read."""
    uri = join(output, FILE)
    if not exists(uri):
        return None
    try:
        known = json.loads(read_text(uri))
        check_name(known["run_id"])
        return OutputRecord(known["run_id"], redacted(known["uri"]))
    except (ConfigError, OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise ResultsError(f"{uri} is no record of a run ({error!r}): remove it.") from error


def remember(output: str, config: TrackingConfig, run_id: str) -> OutputRecord:
    """Write down which run speaks for an output; an earlier record stays, and is what is returned."""
    create_once(join(output, FILE), json.dumps(asdict(OutputRecord(run_id, tracking_uri(config)))).encode())
    known = output_record(output)
    assert known is not None
    return known

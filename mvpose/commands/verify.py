"""`mvpose verify`: check that a run is complete and holds each result exactly once."""

from __future__ import annotations

from dataclasses import dataclass

import tyro

from mvpose.errors import ConfigError

SOUND, UNSOUND = 0, 4
LABELS = 50


@dataclass(frozen=True, kw_only=True)
class Verify:
    """Check that a run is complete and holds each result exactly once. Repairs nothing."""

    run: tyro.conf.Positional[str] = ""
    """Output of `mvpose reconstruct`, a folder or an s3:// URI."""


def run(command: Verify) -> int:
    """Print the findings and the totals. Exit code 4 if there is a finding."""
    if not command.run:
        raise ConfigError("no run given: mvpose verify RUN")
    from mvpose.run.verification import verify_run

    seen = verify_run(command.run)
    for finding in seen.findings[:LABELS]:
        print(f"{finding.where}: {finding.what}")
    if len(seen.findings) > LABELS:
        print(f"... and {len(seen.findings) - LABELS} more findings")
    for note in seen.notes:
        print(f"note: {note}")
    print(
        f"{seen.captures} captures, {seen.clips} clips ({seen.failed_clips} failed), {seen.commits} commits, "
        f"{seen.rows} rows of poses: {f'{len(seen.findings)} findings' if seen.findings else 'sound'}."
    )
    return UNSOUND if seen.findings else SOUND

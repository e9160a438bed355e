"""`mvpose verify`: whether a run is whole, and each of its results there exactly once."""

from __future__ import annotations

from dataclasses import dataclass

import tyro

from mvpose.archive.verification import verify_run
from mvpose.errors import ConfigError

SOUND, UNSOUND = 0, 4
TOLD = 50


@dataclass(frozen=True, kw_only=True)
class Verify:
    """Check that a run is whole and each of its results there exactly once; repairs nothing."""

    run: tyro.conf.Positional[str] = ""
    """Output of `mvpose reconstruct`, a folder or an s3:// URI."""


def run(command: Verify) -> int:
    """Print what was looked at and what was found. Exit code 4 if anything was found."""
    if not command.run:
        raise ConfigError("say which run: mvpose verify RUN")
    seen = verify_run(command.run)
    for finding in seen.findings[:TOLD]:
        print(f"{finding.where}: {finding.what}")
    if len(seen.findings) > TOLD:
        print(f"... and {len(seen.findings) - TOLD} findings more")
    for note in seen.notes:
        print(f"note: {note}")
    print(
        f"{seen.captures} captures, {seen.clips} clips ({seen.failed_clips} failed), {seen.commits} commits, "
        f"{seen.rows} rows of poses: {f'{len(seen.findings)} findings' if seen.findings else 'sound'}."
    )
    return UNSOUND if seen.findings else SOUND

"""`mvpose index`: what captures an archive holds, and what is wrong with them."""

from __future__ import annotations

from dataclasses import dataclass, field

import tyro

from mvpose.archive.catalogue import CatalogueConfig, find_captures, write_catalogue
from mvpose.errors import ConfigError

COMPLETE, WITH_PROBLEMS = 0, 3


@dataclass(frozen=True, kw_only=True)
class Index:
    """List the captures of an archive and what is wrong with them."""

    archive: tyro.conf.Positional[str] = ""
    """Folder or s3:// URI with the captures."""
    output: str | None = None
    """Parquet file for the catalogue, one row a capture and camera."""
    catalogue: CatalogueConfig = field(default_factory=CatalogueConfig)


def run(command: Index) -> int:
    """Print one line a capture, a problem and a note. Exit code 3 if a capture has a problem."""
    if not command.archive:
        raise ConfigError("say which archive: mvpose index ARCHIVE")
    catalogue = find_captures(command.archive, command.catalogue)
    for capture in catalogue.captures:
        cameras = ", ".join(capture.rig.names)
        print(f"{capture.capture_id}: {capture.num_frames} frames at {capture.fps:g} Hz, {cameras}")
    for problem in catalogue.problems:
        print(f"{problem.capture_id}: left out, {problem.reason}: {problem.detail}")
    for note in catalogue.notes:
        print(f"note: {note}")
    if command.output:
        write_catalogue(command.output, catalogue)
        print(f"catalogue: {command.output}")
    return WITH_PROBLEMS if catalogue.problems else COMPLETE

"""`mvpose index`: list the captures of an archive and their problems."""

from __future__ import annotations

from collections.abc import Mapping

from mvpose.capture import Capture
from mvpose.commands.run_flags import Index
from mvpose.errors import ConfigError
from mvpose.footage.catalogue import NOTHING_KNOWN, look_through
from mvpose.footage.catalogue_table import Found, Problem, known_videos, written
from mvpose.records import Video
from mvpose.storage.locations import exists

COMPLETE, WITH_PROBLEMS = 0, 3


def run(command: Index) -> int:
    """Print one line per capture, problem and note, as they are found. Exit code 3 if a capture has a problem."""
    if not command.archive:
        raise ConfigError("no archive given: mvpose index ARCHIVE")
    known = NOTHING_KNOWN
    if command.output and not command.full and exists(command.output):
        known = known_videos(command.output)
    found = look_through(command.archive, command.catalogue, known)
    if command.output:
        found = written(command.output, found)
    captures = problems = opened = 0
    for item in found:
        print(_line(item))
        problems += isinstance(item, Problem)
        if isinstance(item, Capture):
            captures += 1
            opened += sum(not _is_known(video, known) for video in item.videos)
    print(f"{captures} captures, {problems} skipped; {opened} videos were opened")
    if command.output:
        print(f"catalogue: {command.output}")
    return WITH_PROBLEMS if problems else COMPLETE


def _is_known(video: Video, known: Mapping[str, Video]) -> bool:
    before = known.get(video.uri)
    return before is not None and before.stamp == video.stamp


def _line(found: Found) -> str:
    if isinstance(found, Capture):
        cameras = ", ".join(found.rig.names)
        return f"{found.capture_id}: {found.num_frames} frames at {found.fps:g} Hz, {cameras}"
    if isinstance(found, Problem):
        return f"{found.capture_id}: skipped, {found.reason}: {found.detail}"
    return f"note: {found}"

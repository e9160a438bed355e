"""Read when frames were taken, by the recording computer's clock, from the table that a recorder stores with videos.

    timestamps.csv           cam_id, frame_time                         caliscope, rows in any order
    frame_time_history.csv   sync_index, port, frame_index, frame_time  frames with one sync_index belong together
    *_timestamps.csv         timestamp_from_zero_s                      FreeMoCap, also in a folder `timestamps`

For caliscope, a camera's k-th row by time is the k-th frame of its video; `frame_index` counts the camera's frames from
before the recording. Its inferred times (`inferred_timestamps.csv`) are not measurements and are not read. FreeMoCap
captures one frame of every camera at a time: row k is frame k of all of its videos.
"""

from __future__ import annotations

import csv
import re
from collections.abc import Iterable
from dataclasses import replace

import numpy as np

from mvpose.errors import ConfigError
from mvpose.footage.video.frame_clock import lattice, runs_of
from mvpose.records import ClockKind, FrameClock, Video
from mvpose.storage.locations import name, parent, read_text

WALL_TIMES_FOLDER = "timestamps"
_OF_ALL = "timestamp_from_zero_s"
_INFERRED = "inferred_timestamps.csv"
_NAMES = ("timestamps.csv", "frame_time_history.csv")


def is_wall_times(own_name: str) -> bool:
    """Whether a file of this name is a recorder's table of times."""
    return own_name in _NAMES or (own_name.endswith("_timestamps.csv") and own_name != _INFERRED)


def wall_times_of(folder: str, files: Iterable[str]) -> str:
    """The location, among `files`, of the wall-time table for the videos in a folder; empty if there is none.

    Raises ConfigError if there are several.
    """
    places = (folder, f"{folder}/{WALL_TIMES_FOLDER}", f"{parent(folder)}/{WALL_TIMES_FOLDER}")
    found = [file for file in files if is_wall_times(name(file)) and parent(file) in places]
    if len(found) > 1:
        raise ConfigError(
            f"{' and '.join(sorted(map(name, found)))} are wall-time tables for the same videos. Keep only one."
        )
    return next(iter(found), "")


def with_wall_times(videos: tuple[Video, ...], uri: str, keep_rate: bool) -> tuple[Video, ...]:
    """The videos with the clock and rate of a table; the header's rate only states the playback speed.

    Raises ConfigError if the table cannot be read or does not have a row for every frame.
    """
    try:
        text = read_text(uri)
        rows = list(csv.DictReader(line for line in text.splitlines() if not line.startswith("#")))
        if rows and _OF_ALL in rows[0]:
            return _with_times_of_all(videos, np.array([float(row[_OF_ALL]) for row in rows]), uri, keep_rate)
        cameras = [str(row.get("cam_id") or row["port"]) for row in rows]
        times = np.array([float(row["frame_time"]) for row in rows])
        shared = [int(row["sync_index"]) for row in rows] if rows and "sync_index" in rows[0] else None
    except OSError as error:
        raise ConfigError(f"{uri} cannot be read: {error.strerror or error}.") from error
    except (ValueError, TypeError, KeyError, csv.Error) as error:
        raise ConfigError(
            f"{uri} is not a table of frame times with numbers in the columns cam_id and frame_time: {error}. Remove "
            "it to use the videos' own times."
        ) from error
    places = [_rows_of(video, cameras, times, uri) for video in videos]
    periods = [lattice(times[own]).period for own in places]
    period = float(np.median(periods))
    if not period > 0:
        raise ConfigError(f"{uri}: its times do not increase.")
    first = min(times[own[0]] for own in places)
    ticks = np.array(shared) if shared else np.round((times - first) / period).astype(np.int64)
    return tuple(
        replace(
            video,
            clock=FrameClock(ClockKind.WALL, runs_of(ticks[own] - ticks.min())),
            fps=video.fps if keep_rate else 1 / period,
        )
        for video, own in zip(videos, places, strict=True)
    )


def _with_times_of_all(videos: tuple[Video, ...], times: np.ndarray, uri: str, keep_rate: bool) -> tuple[Video, ...]:
    """The videos with a shared clock, frame by frame."""
    others = [f"{video.camera} {video.num_frames}" for video in videos if video.num_frames != len(times)]
    if others:
        raise ConfigError(
            f"{uri} has {len(times)} times, but the videos have other frame counts ({', '.join(others)}). They are "
            "not of one recording. Remove the table, or replace it with the right one."
        )
    if not (np.diff(times) > 0).all():
        raise ConfigError(f"{uri}: its times do not increase.")
    found = lattice(times)
    clock = FrameClock(ClockKind.WALL, runs_of(found.ticks))
    return tuple(replace(video, clock=clock, fps=video.fps if keep_rate else 1 / found.period) for video in videos)


def _rows_of(video: Video, cameras: list[str], times: np.ndarray, uri: str) -> np.ndarray:
    """Indices of a video's rows, sorted by time. Rows match its file name or the last number in it."""
    stem = name(video.uri).rpartition(".")[0]
    numbers = re.findall(r"\d+", stem)
    names = {stem, *(str(int(number)) for number in numbers[-1:])}
    own = np.flatnonzero([camera in names for camera in cameras])
    if len(own) != video.num_frames:
        raise ConfigError(
            f"{uri} has {len(own)} times for {stem}, but its video has {video.num_frames} frames. They are not of one "
            "recording. Remove the table, or replace it with the right one."
        )
    return own[np.argsort(times[own], kind="stable")]

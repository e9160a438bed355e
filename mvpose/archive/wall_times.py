"""When frames were taken by the clock of the recording computer, from the table that a recorder writes beside videos.

    timestamps.csv           cam_id, frame_time                         caliscope, rows in any order
    frame_time_history.csv   sync_index, port, frame_index, frame_time  frames of one sync_index belong together
    *_timestamps.csv         timestamp_from_zero_s                      FreeMoCap, also in a folder `timestamps`

In caliscope's the k-th row of a camera by time is the k-th frame of its video; `frame_index` counts the camera's frames
from before the recording. What it infers (`inferred_timestamps.csv`) is no measurement and is not read. FreeMoCap takes
a frame of every camera at a time: row k is frame k of all of its videos.
"""

from __future__ import annotations

import csv
import re
from collections.abc import Iterable
from dataclasses import replace

import numpy as np

from mvpose.archive.frame_clock import lattice, runs_of
from mvpose.archive.locations import name, parent, read_text
from mvpose.errors import ConfigError
from mvpose.records import ClockKind, FrameClock, Video

WALL_TIMES_FOLDER = "timestamps"
_OF_ALL = "timestamp_from_zero_s"
_INFERRED = "inferred_timestamps.csv"
_NAMES = ("timestamps.csv", "frame_time_history.csv")


def is_wall_times(own_name: str) -> bool:
    """Whether a file of this name is a recorder's table of times."""
    return own_name in _NAMES or (own_name.endswith("_timestamps.csv") and own_name != _INFERRED)


def wall_times_of(folder: str, files: Iterable[str]) -> str:
    """Of the locations of `files` the table of the videos in a folder; empty where there is none.

    ConfigError where there are several.
    """
    places = (folder, f"{folder}/{WALL_TIMES_FOLDER}", f"{parent(folder)}/{WALL_TIMES_FOLDER}")
    found = [file for file in files if is_wall_times(name(file)) and parent(file) in places]
    if len(found) > 1:
        raise ConfigError(
            f"{' and '.join(sorted(map(name, found)))} are tables of times of the same videos. Keep one of them."
        )
    return next(iter(found), "")


def with_wall_times(videos: tuple[Video, ...], uri: str, keep_rate: bool) -> tuple[Video, ...]:
    """The videos with the clock of a table, and with its rate: that of the header says how fast they are played.

    ConfigError where the table cannot be read or does not have a row for every frame.
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
            f"{uri} is no table of times of frames, with numbers in the columns cam_id and frame_time: {error}. Remove "
            "it to have the videos' own times used."
        ) from error
    places = [_rows_of(video, cameras, times, uri) for video in videos]
    periods = [lattice(times[own]).period for own in places]
    period = float(np.median(periods))
    if not period > 0:
        raise ConfigError(f"{uri}: its times do not rise.")
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
    """The videos with a clock that they share, frame by frame."""
    others = [f"{video.camera} {video.num_frames}" for video in videos if video.num_frames != len(times)]
    if others:
        raise ConfigError(
            f"{uri} has {len(times)} times, and the videos other numbers of frames ({', '.join(others)}): they are not "
            "of one recording. Remove the table, or put the right one there."
        )
    if not (np.diff(times) > 0).all():
        raise ConfigError(f"{uri}: its times do not rise.")
    found = lattice(times)
    clock = FrameClock(ClockKind.WALL, runs_of(found.ticks))
    return tuple(replace(video, clock=clock, fps=video.fps if keep_rate else 1 / found.period) for video in videos)


def _rows_of(video: Video, cameras: list[str], times: np.ndarray, uri: str) -> np.ndarray:
    """The places of a video's rows, by time: those of its file's name, or of the last number in it."""
    stem = name(video.uri).rpartition(".")[0]
    numbers = re.findall(r"\d+", stem)
    names = {stem, *(str(int(number)) for number in numbers[-1:])}
    own = np.flatnonzero([camera in names for camera in cameras])
    if len(own) != video.num_frames:
        raise ConfigError(
            f"{uri} has {len(own)} times of {stem}, and its video {video.num_frames} frames: they are not of one "
            "recording. Remove the table, or put the right one there."
        )
    return own[np.argsort(times[own], kind="stable")]

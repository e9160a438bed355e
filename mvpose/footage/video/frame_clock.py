"""Identify the frames of a video by image numbers, presentation times or wall times, as integer ticks.

A tick is an image number, or a time in units of the video's own frame period. Cameras drop frames, and their timestamps
jitter. The two are separated here, once, so that all later code pairs frames by integers.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int64

from mvpose.footage.video.frame_index import FrameIndex, first_shown_s, presentation_times
from mvpose.records import ClockKind, FrameClock

# Nobody films people slower or faster. A header outside this range means that the timestamps are broken.
SLOWEST_HZ, FASTEST_HZ = 1.0, 1000.0
# In dim light, a phone's actual rate is up to a third off the nominal one (24, not 30); slow motion is at least double.
SAME_CAPTURE_RATE = 1.5
# Timestamps at a constant rate are off only by rounding to their unit: 0.015 of a frame at 30 Hz in milliseconds.
_ROUNDING = 0.1
# Fraction of a frame's phase error that is applied to the tracked phase: jitter averages out over ten frames.
_TRACKING = 0.1


def numbered_clock(numbers: Sequence[int]) -> FrameClock:
    """The clock of images with these numbers, in ascending order."""
    return FrameClock(ClockKind.NUMBER, runs_of(np.array(numbers, np.int64)))


def video_clock(uri: str, index: FrameIndex) -> tuple[FrameClock, float]:
    """The clock of a video file and its rate in frames per second, which lost frames do not lower.

    The clock includes the container's start time if the format counts from 0.
    """
    times = np.sort(index.timestamp[index.is_shown])
    found = lattice(times.astype(np.float64))
    if not found.is_plain:  # a gap in decoding times is also one in presentation times, at another frame
        times = presentation_times(uri, index)
        found = lattice(times.astype(np.float64))
    rate = index.fps
    if found.is_constant and not found.is_plain:
        rate = float(int(found.ticks[-1]) / (int(np.ptp(times)) * index.time_base))
    kind = ClockKind.TIME if found.is_constant else ClockKind.VARYING
    return FrameClock(kind, runs_of(found.ticks + round(first_shown_s(uri, index) * rate))), rate


def wrong_rate(uri: str, index: FrameIndex, rate: float) -> str:
    """Why the file's rate cannot be the filming rate, and how to fix it; empty if it is plausible."""
    ask = "Set `fps` in a capture.toml to the rate at which it was filmed."
    if not SLOWEST_HZ <= rate <= FASTEST_HZ:
        return (
            f"{uri}: its timestamps give {rate:g} frames/s, but cameras film people at {SLOWEST_HZ:g} to "
            f"{FASTEST_HZ:g}: they are broken. {ask}"
        )
    captured = index.captured_fps
    if captured and not 1 / SAME_CAPTURE_RATE < captured / rate < SAME_CAPTURE_RATE:
        return (
            f"{uri} plays at {rate:g} frames/s but states that it was filmed at {captured:g} (slow motion or time "
            f"lapse); its true rate is ambiguous. {ask}"
        )
    return ""


@dataclass(frozen=True, eq=False)
class Lattice:
    """Ascending frame times as integer ticks from 0."""

    ticks: Int64[np.ndarray, " n"]
    period: float
    """Duration of a tick, in the unit of the times."""
    is_constant: bool = True
    """Whether every time is within half a period of its tick, so the ticks have a constant rate."""

    @property
    def is_plain(self) -> bool:
        """Whether every frame is one tick after the previous one."""
        return self.is_constant and int(self.ticks[-1]) < len(self.ticks)


def lattice(times: Float[np.ndarray, " n"]) -> Lattice:
    """The lattice of one camera's frame times.

    Either every frame is one tick after the previous one, or frames were lost. Lost frames are assumed if they explain
    more than half of the jitter, or if otherwise a frame is more than half a period from its tick. If the latter holds
    for both, the rate itself varies (a phone in dim light): ticks then have the mean rate, and two frames may share
    one.
    may be at one.
    """
    count = np.arange(len(times))
    steps = np.diff(times)
    even = float(np.mean(steps)) if len(steps) else 0.0
    if np.abs(times - times[0] - even * count).max() <= _ROUNDING * even:
        return Lattice(count, even)
    even, apart = _fitted(times, count)
    ticks = _tracked(times, float(np.mean(steps[steps < 1.5 * np.median(steps)])))
    own, rest = _fitted(times, ticks)
    if np.abs(apart).max() < even / 2 and rest.std() / own >= apart.std() / even / 2:
        return Lattice(count, even)
    if np.abs(rest).max() < own / 2:
        return Lattice(ticks, own)
    even = float(np.mean(steps))
    return Lattice(np.round((times - times[0]) / even).astype(np.int64), even, is_constant=False)


def _fitted(times: Float[np.ndarray, " n"], ticks: Int64[np.ndarray, " n"]) -> tuple[float, Float[np.ndarray, " n"]]:
    """The best-fitting period, and each time's residual from its tick."""
    period, first = np.polyfit(ticks, times, 1)
    return float(period), times - first - period * ticks


def _tracked(times: Float[np.ndarray, " n"], period: float) -> Int64[np.ndarray, " n"]:
    """Ticks by tracking the phase from frame to frame, so errors of the period do not accumulate."""
    ticks, phase = [0], float(times[0])
    for time in times[1:].tolist():
        ticks.append(max(ticks[-1] + 1, round((time - phase) / period)))
        phase += _TRACKING * (time - phase - ticks[-1] * period)
    return np.array(ticks, np.int64)


def runs_of(ticks: Int64[np.ndarray, " n"]) -> tuple[tuple[int, int, int], ...]:
    """(frame, tick, ticks per frame) of each stretch of evenly increasing ticks."""
    steps = np.diff(ticks)
    runs, start = [], 0
    for last in (np.flatnonzero(np.diff(steps)) + 1).tolist():  # the step after frame `last` differs
        if last > start:
            runs.append((start, int(ticks[start]), int(steps[start])))
            start = last + 1
    runs.append((start, int(ticks[start]), int(steps[start]) if start < len(steps) else 1))
    return tuple(runs)


def ticks_of(clock: FrameClock | None, num_frames: int) -> Int64[np.ndarray, " n"]:
    """The inverse of `runs_of`; without a clock, frame k is tick k."""
    if clock is None:
        return np.arange(num_frames)
    starts, first, step = np.array(clock.runs, np.int64).T
    frames = np.arange(num_frames)
    run = np.searchsorted(starts, frames, side="right") - 1
    return first[run] + (frames - starts[run]) * step[run]

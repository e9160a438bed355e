"""What identifies the frames of a video: picture numbers, presentation times or wall times, as whole ticks.

A tick is a picture number, or a time in units of the video's own frame period. Cameras drop frames and their time
stamps jitter; both are told apart here, once, so that everything behind pairs frames by whole numbers.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int64

from mvpose.archive.frame_index import FrameIndex, first_shown_s, presentation_times
from mvpose.records import ClockKind, FrameClock

# Nobody films people slower or faster; a header beyond says that the time stamps are broken.
SLOWEST_HZ, FASTEST_HZ = 1.0, 1000.0
# A phone's actual rate is up to a third off the nominal one in dim light (30 for 24); slow motion is at least twice it.
SAME_CAPTURE_RATE = 1.5
# Time stamps of a constant rate are off by the rounding of their unit alone: 0.015 of a frame at 30 Hz in milliseconds.
_ROUNDING = 0.1
# Share of a frame's phase error that moves the tracked phase: jitter averages out over ten frames.
_TRACKING = 0.1


def numbered_clock(numbers: Sequence[int]) -> FrameClock:
    """The clock of pictures with these numbers, rising."""
    return FrameClock(ClockKind.NUMBER, runs_of(np.array(numbers, np.int64)))


def video_clock(uri: str, index: FrameIndex) -> tuple[FrameClock, float]:
    """The clock of a video file and its rate in frames per second, which lost frames do not lower.

    The container's start belongs to it where the format counts from 0.
    """
    times = np.sort(index.timestamp[index.is_shown])
    found = lattice(times.astype(np.float64))
    if not found.is_plain:  # a gap in decoding times is a gap in presentation, but before another frame
        times = presentation_times(uri, index)
        found = lattice(times.astype(np.float64))
    rate = index.fps
    if found.is_constant and not found.is_plain:
        rate = float(int(found.ticks[-1]) / (int(np.ptp(times)) * index.time_base))
    kind = ClockKind.TIME if found.is_constant else ClockKind.VARYING
    return FrameClock(kind, runs_of(found.ticks + round(first_shown_s(uri, index) * rate))), rate


def wrong_rate(uri: str, index: FrameIndex, rate: float) -> str:
    """Why the file's own rate cannot be the one at which it was filmed, and what to do; empty where it can be."""
    ask = "Give the rate at which it was filmed as `fps` in a capture.toml."
    if not SLOWEST_HZ <= rate <= FASTEST_HZ:
        return (
            f"{uri}: its time stamps say {rate:g} frames/s, and cameras film people at {SLOWEST_HZ:g} to "
            f"{FASTEST_HZ:g}: they are broken. {ask}"
        )
    captured = index.captured_fps
    if captured and not 1 / SAME_CAPTURE_RATE < captured / rate < SAME_CAPTURE_RATE:
        return (
            f"{uri} is played at {rate:g} frames/s and states that it was filmed at {captured:g} (slow motion or time "
            f"lapse): one of the two is its rate. {ask}"
        )
    return ""


@dataclass(frozen=True, eq=False)
class Lattice:
    """Times of frames, rising, as whole ticks from 0."""

    ticks: Int64[np.ndarray, " n"]
    period: float
    """Of a tick, in the unit of the times."""
    is_constant: bool = True
    """Whether every time is within half a period of its tick, so that ticks are those of a constant rate."""

    @property
    def is_plain(self) -> bool:
        """Whether every frame is one tick after the one before."""
        return self.is_constant and int(self.ticks[-1]) < len(self.ticks)


def lattice(times: Float[np.ndarray, " n"]) -> Lattice:
    """The lattice of the times of one camera's frames.

    Either every frame is one tick after the one before, or frames were lost: the second is believed where it leaves
    less than half of the jitter, or where the first puts a frame more than half a period from its place. Where the
    second does so too, the rate itself varies (a phone's in dim light): ticks are then of the mean rate, and two frames
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
    """The period that fits best, and how far each time is from its tick."""
    period, first = np.polyfit(ticks, times, 1)
    return float(period), times - first - period * ticks


def _tracked(times: Float[np.ndarray, " n"], period: float) -> Int64[np.ndarray, " n"]:
    """Ticks by following the phase from frame to frame: what the period is off by does not add up."""
    ticks, phase = [0], float(times[0])
    for time in times[1:].tolist():
        ticks.append(max(ticks[-1] + 1, round((time - phase) / period)))
        phase += _TRACKING * (time - phase - ticks[-1] * period)
    return np.array(ticks, np.int64)


def runs_of(ticks: Int64[np.ndarray, " n"]) -> tuple[tuple[int, int, int], ...]:
    """(frame, tick, ticks a frame) of each stretch of evenly rising ticks."""
    steps = np.diff(ticks)
    runs, start = [], 0
    for last in (np.flatnonzero(np.diff(steps)) + 1).tolist():  # the step to the frame after `last` is another
        if last > start:
            runs.append((start, int(ticks[start]), int(steps[start])))
            start = last + 1
    runs.append((start, int(ticks[start]), int(steps[start]) if start < len(steps) else 1))
    return tuple(runs)


def ticks_of(clock: FrameClock | None, num_frames: int) -> Int64[np.ndarray, " n"]:
    """The inverse of `runs_of`; without a clock frame k is tick k."""
    if clock is None:
        return np.arange(num_frames)
    starts, first, step = np.array(clock.runs, np.int64).T
    frames = np.arange(num_frames)
    run = np.searchsorted(starts, frames, side="right") - 1
    return first[run] + (frames - starts[run]) * step[run]

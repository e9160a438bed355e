"""Which frames of a capture's videos show the same instant.

One rule: frames belong together whose picture numbers are equal, or whose times are nearest within half a frame period.
A frame that a view lost is missing in that view; nothing is shifted. The capture goes from the first instant that two
views show to the end of the view that stops first.

Where the clocks of the views begin apart, two readings are possible: a camera began later, or its clock has another
zero and the first frames belong together. The footage decides where it can: times have to end together, as those of
cameras that were stopped together do; numbers must not fit as well in order. Else the capture is refused until its
`capture.toml` says `pairing = "clock"` or `"order"`. A `first_frame` says where a view begins in any case; what was
lost after it is still told by the clock.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from enum import StrEnum

import numpy as np
from jaxtyping import Int64

from mvpose.archive.frame_clock import ticks_of
from mvpose.errors import ConfigError
from mvpose.records import Breaks, ClockKind, FrameClock, Video

# Instants that no view shows are frames without anybody up to this long, as when all cameras drop frames together, and
# a break beyond it: a person may go unseen for so long and is still the same (`ReconstructionConfig.max_gap_s`).
LONGEST_GAP_S = 1.0
# Frames by which the ends of cameras that were stopped together differ by their own clocks.
ENDS_TOGETHER = 1
# Share of a view's frames that have a partner; clocks of different recordings agree on fewer, if on any.
FEWEST_PAIRED = 0.5
_ASK = 'Say which: `pairing = "clock"` or `pairing = "order"` in a capture.toml.'

Ticks = Int64[np.ndarray, " _"]


class Pairing(StrEnum):
    """How the first frames of the views belong together, and whether their clocks count."""

    CLOCK = "clock"
    """By number or time, from the first one on."""
    ORDER = "order"
    """Frame k with frame k; what the frames are numbered, or when they are shown, does not count."""


@dataclass(frozen=True)
class Paired:
    """The videos of a capture with the frames that the capture has of them."""

    videos: tuple[Video, ...]
    breaks: Breaks = ()
    notes: tuple[str, ...] = ()


def paired(videos: tuple[Video, ...], pairing: Pairing | None) -> Paired:
    """The videos, paired by what identifies their frames. ConfigError where two readings are possible."""
    clocks = [video.clock or FrameClock(ClockKind.TIME, ((0, 0, 1),)) for video in videos]
    begun = any(video.first_frame for video in videos)
    even = {clock.runs if not begun else clock.runs[0][2:] for clock in clocks}
    if pairing is Pairing.ORDER or (all(len(clock.runs) == 1 for clock in clocks) and len(even) == 1):
        return Paired(videos)
    kinds = {clock.kind for clock in clocks}
    ticks = [ticks_of(clock, video.num_frames) for clock, video in zip(clocks, videos, strict=True)]
    if ClockKind.VARYING in kinds:  # each has a period of its own
        rate = videos[0].fps
        ticks = [np.round(own * (rate / video.fps)).astype(np.int64) for own, video in zip(ticks, videos, strict=True)]
        videos = tuple(replace(video, fps=rate) for video in videos)
    if begun:
        ticks = [own - own[video.first_frame] for own, video in zip(ticks, videos, strict=True)]
    step = _step(ticks) if kinds == {ClockKind.NUMBER} else 1
    ticks = [own // step for own in ticks]
    told = " and ".join(sorted(kinds))
    if not begun and pairing is None and kinds != {ClockKind.WALL}:
        _require_one_reading(videos, ticks, told, kinds == {ClockKind.NUMBER})
    start = 0 if begun else _first_shared(ticks)
    stop = min(int(own[-1]) for own in ticks) + 1
    _require_partners(videos, ticks, start, stop, told)
    return _placed(videos, ticks, start, stop, told)


def _step(ticks: Sequence[Ticks]) -> int:
    """What picture numbers rise by from frame to frame: their common divisor, if most rise so; else 1."""
    steps = np.concatenate([np.diff(own) for own in ticks])
    apart = [int(own[0] - ticks[0][0]) for own in ticks]
    common = int(np.gcd.reduce(np.concatenate([steps, apart])))
    return common if 2 * np.count_nonzero(steps == common) > len(steps) else 1


def _require_one_reading(videos: Sequence[Video], ticks: Sequence[Ticks], told: str, numbered: bool) -> None:
    firsts, lasts = (np.array([own[place] for own in ticks]) for place in (0, -1))
    by_clock, by_order = np.ptp(lasts), np.ptp(lasts - firsts)
    if np.ptp(firsts) and not (by_order > 0 if numbered else by_clock <= ENDS_TOGETHER and by_clock < by_order):
        begins = ", ".join(f"{video.camera} {first}" for video, first in zip(videos, firsts.tolist(), strict=True))
        raise ConfigError(
            f"the views begin at different frames by their {told} ({begins}): either they began to record at different "
            f"moments, or their first frames belong together. {_ASK}"
        )


def _first_shared(ticks: Sequence[Ticks]) -> int:
    """The first tick that two views have; the first of all where there is none."""
    values, counts = np.unique(np.concatenate(ticks), return_counts=True)
    return int(values[np.argmax(counts > 1)])


def _require_partners(videos: Sequence[Video], ticks: Sequence[Ticks], start: int, stop: int, told: str) -> None:
    """ConfigError where by their clocks most frames of a view have no partner: such clocks are not the same."""
    used = [own[(start <= own) & (own < stop)] for own in ticks]
    values, counts = np.unique(np.concatenate(used), return_counts=True)
    shares = [float(np.isin(own, values[counts > 1]).mean()) if len(own) else 0.0 for own in used]
    alone = [video.camera for video, share in zip(videos, shares, strict=True) if share < FEWEST_PAIRED]
    if alone:
        raise ConfigError(
            f"by their {told}, most frames of {', '.join(alone)} have no partner in another view: either that is not "
            f"what identifies them, and frame k of all views belongs together, or this footage is of different "
            f"recordings. {_ASK}"
        )


def _placed(videos: Sequence[Video], ticks: Sequence[Ticks], start: int, stop: int, told: str) -> Paired:
    """The videos with the frames that the capture has of them."""
    instants = np.unique(np.concatenate([own[(start <= own) & (own < stop)] for own in ticks]))
    steps = np.diff(instants)
    before = np.flatnonzero(steps - 1 > LONGEST_GAP_S * videos[0].fps)
    edges, left_out = instants[before + 1], np.concatenate([[0], np.cumsum(steps[before] - 1)])

    def frames(own: Ticks) -> Ticks:
        return own - start - left_out[np.searchsorted(edges, own, side="right")]

    placed = tuple(replace(video, shown=_shown(frames(own), video)) for video, own in zip(videos, ticks, strict=True))
    breaks = tuple(zip(frames(edges).tolist(), (edges - start).tolist(), strict=True))
    num_frames = int(frames(np.array([stop - 1]))[0]) + 1
    lacks = {
        video.camera: num_frames - len(np.unique(own[(start <= own) & (own < stop)]))
        for video, own in zip(videos, ticks, strict=True)
    }
    if not breaks and not any(video.shown for video in placed):
        return Paired(placed)
    missing = ", ".join(f"{camera} {count}" for camera, count in lacks.items() if count) or "none"
    notes = [f"frames are paired by {told}; of {num_frames} frames the views lack: {missing}"]
    if breaks:
        notes.append(f"{len(breaks) + 1} stretches of frames with more than {LONGEST_GAP_S:g} s between them")
    return Paired(placed, breaks, tuple(notes))


def _shown(frames: Ticks, video: Video) -> tuple[tuple[int, int, int], ...]:
    """Stretches of successive frames as `Video.shown` has them; none where they are all from `first_frame` on."""
    # Where the rate varies two frames may be nearest to one instant: the first is taken.
    own = np.flatnonzero((frames >= 0) & (np.diff(frames, prepend=frames[0] - 1) > 0))
    frames = frames[own]
    first = np.flatnonzero((np.diff(frames, prepend=frames[0] - 2) != 1) | (np.diff(own, prepend=own[0] - 2) != 1))
    counts = np.diff(np.append(first, len(own)))
    runs = tuple(zip(frames[first].tolist(), own[first].tolist(), counts.tolist(), strict=True))
    return () if runs == ((0, video.first_frame, video.num_frames - video.first_frame),) else runs

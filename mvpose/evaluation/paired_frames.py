"""Which frame of a run shows the instant that a sample of the truth is about."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from mvpose.datasets.sample import Sample
from mvpose.errors import ConfigError
from mvpose.records import Capture, Video

SAME_RATE = 0.005
"""Rates that differ by less are one: 29.97 and 30 Hz are written for each other, and nobody resamples between them."""
LEAST_OVERLAP = 0.5


@dataclass(frozen=True)
class PairedFrames:
    """The run's frame of each sample of a capture."""

    frames: list[int | None]
    """May be outside the run. None: the instant is between two frames of a run of a lower rate than the truth's."""
    notes: tuple[str, ...] = ()
    """What part of the truth is not judged; empty where all of it is."""


def paired_frames(capture: Capture, samples: Sequence[Sample]) -> PairedFrames:
    """Pair the samples of a capture with its frames by time, counted from the first frames of the recordings.

    A sample names a frame of each camera's recording; over the truth's rate that is its time. Its partner is the run's
    frame within half a frame period of both rates. Where the truth states no rate, both are taken to have one.
    ConfigError where that is contradictory, or less than half of the truth's frames are in the run.
    """
    videos = {video.camera: video for video in capture.videos}
    ratio = _frames_of_run_a_frame(capture, samples[0].fps)
    exact = [_exact(capture, videos, sample, ratio) for sample in samples]
    frames = [round(e) if abs(e - round(e)) <= min(1.0, ratio) / 2 else None for e in exact]
    partners = {s.frame: f for s, f in zip(samples, frames, strict=True)}
    between = sum(f is None for f in partners.values())
    outside = sum(f is not None and not 0 <= f < capture.num_frames for f in partners.values())
    share = 1 - outside / max(1, len(partners) - between)
    offset = samples[0].frame - exact[0] / ratio  # the truth's number of the run's frame 0
    last = offset + (capture.num_frames - 1) / ratio
    told = (
        f"{capture.capture_id}: the truth is of frames {min(partners)} to {max(partners)}, and the run's "
        f"{capture.num_frames} frames are {round(offset)} to {round(last)} of those"
    )
    if between == len(partners) or share < LEAST_OVERLAP:
        raise ConfigError(
            f"{told}, so that {share * (between < len(partners)):.1%} of the truth could be judged. Are both of one "
            "recording? If this footage begins later, say so by first_frame in its capture.toml, and run again."
        )
    notes = [f"{told}: {share:.1%} of the truth is in the run, the rest counts as not found"] if outside else []
    notes += [f"{capture.capture_id}: {between} frames of the truth are between frames of the run: left out"] * (
        between > 0
    )
    return PairedFrames(frames, tuple(notes))


def _frames_of_run_a_frame(capture: Capture, fps: float) -> float:
    """Frames of the run in a frame of the truth; 1 where their rates are the same, or the truth's is not known."""
    ratio = 1.0 if math.isnan(fps) else capture.fps / fps
    if abs(ratio - 1) < SAME_RATE:
        return 1.0
    if any(video.stated_fps is None for video in capture.videos):
        raise ConfigError(
            f"{capture.capture_id}: the truth is told at {fps:g} frames/s, and the run took its pictures to be of "
            f"{capture.fps:g}. Either every so many pictures are left out, or that rate is wrong: give the rate of the "
            "pictures as fps in capture.toml, and run again."
        )
    return ratio


def _exact(capture: Capture, videos: dict[str, Video], sample: Sample, ratio: float) -> float:
    """The place of a sample's instant among the run's frames; ConfigError where its cameras disagree."""
    own = {
        name: videos[name].place_of((sample.frame if picture.frame < 0 else picture.frame) * ratio)
        for name, picture in zip(sample.rig.names, sample.pictures, strict=True)
        if name in videos
    }
    places = set(own.values()) or {video.place_of(sample.frame * ratio) for video in capture.videos}
    if len(places) > 1:
        raise ConfigError(
            f"{capture.capture_id}: frame {sample.frame} of the truth would be frame "
            f"{min(places):g} of the run by one camera and frame {max(places):g} by another: in the truth the cameras "
            "start together, and first_frame in the run's capture.toml says otherwise."
        )
    (place,) = places
    return place

"""Pairing of the samples of ground truth with the frames of a run by time."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from mvpose.capture import Capture
from mvpose.datasets.sample import Sample
from mvpose.errors import ConfigError
from mvpose.records import Video

SAME_RATE = 0.005
"""Rates closer than this are treated as equal: 29.97 and 30 Hz are often confused; nobody resamples between them."""
MIN_OVERLAP = 0.5


@dataclass(frozen=True)
class PairedFrames:
    """The run's frame of each sample of a capture."""

    frames: list[int | None]
    """May be outside the run. None if the instant is between two frames of a run with a lower rate than the truth."""
    notes: tuple[str, ...] = ()
    """Parts of the truth that are not evaluated; empty if all of it is."""


def paired_frames(capture: Capture, samples: Sequence[Sample]) -> PairedFrames:
    """Pair the samples of a capture with its frames by time, counted from the first frames of the recordings.

    A sample names a frame of each camera's recording; divided by the truth's rate, that is its time. It is paired with
    the run's frame within half a frame period of both rates. If the truth states no rate, the rates are taken as equal.
    ConfigError if the cameras contradict each other, or less than half of the truth's frames are in the run.
    """
    videos = {video.camera: video for video in capture.videos}
    ratio = _rate_ratio(capture, samples[0].fps)
    exact = [_exact(capture, videos, sample, ratio) for sample in samples]
    frames = [round(e) if abs(e - round(e)) <= min(1.0, ratio) / 2 else None for e in exact]
    partners = {s.frame: f for s, f in zip(samples, frames, strict=True)}
    between = sum(f is None for f in partners.values())
    outside = sum(f is not None and not 0 <= f < capture.num_frames for f in partners.values())
    share = 1 - outside / max(1, len(partners) - between)
    offset = samples[0].frame - exact[0] / ratio  # the truth's number of the run's frame 0
    last = offset + (capture.num_frames - 1) / ratio
    message = (
        f"{capture.capture_id}: the truth covers frames {min(partners)} to {max(partners)}, and the run's "
        f"{capture.num_frames} frames correspond to {round(offset)} to {round(last)} of those"
    )
    if between == len(partners) or share < MIN_OVERLAP:
        raise ConfigError(
            f"{message}, so that only {share * (between < len(partners)):.1%} of the truth could be evaluated. Are "
            "both from the same recording? If this footage starts later, set first_frame in its capture.toml and rerun."
        )
    notes = [f"{message}: {share:.1%} of the truth is in the run, the rest counts as not found"] if outside else []
    notes += [f"{capture.capture_id}: {between} frames of the truth are between frames of the run: skipped"] * (
        between > 0
    )
    return PairedFrames(frames, tuple(notes))


def _rate_ratio(capture: Capture, fps: float) -> float:
    """Frames of the run per frame of the truth; 1 if their rates are equal or the truth's rate is unknown."""
    ratio = 1.0 if math.isnan(fps) else capture.fps / fps
    if abs(ratio - 1) < SAME_RATE:
        return 1.0
    if any(video.stated_fps is None for video in capture.videos):
        raise ConfigError(
            f"{capture.capture_id}: the truth has {fps:g} frames/s, but the run assumed {capture.fps:g} for its "
            "images. Either the images are subsampled, or the assumed rate is wrong: set the rate of the images as fps "
            "in capture.toml and rerun."
        )
    return ratio


def _exact(capture: Capture, videos: dict[str, Video], sample: Sample, ratio: float) -> float:
    """Time of a sample in the run's frames; ConfigError if its cameras disagree."""
    own = {
        name: videos[name].place_of((sample.frame if image.frame < 0 else image.frame) * ratio)
        for name, image in zip(sample.rig.names, sample.images, strict=True)
        if name in videos
    }
    places = set(own.values()) or {video.place_of(sample.frame * ratio) for video in capture.videos}
    if len(places) > 1:
        raise ConfigError(
            f"{capture.capture_id}: frame {sample.frame} of the truth is frame "
            f"{min(places):g} of the run by one camera and frame {max(places):g} by another: in the truth the cameras "
            "start together, which contradicts first_frame in the run's capture.toml."
        )
    (place,) = places
    return place

"""Fit a rig to videos whose image size differs from the calibration's.

A file's metadata may request that its images be shown turned, and they are read that way. If the size does not reveal
the turn (a half turn, or a quarter turn of a square image), the calibration may refer to the stored or to the shown
images. The user then chooses with `turn_0` or `turn_180`, unless the calibration states that turn.

The rule (`auto`) tries these in order; w x h is the video's size and W x H the calibration's:
1. same size: nothing was done;
2. aspect ratio of H x W: turned as the calibration states; if it states nothing, the user must choose;
3. same aspect ratio, up to one pixel of rounding: scaled;
4. scaled to fit and padded to w x h (letterbox), if black bars of the resulting width are measured in the frames;
5. no bars, and the video is no larger in either dimension: cropped at the centre, after scaling if both sides are
   smaller, provided that two thirds of the calibrated image remain;
6. anything else is a CalibrationError.
`scale`, `letterbox` and `crop` state what was done, and nothing is measured. `turn_0`, `turn_90`, `turn_180` and
`turn_270` (clockwise, from the calibrated image to the video's) state a turn, after which the rule is applied.

Pixels are areas: scaling by s maps pixel c to (c + 0.5) s - 0.5.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import UInt8

from mvpose.errors import CalibrationError
from mvpose.footage.archive_settings import ImageFit
from mvpose.footage.video.frames import read_frames
from mvpose.geometry.camera import CameraRig
from mvpose.geometry.image_turns import image_turned
from mvpose.records import Video

SMALLEST_PART_LEFT = 2 / 3
BLACK = 24
"""A row is black if the mean of its brightest channel is below this. Bars of the demo videos are at 0 to 17 of 255,
except for the one row that the image reaches into (22 to 33)."""
BAR_TOLERANCE_PX = 1.5
SAMPLED_FRAMES = 3


_TURNS = {ImageFit.TURN_0: 0, ImageFit.TURN_90: 1, ImageFit.TURN_180: 2, ImageFit.TURN_270: 3}


@dataclass(frozen=True)
class Placement:
    """Position of the calibrated image in the video's: pixel c is at (c + 0.5) scale - 0.5 + offset."""

    scale: tuple[float, float]
    offset: tuple[float, float]
    sentence: str
    """The decision and its reason; empty if nothing was done."""


def fit_rig(
    rig: CameraRig, videos: tuple[Video, ...], fits: tuple[ImageFit, ...], turns: tuple[int, ...]
) -> tuple[CameraRig, tuple[str, ...]]:
    """The rig in pixels of its videos (one per camera, in order), and a sentence for each video that was changed.

    `turns` are the clockwise quarter turns that make each calibrated image upright, where the calibration states
    them. Reads a few frames of videos for which black bars decide. Raises CalibrationError if no rule applies.
    """
    sentences = []
    for i, (video, fit) in enumerate(zip(videos, fits, strict=True)):
        size = (int(rig.size[i, 0]), int(rig.size[i, 1]))
        quarter_turns = _quarter_turns(size, video, fit, turns[i] % 4)
        if quarter_turns:
            rig = image_turned(rig, i, quarter_turns)
            sentences.append(f"{video.camera}: the image was turned by {90 * quarter_turns} degrees clockwise")
    placements = []
    for i, (video, fit) in enumerate(zip(videos, fits, strict=True)):
        size = (int(rig.size[i, 0]), int(rig.size[i, 1]))
        if size == (0, 0):
            sentences.append(_check_unstated_size(rig, i, video))
            size = video.size
        placements.append(place_image(size, video, ImageFit.AUTO if fit in _TURNS else fit))
    scale = torch.tensor([p.scale for p in placements], dtype=rig.focal.dtype)
    offset = torch.tensor([p.offset for p in placements], dtype=rig.focal.dtype)
    sizes = torch.tensor([v.size for v in videos])
    fitted = rig.resized(scale, sizes).cropped(-offset, sizes)
    return fitted, (*sentences, *(p.sentence for p in placements if p.sentence))


def _quarter_turns(size: tuple[int, int], video: Video, fit: ImageFit, stated: int) -> int:
    """Clockwise quarter turns from the calibrated image to the video's; `stated` is the calibration's own value.

    Raises CalibrationError if the file states a turn and it is unclear whether the calibration includes it.
    """
    if fit in _TURNS:
        return _TURNS[fit]
    if fit == ImageFit.AUTO and _is_turned(size, video):
        return stated
    is_square = video.size[0] == video.size[1]
    if video.shown_turns == 0 or (video.shown_turns != 2 and not is_square):
        return 0
    if stated == video.shown_turns:
        return stated
    degrees = 90 * video.shown_turns
    raise CalibrationError(
        f"{video.camera}: {video.uri} is marked to be shown turned by {degrees} degrees. Its calibration may be for "
        f"the image as shown or as stored. Set it under [videos] in a capture.toml: {video.camera} = "
        f'{{ uri = "...", image_fit = "turn_0" }} if it is for the image as shown, "turn_{degrees}" if it is for the '
        "image as stored. `image_fit` of a whole capture applies to all of its videos."
    )


def place_image(size: tuple[int, int], video: Video, fit: ImageFit) -> Placement:
    """Position of a calibrated image of this size in the video's image, by the rule in the module's docstring."""
    if size == video.size:
        return Placement((1.0, 1.0), (0.0, 0.0), "")
    ratios = (video.size[0] / size[0], video.size[1] / size[1])
    said = f"{video.camera}: the video is {_by(video.size)} but its calibration is for {_by(size)}"
    if fit == ImageFit.SCALE or (fit == ImageFit.AUTO and _same_aspect(size, video.size)):
        return Placement(ratios, (0.0, 0.0), f"{said}: scaled by {ratios[0]:.4g} and {ratios[1]:.4g}")
    if fit == ImageFit.AUTO:
        if _is_turned(size, video):
            raise CalibrationError(
                f"{said}: the image was turned by a quarter, and the calibration does not state the direction. Set "
                "`image_fit` of this video to turn_90 or turn_270 (clockwise, calibrated image to video)."
            )
        return _place_by_bars(size, video, said)
    scale = min(ratios) if fit == ImageFit.LETTERBOX else max(ratios)
    return Placement(
        (scale, scale), _offset(size, video.size, scale), f"{said}: scaled by {scale:.4g}, {fit} as configured"
    )


def _place_by_bars(size: tuple[int, int], video: Video, said: str) -> Placement:
    """Letterbox or centre crop, whichever matches the measured bars."""
    (width, height), (w, h) = size, video.size
    inside, cut = sorted((w / width, h / height))
    bars = _offset(size, video.size, inside)
    expected = max(bars)
    measured = measured_bars(video, 0 if bars[0] > bars[1] else 1, expected)
    found = f"{measured[0]} and {measured[1]} black {'columns' if bars[0] > bars[1] else 'rows'} measured at the edges"
    if all(abs(m - expected) <= BAR_TOLERANCE_PX and m >= expected / 2 for m in measured):
        sentence = f"{said}: scaled by {inside:.4g} to fit, with bars of {expected:.2f} px ({found})"
        return Placement((inside, inside), bars, sentence)
    part = (w / (width * cut)) * (h / (height * cut))
    if min(measured) <= BAR_TOLERANCE_PX and cut <= 1.0 and part >= SMALLEST_PART_LEFT:
        sentence = f"{said}: scaled by {cut:.4g} and cropped at the centre, {part:.0%} left ({found})"
        return Placement((cut, cut), _offset(size, video.size, cut), sentence)
    raise CalibrationError(
        f"{said}. It is not a scaled image, has no bars of {expected:.1f} px ({found}), and is not cropped at the "
        "centre. Set `image_fit` of this video to scale, letterbox or crop, or provide a calibration for its size."
    )


def measured_bars(video: Video, axis: int, expected: float) -> tuple[int, int]:
    """Black columns (axis 0) or rows (axis 1) at the two edges: the minimum over a few frames across the video.

    Stops at the first frame with no more than the expected bars; after a dark frame, further frames are read. Raises
    VideoError if they cannot be decoded.
    """
    last = video.num_frames - 1
    before, after = video.size[axis], video.size[axis]
    for frame in sorted({round(last * i / (SAMPLED_FRAMES - 1)) for i in range(SAMPLED_FRAMES)}):
        edges = _black_edges(next(iter(read_frames(video, frame, frame + 1)))[0], axis)
        before, after = min(before, edges[0]), min(after, edges[1])
        if max(before, after) <= expected + BAR_TOLERANCE_PX:
            break
    return before, after


def _black_edges(image: UInt8[np.ndarray, "H W 3"], axis: int) -> tuple[int, int]:
    lit = np.flatnonzero(image.max(axis=2).mean(axis=axis) >= BLACK)
    length = image.shape[1 - axis]
    return (int(lit[0]), int(length - 1 - lit[-1])) if len(lit) else (length, length)


def _same_aspect(size: tuple[int, int], target: tuple[int, int]) -> bool:
    """Whether the aspect ratios agree to one pixel on one side, the error of rounding to whole pixels."""
    across, down = target[0] / size[0], target[1] / size[1]
    return abs(target[0] - size[0] * down) <= 1.0 or abs(target[1] - size[1] * across) <= 1.0


def _is_turned(size: tuple[int, int], video: Video) -> bool:
    return 0 not in size and not _same_aspect(size, video.size) and _same_aspect((size[1], size[0]), video.size)


def _by(size: tuple[int, int]) -> str:
    return f"{size[0]}x{size[1]}"


def _offset(size: tuple[int, int], target: tuple[int, int], scale: float) -> tuple[float, float]:
    """Offset of a scaled and centred image: positive with bars, negative if cropped."""
    return (target[0] - size[0] * scale) / 2, (target[1] - size[1] * scale) / 2


def _check_unstated_size(rig: CameraRig, camera: int, video: Video) -> str:
    """Use the video's size as the calibration's, if the principal point is in its middle half."""
    x, y = rig.centre[camera].tolist()
    w, h = video.size
    if not (0.25 * w < x < 0.75 * w and 0.25 * h < y < 0.75 * h):
        raise CalibrationError(
            f"{video.camera}: the calibration states no image size, and its principal point ({x:.0f}, {y:.0f}) is "
            f"far from the middle of the video ({w}x{h}). It is for another size: add W_ and H_ to it."
        )
    return f"{video.camera}: the calibration states no image size; the video's size {w}x{h} is used"

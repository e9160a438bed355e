"""A video whose size is not its calibration's: what was done to the picture, and the rig in the video's pixels.

A file may say that its pictures are to be shown turned, and they are read so. Where it says so in a way that the size
does not tell (by a half, or a square picture by a quarter), the calibration may be for the pictures as they are stored
or as they are shown: the user says which, by `turn_0` or `turn_180`, unless the calibration states that turn.

The rule (`auto`), in this order, w x h being the video's size and W x H the calibration's:
1. the same size: nothing was done;
2. the aspect of H x W: turned, by the turn that the calibration states; where it states none, the user names it;
3. the same aspect, to one pixel of rounding: scaled;
4. scaled to fit and padded to w x h (letterbox), if bars of the width that this makes are measured in the frames;
5. no bars, and the video is no larger either way: cut at the centre, after scaling if both sides are smaller, as long
   as two thirds of the calibrated picture are left;
6. anything else is a CalibrationError.
`scale`, `letterbox` and `crop` state what was done instead, and nothing is measured then; `turn_0`, `turn_90`,
`turn_180` and `turn_270` (clockwise, from the calibrated picture to the video's) state a turn, after which the rule
goes on.

Pixels go by areas: scaling by s maps a pixel c to (c + 0.5) s - 0.5.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import StrEnum

import numpy as np
import torch
from jaxtyping import UInt8

from mvpose.archive.video import read_frames
from mvpose.errors import CalibrationError
from mvpose.geometry.camera import CameraRig
from mvpose.geometry.lens import Lens, LensModel
from mvpose.geometry.rigid import Rigid
from mvpose.records import Video

SMALLEST_PART_LEFT = 2 / 3
BLACK = 24
"""Mean of a row's brightest channel under which it is black: bars of the demo videos are at 0 to 17 of 255, except for
the one row that the picture reaches into (22 to 33)."""
BAR_TOLERANCE_PX = 1.5
SAMPLED_FRAMES = 3


class PictureFit(StrEnum):
    """What was done to the calibrated picture to make the video's."""

    AUTO = "auto"
    SCALE = "scale"
    LETTERBOX = "letterbox"
    CROP = "crop"
    TURN_0 = "turn_0"
    TURN_90 = "turn_90"
    TURN_180 = "turn_180"
    TURN_270 = "turn_270"


_TURNS = {PictureFit.TURN_0: 0, PictureFit.TURN_90: 1, PictureFit.TURN_180: 2, PictureFit.TURN_270: 3}


@dataclass(frozen=True)
class Placement:
    """Where the calibrated picture lies in the video's: a pixel c is at (c + 0.5) scale - 0.5 + offset."""

    scale: tuple[float, float]
    offset: tuple[float, float]
    sentence: str
    """What was decided and why; empty where nothing was done."""


def fit_rig(
    rig: CameraRig, videos: tuple[Video, ...], fits: tuple[PictureFit, ...], turns: tuple[int, ...]
) -> tuple[CameraRig, tuple[str, ...]]:
    """The rig in the pixels of its videos (one a camera, in its order), and a sentence for each that was not as is.

    `turns` are the clockwise quarter turns that make each calibrated picture upright, where the calibration states
    them. Reads a few frames of videos for which bars decide. CalibrationError where no rule holds.
    """
    sentences = []
    for i, (video, fit) in enumerate(zip(videos, fits, strict=True)):
        size = (int(rig.size[i, 0]), int(rig.size[i, 1]))
        quarter_turns = _quarter_turns(size, video, fit, turns[i] % 4)
        if quarter_turns:
            rig = turned(rig, i, quarter_turns)
            sentences.append(f"{video.camera}: the picture was turned by {90 * quarter_turns} degrees clockwise")
    placements = []
    for i, (video, fit) in enumerate(zip(videos, fits, strict=True)):
        size = (int(rig.size[i, 0]), int(rig.size[i, 1]))
        if size == (0, 0):
            sentences.append(_check_unstated_size(rig, i, video))
            size = video.size
        placements.append(place_picture(size, video, PictureFit.AUTO if fit in _TURNS else fit))
    scale = torch.tensor([p.scale for p in placements], dtype=rig.focal.dtype)
    offset = torch.tensor([p.offset for p in placements], dtype=rig.focal.dtype)
    sizes = torch.tensor([v.size for v in videos])
    fitted = rig.resized(scale, sizes).cropped(-offset, sizes)
    return fitted, (*sentences, *(p.sentence for p in placements if p.sentence))


def _quarter_turns(size: tuple[int, int], video: Video, fit: PictureFit, stated: int) -> int:
    """Clockwise quarter turns from the calibrated picture to the video's; `stated` by the calibration.

    CalibrationError where the file states a turn that may be in the calibration or not.
    """
    if fit in _TURNS:
        return _TURNS[fit]
    if fit == PictureFit.AUTO and _is_turned(size, video):
        return stated
    is_square = video.size[0] == video.size[1]
    if video.shown_turns == 0 or (video.shown_turns != 2 and not is_square):
        return 0
    if stated == video.shown_turns:
        return stated
    degrees = 90 * video.shown_turns
    raise CalibrationError(
        f"{video.camera}: {video.uri} is marked as shown turned by {degrees} degrees, and its calibration may be for "
        f"the picture as shown or as stored. Say which under [videos] in a capture.toml: {video.camera} = "
        f'{{ uri = "...", picture_fit = "turn_0" }} if it is for the picture as shown, "turn_{degrees}" if for the '
        "one as stored. `picture_fit` of a whole capture turns all of its videos."
    )


def place_picture(size: tuple[int, int], video: Video, fit: PictureFit) -> Placement:
    """Where the calibrated picture of a size lies in a video's, by the rule at the top of this module."""
    if size == video.size:
        return Placement((1.0, 1.0), (0.0, 0.0), "")
    ratios = (video.size[0] / size[0], video.size[1] / size[1])
    said = f"{video.camera}: the video is {_by(video.size)} and its calibration for {_by(size)}"
    if fit == PictureFit.SCALE or (fit == PictureFit.AUTO and _same_aspect(size, video.size)):
        return Placement(ratios, (0.0, 0.0), f"{said}: scaled by {ratios[0]:.4g} and {ratios[1]:.4g}")
    if fit == PictureFit.AUTO:
        if _is_turned(size, video):
            raise CalibrationError(
                f"{said}: it was turned by a quarter, and the calibration does not say which way. Set `picture_fit` of "
                "this video to turn_90 or turn_270 (clockwise, from the calibrated picture to the video's)."
            )
        return _place_by_bars(size, video, said)
    scale = min(ratios) if fit == PictureFit.LETTERBOX else max(ratios)
    return Placement((scale, scale), _offset(size, video.size, scale), f"{said}: scaled by {scale:.4g}, {fit} as set")


def _place_by_bars(size: tuple[int, int], video: Video, said: str) -> Placement:
    """Letterbox or centre cut, whichever the measured bars speak for."""
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
        sentence = f"{said}: scaled by {cut:.4g} and cut at the centre, {part:.0%} left ({found})"
        return Placement((cut, cut), _offset(size, video.size, cut), sentence)
    raise CalibrationError(
        f"{said}, which is neither a scaled picture, nor one with bars of {expected:.1f} px ({found}), nor one cut at "
        "the centre. Set `picture_fit` of this video to scale, letterbox or crop, or give a calibration for its size."
    )


def measured_bars(video: Video, axis: int, expected: float) -> tuple[int, int]:
    """Black columns (axis 0) or rows (axis 1) at the two edges: the fewest over a few frames spread over the video.

    Ends at the first frame without more than the bars that are expected; a dark one is followed by others. VideoError
    if they cannot be decoded.
    """
    last = video.num_frames - 1
    before, after = video.size[axis], video.size[axis]
    for frame in sorted({round(last * i / (SAMPLED_FRAMES - 1)) for i in range(SAMPLED_FRAMES)}):
        edges = _black_edges(next(iter(read_frames(video, frame, frame + 1)))[0], axis)
        before, after = min(before, edges[0]), min(after, edges[1])
        if max(before, after) <= expected + BAR_TOLERANCE_PX:
            break
    return before, after


def _black_edges(picture: UInt8[np.ndarray, "H W 3"], axis: int) -> tuple[int, int]:
    lit = np.flatnonzero(picture.max(axis=2).mean(axis=axis) >= BLACK)
    length = picture.shape[1 - axis]
    return (int(lit[0]), int(length - 1 - lit[-1])) if len(lit) else (length, length)


def _same_aspect(size: tuple[int, int], target: tuple[int, int]) -> bool:
    """To one pixel on one side, which is what rounding to whole pixels can do."""
    across, down = target[0] / size[0], target[1] / size[1]
    return abs(target[0] - size[0] * down) <= 1.0 or abs(target[1] - size[1] * across) <= 1.0


def _is_turned(size: tuple[int, int], video: Video) -> bool:
    return 0 not in size and not _same_aspect(size, video.size) and _same_aspect((size[1], size[0]), video.size)


def _by(size: tuple[int, int]) -> str:
    return f"{size[0]}x{size[1]}"


def _offset(size: tuple[int, int], target: tuple[int, int], scale: float) -> tuple[float, float]:
    """Of a picture scaled and put in the middle: positive with bars, negative where it is cut."""
    return (target[0] - size[0] * scale) / 2, (target[1] - size[1] * scale) / 2


def _check_unstated_size(rig: CameraRig, camera: int, video: Video) -> str:
    """The video's size is taken for the calibration's, if the principal point lies in the middle half of it."""
    x, y = rig.centre[camera].tolist()
    w, h = video.size
    if not (0.25 * w < x < 0.75 * w and 0.25 * h < y < 0.75 * h):
        raise CalibrationError(
            f"{video.camera}: the calibration states no picture size, and its principal point ({x:.0f}, {y:.0f}) is "
            f"far from the middle of the video ({w}x{h}): it is for another size. Add W_ and H_ to it."
        )
    return f"{video.camera}: the calibration states no picture size; it is taken as the video's, {w}x{h}"


def turned(rig: CameraRig, camera: int, quarter_turns: int) -> CameraRig:
    """The rig with one camera's picture turned clockwise: once, the pixel (x, y) goes to (height - 1 - y, x)."""
    for _ in range(quarter_turns % 4):
        rig = _turned_once(rig, camera)
    return rig


def _turned_once(rig: CameraRig, camera: int) -> CameraRig:
    focal, centre, size = rig.focal.clone(), rig.centre.clone(), rig.size.clone()
    rotation, translation = rig.camera_from_world.rotation.clone(), rig.camera_from_world.translation.clone()
    lens = rig.lens.coefficients.clone()
    focal[camera], size[camera] = focal[camera].flip(0), size[camera].flip(0)
    centre[camera, 0], centre[camera, 1] = rig.size[camera, 1] - 1 - rig.centre[camera, 1], rig.centre[camera, 0]
    turn = torch.tensor([[0.0, -1, 0], [1, 0, 0], [0, 0, 1]], dtype=rotation.dtype)
    rotation[camera], translation[camera] = turn @ rotation[camera], turn @ translation[camera]
    if rig.lens.models[camera] != LensModel.KANNALA_BRANDT:
        # x' = -y, y' = x in the tangential and thin-prism terms; the radial ones are round.
        p1, p2 = rig.lens.coefficients[camera, 2:4]
        s1, s2, s3, s4 = rig.lens.coefficients[camera, 8:12]
        lens[camera, 2:4] = torch.stack([p2, -p1])
        lens[camera, 8:12] = torch.stack([-s3, -s4, s1, s2])
    return replace(
        rig,
        focal=focal,
        centre=centre,
        size=size,
        lens=Lens(rig.lens.models, lens),
        camera_from_world=Rigid(rotation, translation),
    )

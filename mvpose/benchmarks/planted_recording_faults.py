"""More faults planted into a take: how it was recorded and filed, and calibrations that belong to other images."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from functools import partial

import numpy as np
import torch

from mvpose.benchmarks.planted_faults import CalibratedTake, Fault, Planted
from mvpose.geometry.camera import CameraRig
from mvpose.geometry.lens import Lens, LensModel
from mvpose.quality.findings import CheckKind
from mvpose.quality.mirrored_world import AXES, flipped_rig
from mvpose.records import Keypoints2D
from mvpose.rendering.camera_rigs import middle, rig_of

DRIFTS = (0.001, 0.02)
"""Frames that one camera's clock gains per frame: 0.3 and 6 frames in a take of 10 s."""
APART_M = 0.3
NOISE_SHARE = 0.015
"""Error of simulated joints over a person's height in the image, as measured on the demos."""
SIZE_FACTOR, CROP_SHARE = 0.75, 0.125
"""The calibration's image size over the footage's, and what was cut off at the top: 4:3 to 16:9."""
CORNER = 0.15
"""Shift of the corners of images by a strong lens, as a share of their distance from the middle."""
_RIG = (CheckKind.CALIBRATION, CheckKind.PEOPLE, CheckKind.POSES)


def recording_faults() -> Mapping[str, Fault]:
    """The faults by name."""
    return {
        "same video under two names": _same_video,
        "distortion missing in the calibration": _lens_missing,
        "distortion applied twice": _lens_twice,
        "calibration for another image size": _other_size,
        "calibration for uncropped images": _uncropped,
        "half a frame out of step": _half_a_frame,
        **{f"clock drifts by {share:.1%}": partial(_drifting, share) for share in DRIFTS},
        "left-handed world": _left_handed,
        f"cameras within {100 * APART_M:.0f} cm": _close_together,
    }


def _same_video(take: CalibratedTake, rng: np.random.Generator) -> Planted:
    views = sorted(rng.choice(len(take.rig), 2, replace=False).tolist())
    by_view = {name: getattr(take.keypoints, name).copy() for name in ("xy", "confidence", "box", "box_score")}
    for values in by_view.values():
        values[views[1]] = values[views[0]]
    names = tuple(take.rig.names[view] for view in views)
    return Planted(replace(take, keypoints=replace(take.keypoints, **by_view)), (CheckKind.SAME_FOOTAGE,), names)


def _lens_missing(take: CalibratedTake, rng: np.random.Generator) -> Planted:
    """Lenses distort as those of action cameras do, and the calibration says nothing of it."""
    keypoints = _seen_through(take.keypoints, take.rig, with_distortion(take.rig, CORNER))
    return Planted(replace(take, keypoints=keypoints, rig=with_distortion(take.rig, 0.0)), _RIG)


def _lens_twice(take: CalibratedTake, rng: np.random.Generator) -> Planted:
    """The footage of such lenses is undistorted already, and the calibration says how it was distorted."""
    keypoints = _seen_through(take.keypoints, take.rig, with_distortion(take.rig, 0.0))
    return Planted(replace(take, keypoints=keypoints, rig=with_distortion(take.rig, CORNER)), _RIG)


def _other_size(take: CalibratedTake, rng: np.random.Generator) -> Planted:
    factor = torch.full((len(take.rig), 2), SIZE_FACTOR, dtype=torch.float64)
    return Planted(replace(take, rig=take.rig.resized(factor, take.rig.size)), _RIG)


def _uncropped(take: CalibratedTake, rng: np.random.Generator) -> Planted:
    """The calibration is of images that are higher, and the footage was cut out of their middle."""
    top = torch.stack([torch.zeros(len(take.rig)), -CROP_SHARE * take.rig.size[:, 1]], dim=-1).double()
    return Planted(replace(take, rig=take.rig.cropped(top, take.rig.size)), _RIG)


def _half_a_frame(take: CalibratedTake, rng: np.random.Generator) -> Planted:
    view = int(rng.integers(len(take.rig)))
    own = np.arange(take.keypoints.xy.shape[1]) + 0.5
    return Planted(
        replace(take, keypoints=_at_times(take.keypoints, view, own)),
        (CheckKind.SYNCHRONISATION,),
        (take.rig.names[view],),
    )


def _drifting(share: float, take: CalibratedTake, rng: np.random.Generator) -> Planted:
    view = int(rng.integers(len(take.rig)))
    own = np.arange(take.keypoints.xy.shape[1]) * (1.0 - share)
    return Planted(
        replace(take, keypoints=_at_times(take.keypoints, view, own)),
        (CheckKind.SYNCHRONISATION,),
        (take.rig.names[view],),
    )


def _left_handed(take: CalibratedTake, rng: np.random.Generator) -> Planted:
    return Planted(replace(take, rig=flipped_rig(take.rig, int(rng.integers(len(AXES))))), (CheckKind.CALIBRATION,))


def _close_together(take: CalibratedTake, rng: np.random.Generator) -> Planted:
    """Cameras in a row about the first, which show what it shows, as a flat figure as far off as the middle of the rig.

    Each has errors of its own.
    """
    rig, count = take.rig, len(take.rig)
    towards = middle(rig) - rig.centres_world[0].numpy()
    across = np.cross(towards, [0.0, 0.0, 1.0]) / np.linalg.norm(np.cross(towards, [0.0, 0.0, 1.0]))
    places = rig.centres_world[0].numpy() + np.linspace(-APART_M / 2, APART_M / 2, count)[:, None] * across
    close = rig_of(
        places, np.tile(middle(rig), (count, 1)), np.full(count, float(rig.focal[0].mean())), np.zeros((count, 4)),
        np.tile(rig.size[0].numpy(), (count, 1)),
    )  # fmt: skip
    keypoints = take.keypoints
    first = torch.from_numpy(np.nan_to_num(keypoints.xy[:1].astype(np.float64)))
    rays, _ = rig.select(rig.names[:1]).rays(first)
    points = rig.centres_world[0] + rays[0] * float(np.linalg.norm(towards))
    pixels, seen = close.project(points)
    height = keypoints.box[:1, ..., 3] - keypoints.box[:1, ..., 1]
    noise = NOISE_SHARE * height[..., None, None] * rng.standard_normal((count, *keypoints.xy.shape[1:]))
    xy = np.where((keypoints.confidence[:1] > 0)[..., None] & seen.numpy()[..., None], pixels.numpy() + noise, np.nan)
    copies = {name: np.repeat(getattr(keypoints, name)[:1], count, axis=0) for name in ("box", "box_score")}
    confidence = np.where(np.isnan(xy[..., 0]), 0.0, keypoints.confidence[:1]).astype(np.float32)
    close_keypoints = replace(keypoints, xy=xy.astype(np.float32), confidence=confidence, **copies)
    return Planted(replace(take, keypoints=close_keypoints, rig=close), (CheckKind.SPACING,))


def with_distortion(rig: CameraRig, corner: float) -> CameraRig:
    """The rig with radial distortion alone, which shifts the corners of images by this share of their distance."""
    squared_radius = (rig.size / rig.focal).square().sum(dim=-1) / 4.0
    coefficients = torch.nn.functional.pad((-corner / squared_radius)[:, None], (0, 3))
    return replace(rig, lens=Lens.of(LensModel.BROWN_CONRADY, coefficients.tolist()))


def _seen_through(keypoints: Keypoints2D, rig: CameraRig, other: CameraRig) -> Keypoints2D:
    """The joints of a rig where cameras with other lenses would show them."""

    def moved(pixels: np.ndarray) -> np.ndarray:
        ideal, _ = rig.undistorted(torch.from_numpy(np.nan_to_num(pixels).astype(np.float64)))
        plane = (ideal.reshape(len(rig), -1, 2) - rig.centre[:, None]) / rig.focal[:, None]
        distorted = other.lens.distort(plane) * other.focal[:, None] + other.centre[:, None]
        return distorted.numpy().reshape(pixels.shape).astype(np.float32)

    xy = np.where(np.isnan(keypoints.xy), np.nan, moved(keypoints.xy)).astype(np.float32)
    confidence = np.where(np.isfinite(xy).all(axis=-1), keypoints.confidence, 0.0).astype(np.float32)
    box = moved(keypoints.box.reshape(*keypoints.box.shape[:-1], 2, 2)).reshape(keypoints.box.shape)
    shown = (keypoints.box_score[..., None] > 0) & np.isfinite(box)
    box = np.where(shown, box, keypoints.box).astype(np.float32)
    return replace(keypoints, xy=xy, confidence=confidence, box=box)


def _at_times(keypoints: Keypoints2D, view: int, times: np.ndarray) -> Keypoints2D:
    """One view shows itself at these times, in frames, between those that it was detected in."""
    count = keypoints.xy.shape[1]
    first = np.floor(times).astype(int).clip(0, count - 1)
    second, share = (first + 1).clip(max=count - 1), (times - np.floor(times)).astype(np.float32)
    there = (times >= 0) & (times <= count - 1)
    arrays = {name: getattr(keypoints, name).copy() for name in ("xy", "confidence", "box", "box_score")}
    for name, values in arrays.items():
        own = values[view]
        weight = share.reshape(-1, *[1] * (own.ndim - 1))
        if name in ("xy", "box"):
            values[view] = np.where(weight > 0, (1 - weight) * own[first] + weight * own[second], own[first])
        else:
            values[view] = np.where(weight > 0, np.minimum(own[first], own[second]), own[first])
        values[view, ~there] = np.nan if name == "xy" else 0.0
    missing = ~(arrays["confidence"][view] > 0)
    arrays["xy"][view, missing] = np.nan
    return replace(keypoints, **arrays)

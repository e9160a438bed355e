"""How many of the joints that fusion guesses are right: those that their own view did not see, on rendered people.

`fusion_stage.GUESSED` is fitted to those with one other view that saw the joint, by what the network states.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import torch
from jaxtyping import Bool, Float, Int

from mvpose.benchmarks.covered_cameras import Cover, CoveredCameras, DetectorAndFusion
from mvpose.benchmarks.detected_takes import FOUND_WITHIN
from mvpose.confidence import RIGHT_WITHIN
from mvpose.geometry.camera import CameraRig
from mvpose.pipeline.fusion_stage import GUESSED
from mvpose.records import Keypoints2D
from mvpose.skeleton import BODY_JOINTS

STATED = (0.0, 0.3, 0.5, 0.7, 0.8, 0.9, 1.0)
MAX_OTHERS = 3


@dataclass(frozen=True, eq=False)
class Guesses:
    """Joints that their own view did not see."""

    stated: Float[np.ndarray, " n"]
    """Likelihood that the network states."""
    others: Int[np.ndarray, " n"]
    """Number of other views that saw the joint."""
    right: Bool[np.ndarray, " n"]


def guesses(
    fusion: DetectorAndFusion,
    cameras: CoveredCameras,
    views: Sequence[int],
    covers: Mapping[int, Cover],
    truth: Float[np.ndarray, "T P 12 3"],
) -> Guesses:
    """The guessed body joints of people in some views, some of them covered; `truth` as the detector has its joints."""
    detected, rig, places, answers = fusion.answers(cameras, views, covers)
    joints = detected.skeleton.indices(*BODY_JOINTS)
    saw = answers.seen(detected, fusion.config.min_confidence)[..., joints]
    frames, person = np.nonzero((places >= 0).sum(axis=2) >= 2)
    # One row per person and view.
    frame, view = np.repeat(frames, len(rig)), np.tile(np.arange(len(rig)), len(frames))
    place, there = places[frames, person].ravel(), (places[frames, person] >= 0).ravel()
    slot = (view, frame, np.maximum(place, 0))
    by_person = (saw[slot] & there[:, None]).reshape(-1, len(rig), len(BODY_JOINTS))
    others = (by_person.sum(axis=1, keepdims=True) - by_person).reshape(-1, len(BODY_JOINTS))
    error = _errors(answers.xy[..., joints, :], detected, places, rig, truth)[slot]
    wanted = there[:, None] & ~saw[slot] & np.isfinite(error)
    return Guesses(answers.stated[..., joints][slot][wanted], others[wanted], error[wanted] <= RIGHT_WITHIN)


def _errors(
    xy: Float[np.ndarray, "V T K 12 2"],
    detected: Keypoints2D,
    places: Int[np.ndarray, "T N V"],
    rig: CameraRig,
    truth: Float[np.ndarray, "T P 12 3"],
) -> Float[np.ndarray, "V T K 12"]:
    """Distances from the true joints, relative to the person's size; NaN if no true person is near."""
    joints, size = detected.skeleton.indices(*BODY_JOINTS), (detected.box[..., 2:] - detected.box[..., :2]).max(axis=-1)
    pixels = rig.project(torch.from_numpy(truth))[0].numpy()
    error = np.full(xy.shape[:-1], np.nan)
    for frame, person in np.argwhere((places >= 0).sum(axis=2) >= 2):
        views = np.flatnonzero(places[frame, person] >= 0)
        slot = (views, frame, places[frame, person, views])
        unit = size[slot][:, None, None]
        own = np.linalg.norm(detected.xy[..., joints, :][slot][:, None] - pixels[views, frame], axis=-1) / unit
        apart = np.median(np.median(own, axis=2), axis=0)
        if apart.min() < FOUND_WITHIN:
            true = pixels[views, frame, apart.argmin()]
            error[slot] = np.linalg.norm(xy[slot] - true, axis=-1) / unit[..., 0]
    return error


def print_guesses(parts: Sequence[Guesses]) -> None:
    """How many are right, by what the network states and by the number of other views that saw the joint."""
    stated, others, right = (
        np.concatenate([getattr(p, name) for p in parts]) for name in ("stated", "others", "right")
    )
    print("joints that their own view did not see: number, share right, and likelihood given")
    for seen in range(MAX_OTHERS + 1):
        for low, high in pairwise(STATED):
            these = (others == seen) & (stated > low) & (stated <= high)
            if these.any():
                given = GUESSED.likelihood_of(stated[these]).mean()
                print(
                    f"  other views that saw it: {seen}, stated {low:.1f} to {high:.1f}: "
                    f"{these.sum():6d} {right[these].mean():6.2f} {given:6.2f}"
                )

"""Rendered takes as a detector sees them, with the truth: 2D joints of people in images that cut parts of them off."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, fields

import numpy as np
import torch
from jaxtyping import Bool, Float
from scipy.optimize import linear_sum_assignment

from mvpose.geometry.camera import CameraRig
from mvpose.models.detection.detector import Detector, scale_of
from mvpose.pipeline.detect_stage import stack_people
from mvpose.reconstruction.observations import border_distance
from mvpose.records import Keypoints2D
from mvpose.rendering.takes import TakeConfig, rendered_take
from mvpose.skeleton import BODY_JOINTS, RENDERED

MIN_INSIDE = 4
"""Views with fewer joints of a person in the image are left out."""
FOUND_WITHIN = 0.25
"""Relative to the box: a person is found if the median distance of joints in the image is below this."""
FAR_PX = 1e6


@dataclass(frozen=True, eq=False)
class DetectedTake:
    """2D joints of a take, with the body joints of its people."""

    rig: CameraRig
    keypoints: Keypoints2D
    truth: Float[np.ndarray, "T P J 3"]
    """`BODY_JOINTS`; world, metres."""
    fps: float


@dataclass(frozen=True, eq=False)
class FoundJoints:
    """Body joints of the people found, in all views that show enough of them."""

    confidence: Float[np.ndarray, " n"]
    error: Float[np.ndarray, " n"]
    """Distance from the truth, relative to the person's size."""
    error_px: Float[np.ndarray, " n"]
    border: Float[np.ndarray, " n"]
    """Distance of the joint as detected from the border of the image, relative to the person's size; negative beyond
    it."""
    outside_px: Float[np.ndarray, " n"]
    """Distance of the true joint beyond the border; 0 inside the image."""


def detected_takes(config: TakeConfig, split: str, count: int, detector: Detector) -> Iterator[DetectedTake]:
    """The first takes of a split. People are detected in every frame, because the takes have few frames per second."""
    body = RENDERED.indices(*BODY_JOINTS)
    for index in range(count):
        take = rendered_take(config, split, index)
        people = [[detector([image[None]])[0][0] for image in view] for view in take.images]
        keypoints = stack_people(people, detector.skeleton, scale_of(detector))
        yield DetectedTake(take.rig, keypoints, take.joints[:, :, body], take.fps)


def found_joints(take: DetectedTake) -> FoundJoints:
    """The joints of each person, matched to the nearest detection in each view and frame."""
    keypoints, size = take.keypoints, take.rig.size.numpy()
    border = border_distance(keypoints, take.rig)
    points, inside = in_images(take)
    joints = keypoints.skeleton.indices(*BODY_JOINTS)
    side = (keypoints.box[..., 2:] - keypoints.box[..., :2]).max(axis=-1)
    found = [np.zeros((5, 0))]
    for v, t in np.ndindex(side.shape[:2]):
        seen = np.flatnonzero(keypoints.box_score[v, t] > 0)
        shown = np.flatnonzero(inside[v, t].sum(axis=-1) >= MIN_INSIDE)
        xy, edge = keypoints.xy[v, t][:, joints].astype(np.float64), size[v] - 1
        distance = np.linalg.norm(xy[seen][None] - points[v, t, shown][:, None], axis=-1)
        known = inside[v, t, shown][:, None] & np.isfinite(distance)
        cost = np.ma.filled(np.ma.median(np.ma.array(distance, mask=~known), axis=-1), FAR_PX) / side[v, t, seen]
        for person, place in zip(*linear_sum_assignment(cost), strict=True):
            if cost[person, place] < FOUND_WITHIN:
                true = points[v, t, shown[person]]
                rows = (
                    keypoints.confidence[v, t, seen[place], joints],
                    distance[person, place] / side[v, t, seen[place]],
                    distance[person, place],
                    border[v, t, seen[place], joints],
                    np.where(inside[v, t, shown[person]], 0.0, np.maximum(-true, true - edge).max(axis=-1).clip(0.5)),
                )
                found.append(np.stack(rows).astype(np.float64))
    return FoundJoints(*np.concatenate(found, axis=1))


def in_images(take: DetectedTake) -> tuple[Float[np.ndarray, "V T P J 2"], Bool[np.ndarray, "V T P J"]]:
    """True pixels of all joints, and which are in the image."""
    pixels, before = take.rig.project(torch.from_numpy(take.truth))
    return pixels.numpy(), (before & take.rig.inside(pixels)).numpy()


def together(parts: list[FoundJoints]) -> FoundJoints:
    """The joints of several takes."""
    return FoundJoints(*(np.concatenate([getattr(part, f.name) for part in parts]) for f in fields(FoundJoints)))

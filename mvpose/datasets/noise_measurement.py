"""Measurement of a detector's errors on samples with ground truth, and fit of a `DetectorNoise`."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import cv2
import numpy as np
import torch
from jaxtyping import Bool, Float
from scipy.optimize import brentq
from scipy.special import ndtri

from mvpose.datasets.detector_noise import (
    HIDDEN,
    LARGEST,
    LEVELS,
    SEEN,
    SEEN_BINS,
    DetectorNoise,
    aspects,
    of_person,
    part_of,
    view_angle,
)
from mvpose.datasets.sample import Sample
from mvpose.errors import ConfigError
from mvpose.models.detection.detector import Detector
from mvpose.skeleton import Skeleton

FOUND_WITHIN = 0.25
"""Relative to the box side: a person is found if the median distance to the detector's joints is below this."""
APART = 0.08
"""Relative to the box side: in a pair closer together than this, a swap cannot be detected."""
TURNED_PAIRS = 3
"""Minimum number of pairs far enough apart to decide that the whole person is swapped."""
ENOUGH = 40
"""Minimum joints for a fit; a case with fewer is pooled over all aspects, then over visible and hidden joints."""


@dataclass(frozen=True, eq=False)
class DetectedJoints:
    """Detections of n views of people, on the joints common to detector and truth."""

    skeleton: Skeleton
    truth: Float[np.ndarray, "n J 2"]
    """Pixels."""
    found: Float[np.ndarray, "n J 2"]
    """Pixels, with swaps undone; NaN if no person was found."""
    confidence: Float[np.ndarray, "n J"]
    visible: Bool[np.ndarray, "n J"]
    inside: Bool[np.ndarray, "n J"]
    side: Float[np.ndarray, " n"]
    """Side of the box in pixels."""
    angle: Float[np.ndarray, " n"]
    """Angle as in `view_angle`."""
    swapped: Bool[np.ndarray, "n J"]
    """For found pairs, at the left joint: the detector swapped left and right."""
    apart: Bool[np.ndarray, "n J"]
    """Pairs, at the left joint, that are found and far enough apart to detect a swap."""


def sightings(samples: Iterable[Sample], detector: Detector) -> DetectedJoints:
    """Run the detector on every view. ConfigError for samples without crops, or without samples."""
    views = [view for sample in samples for view in _views(sample, detector)]
    if not views:
        raise ConfigError("there are no samples to measure the detector on.")
    skeleton = views[0].skeleton
    names = [name for name in DetectedJoints.__dataclass_fields__ if name != "skeleton"]
    return DetectedJoints(skeleton, **{name: np.concatenate([getattr(v, name) for v in views]) for name in names})


def fitted(seen: DetectedJoints, source: str) -> DetectorNoise:
    """Fit the noise model to these errors. ConfigError if no person was found."""
    skeleton = seen.skeleton
    if not np.isfinite(seen.found).any():
        raise ConfigError(f"the detector finds no person in {len(seen.truth)} views: there is no error to measure.")
    parts = tuple(dict.fromkeys(part_of(joint) for joint in skeleton.joints))
    part = np.broadcast_to([parts.index(part_of(joint)) for joint in skeleton.joints], seen.visible.shape)
    aspect, sign = aspects(seen.angle, skeleton)
    state = np.where(seen.visible, SEEN, HIDDEN)
    offset = (seen.found - seen.truth) / seen.side[:, None, None] * np.stack([sign, np.ones_like(sign)], axis=-1)
    used = np.isfinite(offset).all(axis=-1) & seen.inside
    person = of_person(aspect[:, skeleton.index("left_hip")])
    found = np.asarray(np.isfinite(seen.found).any(axis=(1, 2)))
    whole = _turned(seen)

    bias, scale, tail = np.zeros((len(parts), 4, 2, 2)), np.zeros((len(parts), 4, 2)), np.zeros((len(parts), 4, 2))
    confidence = np.zeros((len(parts), 4, 2, len(LEVELS)))
    scores: list[list[Float[np.ndarray, "2 _"]]] = [[], []]
    for p, a, s in np.ndindex(scale.shape):
        mine = _case(used, part == p, aspect == a, state == s)
        off = offset[mine]
        bias[p, a, s] = np.median(off, axis=0)
        error = np.linalg.norm(off - bias[p, a, s], axis=-1)
        scale[p, a, s], tail[p, a, s] = fitted_t(error)
        confidence[p, a, s] = np.quantile(seen.confidence[mine], LEVELS)
        scores[s].append(np.stack([_normal_scores(error), _normal_scores(seen.confidence[mine])]))
    share = seen.visible.mean(axis=1)
    straight = np.asarray(seen.apart & ~whole[:, None])
    return DetectorNoise(
        source=source,
        parts=parts,
        hidden=_shares(~seen.visible & seen.inside, seen.inside, part, aspect, (len(parts), 4)),
        bias=bias,
        scale=scale,
        tail=tail,
        confidence=confidence,
        link=np.array([np.corrcoef(np.concatenate(of, axis=1))[0, 1] for of in scores]),
        swapped=_shares(
            seen.swapped & straight, straight, part, np.broadcast_to(person[:, None], part.shape), (len(parts), 3)
        ),
        turned=_shares(whole, found, np.zeros_like(person), person, (1, 3))[0],
        lost=_shares(~found, np.ones_like(found), person, np.digitize(share, SEEN_BINS), (3, 3)),
    )


def fitted_t(error: Float[np.ndarray, " n"]) -> tuple[float, float]:
    """Scale and degrees of freedom of the bivariate t whose lengths have the median and 90th percentile of `error`.

    From r_q^2 = tail scale^2 ((1 - q)^(-2 / tail) - 1). Degrees of freedom are limited to 1 (a tail that halves when
    the length doubles) to 30 (practically a Gaussian).
    """
    middle, high = np.maximum(np.quantile(np.minimum(error, LARGEST), (0.5, 0.9)), 1e-6)

    def excess(tail: float) -> float:
        return (0.1 ** (-2 / tail) - 1) / (0.5 ** (-2 / tail) - 1) - (high / middle) ** 2

    if excess(1.0) < 0:
        tail = 1.0
    elif excess(30.0) > 0:
        tail = 30.0
    else:
        tail = float(np.asarray(brentq(excess, 1.0, 30.0)))
    return float(middle / np.sqrt(tail * (0.5 ** (-2 / tail) - 1))), tail


def _views(sample: Sample, detector: Detector) -> Iterator[DetectedJoints]:
    """One view at a time: the detection nearest to the person, with swaps undone."""
    shared = tuple(joint for joint in detector.skeleton.joints if joint in sample.skeleton.joints)
    skeleton = Skeleton("measured", shared, ())
    own, theirs = sample.skeleton.indices(*shared), detector.skeleton.indices(*shared)
    xyz = torch.from_numpy(sample.xyz[own])
    pixels, before = sample.rig.project(xyz)
    inside = (before & sample.rig.inside(pixels)).numpy()
    in_camera = sample.rig.camera_from_world.apply(xyz[None].expand(len(sample.rig), -1, -1)).numpy()
    angle, side = view_angle(in_camera, skeleton), (sample.box[:, 2:] - sample.box[:, :2]).max(axis=1)
    for view, image in enumerate(sample.images):
        if image.crop is None:
            raise ConfigError(f"{sample.capture_id} has no crops: convert with --crops.side 256.")
        crop = np.asarray(cv2.imdecode(np.frombuffer(image.crop, np.uint8), cv2.IMREAD_COLOR_RGB))
        people = detector([crop[None]])[0][0]
        truth, here = pixels[view].numpy(), inside[view]
        found, confidence, swapped, apart = _matched(
            people.xy[:, theirs].astype(np.float64), people.confidence[:, theirs], truth, here, side[view], skeleton
        )
        rows = (
            truth,
            found,
            confidence,
            sample.visible[view, own] & here,
            here,
            side[view],
            angle[view],
            swapped,
            apart,
        )
        yield DetectedJoints(skeleton, *(np.asarray(row)[None] for row in rows))


def _matched(
    found: Float[np.ndarray, "P J 2"],
    confidence: Float[np.ndarray, "P J"],
    truth: Float[np.ndarray, "J 2"],
    inside: Bool[np.ndarray, " J"],
    side: float,
    skeleton: Skeleton,
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Joints and confidence of the matched detection, with swaps undone; swapped pairs; pairs far enough apart."""
    mirror, joints = np.array(skeleton.mirror), len(skeleton.joints)
    apart = (np.linalg.norm(truth - truth[mirror], axis=-1) > APART * side) & inside & inside[mirror]
    middle = [
        min(
            np.median(np.linalg.norm(found_joints - truth, axis=-1)[inside])
            for found_joints in (person, person[mirror])
        )
        / side
        for person in found
        if inside.any()
    ]
    if not middle or min(middle) > FOUND_WITHIN:
        nothing = np.zeros(joints, bool)
        return np.full((joints, 2), np.nan), np.zeros(joints), nothing, nothing
    best = int(np.argmin(middle))
    person, crossed = found[best], found[best][mirror]
    straight, across = (np.linalg.norm(found_joints - truth, axis=-1) for found_joints in (person, crossed))
    swapped = apart & (across + across[mirror] < straight + straight[mirror])
    # In a person swapped as a whole, pairs too close together are swapped too.
    turned = apart.sum() >= 2 * TURNED_PAIRS and 2 * swapped.sum() > apart.sum()
    wrong = swapped | (turned & ~apart)
    left = np.array([joint.startswith("left_") for joint in skeleton.joints])
    return (
        np.where(wrong[:, None], crossed, person),
        np.where(wrong, confidence[best][mirror], confidence[best]).astype(np.float64),
        swapped & left,
        apart & left,
    )


def _turned(seen: DetectedJoints) -> Bool[np.ndarray, " n"]:
    """Whether most of the decidable pairs are swapped."""
    found_joints, swapped = seen.apart.sum(axis=1), seen.swapped.sum(axis=1)
    return (found_joints >= TURNED_PAIRS) & (2 * swapped > found_joints)


def _case(*conditions: Bool[np.ndarray, "n J"]) -> Bool[np.ndarray, "n J"]:
    """All of (used, part, aspect, state), or a subset until there are enough: the last but one is dropped first."""
    used, part, aspect, state = conditions
    for case in (used & part & aspect & state, used & part & state, used & part, used):
        if case.sum() >= ENOUGH:
            break
    return case


def _shares(
    happened: np.ndarray, could: np.ndarray, row: np.ndarray, column: np.ndarray, shape: tuple[int, int]
) -> Float[np.ndarray, "R C"]:
    """Share of applicable cases by row and column; a cell without cases gets the overall share."""
    index = row * shape[1] + column
    count = np.bincount(index[could], minlength=shape[0] * shape[1])
    times = np.bincount(index[could & happened], minlength=shape[0] * shape[1])
    overall = times.sum() / max(count.sum(), 1)
    return np.where(count > 0, times / np.maximum(count, 1), overall).reshape(shape)


def _normal_scores(values: Float[np.ndarray, " n"]) -> Float[np.ndarray, " n"]:
    return ndtri((values.argsort().argsort() + 0.5) / len(values))

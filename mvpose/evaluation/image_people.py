"""Figures of several people in one image, in 2D: average precision (OKS), recall, PCKh and PCP.

They compare networks that find people bottom-up with those that answer from a crop of each person. The latter's crops
are about the true joints: no person is missed for want of a box, which favours them. Points are in pixels of the stored
image without its lens distortion. The joints that count are `BODY_JOINTS` in the image, hidden or not.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from scipy.optimize import linear_sum_assignment

from mvpose.datasets.sample import Sample
from mvpose.geometry.camera import CameraRig
from mvpose.metrics.intervals import Estimate, mean_estimates
from mvpose.metrics.joint_errors import precision_and_recall
from mvpose.metrics.part_scores import pcp
from mvpose.skeleton import BODY_JOINTS, Skeleton

OKS_DEVIATIONS = {"shoulder": 0.079, "elbow": 0.072, "wrist": 0.062, "hip": 0.107, "knee": 0.087, "ankle": 0.089}
"""COCO's standard deviations of annotators, relative to the square root of a person's area."""
AREA_OF_BOX = 0.53
"""A person's share of the box about the joints, as COCO's evaluation takes it where no outline is known."""
OKS_THRESHOLDS = tuple(round(0.5 + 0.05 * i, 2) for i in range(10))
BONES = tuple(
    (BODY_JOINTS.index(f"{side}_{a}"), BODY_JOINTS.index(f"{side}_{b}"))
    for side in ("left", "right")
    for a, b in (("shoulder", "elbow"), ("elbow", "wrist"), ("hip", "knee"), ("knee", "ankle"))
)
HEAD = ("neck", "head")
"""The true distance of these joints is the head's size in PCKh."""


@dataclass(frozen=True, eq=False)
class ImagePeople:
    """The people found in one image, and the true ones."""

    capture: str
    predicted: Float[np.ndarray, "P 12 2"]
    """NaN for a joint that was not found."""
    score: Float[np.ndarray, " P"]
    truth: Float[np.ndarray, "Q 12 2"]
    inside: Bool[np.ndarray, "Q 12"]
    head: Float[np.ndarray, " Q"]
    """Size of the head in pixels; NaN if the truth has no such joints."""

    def similarity(self) -> Float[np.ndarray, "P Q"]:
        """Object keypoint similarity (COCO), 0..1; a joint that was not found counts as infinitely far."""
        low = np.where(self.inside[..., None], self.truth, np.inf).min(axis=1)
        high = np.where(self.inside[..., None], self.truth, -np.inf).max(axis=1)
        area = AREA_OF_BOX * np.maximum(high - low, 1.0).prod(axis=-1)
        deviation = np.array([OKS_DEVIATIONS[joint.partition("_")[2]] for joint in BODY_JOINTS])
        square = ((self.predicted[:, None] - self.truth) ** 2).sum(axis=-1)
        near = np.exp(-square / (2 * area[:, None] * (2 * deviation) ** 2))
        return (np.where(np.isfinite(near), near, 0.0) * self.inside).sum(axis=-1) / self.inside.sum(axis=-1)


def true_people(people: Sequence[Sample], view: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """`truth`, `inside` and `head` of an image of these people who have a joint in it."""
    points, inside, head = [], [], []
    for sample in people:
        source, found = sample.skeleton.remap(Skeleton("body", BODY_JOINTS, ()))
        pixels, before = sample.rig.project(torch.from_numpy(np.nan_to_num(sample.xyz)))
        seen = (before & sample.rig.inside(pixels)).numpy()[view][source] & found & sample.valid[source]
        homogeneous = np.concatenate([np.nan_to_num(sample.xyz), np.ones((len(sample.xyz), 1))], axis=1)
        straight = homogeneous @ sample.rig.projections[view].double().numpy().T
        flat = straight[:, :2] / np.maximum(straight[:, 2:], 1e-6)
        ends = [sample.skeleton.joints.index(joint) for joint in HEAD if joint in sample.skeleton.joints]
        if seen.any():
            points.append(flat[source])
            inside.append(seen)
            head.append(np.linalg.norm(flat[ends[1]] - flat[ends[0]]) if len(ends) == 2 else math.nan)
    return np.reshape(points, (-1, 12, 2)), np.reshape(inside, (-1, 12)).astype(bool), np.array(head)


def in_stored_image(
    points: Float[np.ndarray, "V J 2"], projections: Float[np.ndarray, "V 3 4"], rig: CameraRig
) -> Float[np.ndarray, "V J 2"]:
    """Pixels of crops with these projections as undistorted pixels of the rig's images; NaN for an empty crop."""
    change = projections[:, :, :3].astype(np.float64) @ np.linalg.inv(rig.projections[:, :, :3].double().numpy())
    empty = np.abs(np.linalg.det(change)) < 1e-12
    back = np.linalg.inv(np.where(empty[:, None, None], np.eye(3), change))
    found = points @ back[:, :2, :2].swapaxes(1, 2) + back[:, None, :2, 2]
    return np.where(empty[:, None, None], np.nan, found)


def body_of(points: Float[np.ndarray, "P J 2"], skeleton: Skeleton) -> Float[np.ndarray, "P 12 2"]:
    """The joints that count; NaN for one that the skeleton lacks."""
    source, found = skeleton.remap(Skeleton("body", BODY_JOINTS, ()))
    return np.where(found[:, None], points[:, source], np.nan)


@dataclass(frozen=True, eq=False)
class CropPeople:
    """One person's sample, answered from a crop in each view."""

    sample: Sample
    points: Float[np.ndarray, "V J 2"]
    """See `in_stored_image`."""
    score: Float[np.ndarray, " V"]


def from_crops(answers: Iterable[CropPeople], skeleton: Skeleton) -> tuple[ImagePeople, ...]:
    """The images that show several of these people; those of one person alone are left out."""
    frames: dict[tuple[str, int], list[CropPeople]] = defaultdict(list)
    for answer in answers:
        frames[answer.sample.capture_id, answer.sample.frame].append(answer)
    found = []
    for people in (group for group in frames.values() if len(group) > 1):
        for view, name in enumerate(people[0].sample.rig.names):
            same = [p for p in people if p.sample.rig.names[view : view + 1] == (name,)]
            predicted = body_of(np.stack([p.points[view] for p in same]), skeleton)
            truth = true_people([p.sample for p in same], view)
            if len(truth[0]):
                score = np.array([p.score[view] for p in same])
                found.append(ImagePeople(people[0].sample.capture_id, predicted, score, *truth))
    return tuple(found)


def image_figures(images: Sequence[ImagePeople]) -> dict[str, Estimate]:
    """`ap_2d` (mean of the thresholds), `ap_2d@0.5`, and with intervals over captures `recall_2d@0.5`, `pckh_2d@0.5`
    and `pcp_2d`; empty without images.

    As COCO matches: in the order of scores, a prediction is a hit of the person it is most similar to, among those not
    yet hit. PCKh and PCP are of the joints and limbs in the image, of the prediction that is paired with a person so
    that the sum of similarities is highest; a person without one has none right.
    """
    if not images:
        return {}
    similar = [image.similarity() for image in images]
    firsts = np.cumsum([0, *(s.shape[1] for s in similar)])
    score = torch.from_numpy(np.concatenate([image.score for image in images]))
    order = score.argsort(descending=True, stable=True)
    precision = []
    for threshold in OKS_THRESHOLDS:
        hits = [_hits(s, image.score, threshold) for s, image in zip(similar, images, strict=True)]
        missed = torch.from_numpy(np.concatenate([h < 0 for h in hits]))[order].double()
        person = torch.from_numpy(np.concatenate([h.clip(0) + n for h, n in zip(hits, firsts, strict=False)]))[order]
        part, _ = precision_and_recall(missed, person, 0.5, int(firsts[-1]), torch.tensor(float(firsts[-1])))
        precision.append(float(part))
    nan = math.nan
    found = {
        "ap_2d": Estimate(float(np.mean(precision)), nan, nan, int(firsts[-1])),
        "ap_2d@0.5": Estimate(precision[0], nan, nan, int(firsts[-1])),
    }
    rows = np.concatenate([_person_rows(image, s) for image, s in zip(images, similar, strict=True)])
    captures = [image.capture for image in images for _ in image.truth]
    names = ("recall_2d@0.5", "pckh_2d@0.5", "pcp_2d")
    estimates = dict(zip(names, mean_estimates(rows, captures), strict=True))
    return found | {name: estimate for name, estimate in estimates.items() if math.isfinite(estimate.mean)}


def _hits(similar: Float[np.ndarray, "P Q"], score: Float[np.ndarray, " P"], threshold: float) -> Int[np.ndarray, " P"]:
    """Index of the person that each prediction of an image hits; -1 for none."""
    free, hits = similar.copy(), np.full(len(similar), -1)
    for p in np.argsort(-score, kind="stable"):
        q = int(free[p].argmax())
        if free[p, q] >= threshold:
            hits[p] = q
            free[:, q] = -1.0
    return hits


def _person_rows(image: ImagePeople, similar: Float[np.ndarray, "P Q"]) -> Float[np.ndarray, "Q 3"]:
    """Of each true person: found at a similarity of 0.5, PCKh and PCP."""
    paired = np.full(image.truth.shape, np.nan)
    recall = np.zeros(len(image.truth))
    for p, q in zip(*linear_sum_assignment(-similar), strict=True):
        paired[q], recall[q] = image.predicted[p], similar[p, q] >= OKS_THRESHOLDS[0]
    near = np.linalg.norm(paired - image.truth, axis=-1) <= 0.5 * image.head[:, None]
    pckh = (near & image.inside).sum(axis=-1) / image.inside.sum(axis=-1)
    found, true = (torch.from_numpy(np.pad(points, ((0, 0), (0, 0), (0, 1)))) for points in (paired, image.truth))
    parts = pcp(found, true, BONES, torch.from_numpy(image.inside)).numpy()
    return np.stack([recall, np.where(np.isfinite(image.head), pckh, np.nan), parts], axis=-1)

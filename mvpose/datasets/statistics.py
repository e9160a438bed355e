"""Statistics of a table of samples: counts, body sizes, and consistency of cameras and joints."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import torch

from mvpose.datasets.sample import Sample
from mvpose.errors import ConfigError
from mvpose.metrics.joint_errors import structure
from mvpose.metrics.pose_structure import PoseClusters, cluster_poses


@dataclass(frozen=True, kw_only=True)
class Statistics:
    """Figures over all given samples."""

    samples: int
    captures: int
    frames: int
    views: tuple[int, int]
    """Minimum and maximum number of cameras of a sample."""
    splits: dict[str, int]
    actions: dict[str, int]
    damaged: int
    valid_share: float
    """Share of joints that the dataset has."""
    visible_share: float
    """Share of the views of valid joints that are in the image."""
    extent_m: tuple[float, float]
    """5th and 95th percentile of a person's largest side: about 2 m; otherwise the unit is wrong."""
    height_m: tuple[float, float]
    """5th and 95th percentile of a joint's height above the world's origin; falls below 0 if Z is not up."""
    boxed_share: float
    """Share of visible joints within the box of their view (grown by a tenth); 1 if cameras and joints agree."""


def measured(samples: Iterable[Sample]) -> Statistics:
    """Compute the figures in one pass over the samples. ConfigError if there are none."""
    keys, counters = set(), (Counter(), Counter(), Counter())
    views, extents, heights, rows = [], [], [], []
    for s in samples:
        keys.add((s.capture_id, s.frame))
        for counter, value in zip(counters, (s.split or "neither", s.action, s.damaged), strict=True):
            counter[value] += 1
        joints = s.xyz[s.valid]
        views.append(len(s.rig))
        extents.append((joints.max(axis=0) - joints.min(axis=0)).max())
        heights.extend(joints[:, 2])
        boxed, seen = _boxed(s)
        rows.append([s.valid.sum(), s.valid.size, s.visible.sum(), s.valid.sum() * len(s.rig), boxed, seen])
    if not rows:
        raise ConfigError("there are no samples to measure.")
    valid, joints, visible, pairs, boxed, seen = np.sum(rows, axis=0)
    low_extent, high_extent = np.percentile(extents, [5, 95]).tolist()
    low_height, high_height = np.percentile(heights, [5, 95]).tolist()
    return Statistics(
        samples=len(rows),
        captures=len({capture for capture, _ in keys}),
        frames=len(keys),
        views=(min(views), max(views)),
        splits=dict(counters[0]),
        actions=dict(counters[1]),
        damaged=counters[2][True],
        valid_share=float(valid / joints),
        visible_share=float(visible / max(pairs, 1)),
        extent_m=(low_extent, high_extent),
        height_m=(low_height, high_height),
        boxed_share=float(boxed / max(seen, 1)),
    )


def _boxed(sample: Sample) -> tuple[int, int]:
    """Number of visible joints that project into the box of their view, and of all visible joints with a box."""
    has_box = np.all(np.isfinite(sample.box), axis=-1)
    pixels, _ = sample.rig.project(torch.from_numpy(np.nan_to_num(sample.xyz)))
    corners = np.nan_to_num(sample.box)
    grown = 0.1 * np.maximum(corners[:, 2:] - corners[:, :2], 10.0)[:, None]
    points = pixels.numpy()
    inside = (points >= corners[:, None, :2] - grown) & (points <= corners[:, None, 2:] + grown)
    counted = sample.visible & has_box[:, None]
    return int((inside.all(axis=-1) & counted).sum()), int(counted.sum())


def clusters_of(samples: Iterable[Sample], count: int, root: str = "hip", seed: int = 0) -> PoseClusters:
    """`count` clusters of the poses that have all their joints, in world axes, as used in evaluation.

    The root is the joint of that name, else the middle of both hips. ConfigError if the samples have several
    skeletons, no root, or fewer different poses than clusters.
    """
    whole = [sample for sample in samples if sample.valid.all() and not sample.damaged]
    skeletons = {sample.skeleton for sample in whole}
    if len(skeletons) != 1:
        names = ", ".join(sorted(skeleton.name for skeleton in skeletons)) or "none"
        raise ConfigError(f"clusters need complete poses of one skeleton; these samples have {names}.")
    (skeleton,) = skeletons
    roots = [names for names in ((root,), ("left_hip", "right_hip")) if set(names) <= set(skeleton.joints)]
    if not roots:
        raise ConfigError(f"skeleton {skeleton.name} has neither {root} nor both hips, so it has no root.")
    poses = torch.from_numpy(np.stack([sample.xyz for sample in whole])).double()
    try:
        return cluster_poses(structure(poses, skeleton.indices(*roots[0])), count, skeleton, roots[0], seed)
    except ValueError as error:
        raise ConfigError(f"{len(whole)} complete poses: {error}") from error

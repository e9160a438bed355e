"""Clusters behind the pose structure score, made of the truth of a table of samples."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import torch

from mvpose.datasets.sample import Sample
from mvpose.errors import ConfigError
from mvpose.metrics.joint_errors import structure
from mvpose.metrics.pose_structure import PoseClusters, cluster_poses


def clusters_of(samples: Iterable[Sample], count: int, root: str = "hip", seed: int = 0) -> PoseClusters:
    """`count` clusters of the poses that have all their joints, told in the world, as evaluation compares them.

    The root is the joint of that name, else the middle of both hips. ConfigError where the samples are of several
    skeletons, have no root, or make fewer different poses than clusters.
    """
    whole = [sample for sample in samples if sample.valid.all() and not sample.damaged]
    skeletons = {sample.skeleton for sample in whole}
    if len(skeletons) != 1:
        names = ", ".join(sorted(skeleton.name for skeleton in skeletons)) or "none"
        raise ConfigError(f"clusters are of whole poses of one skeleton; these samples have {names}.")
    (skeleton,) = skeletons
    roots = [names for names in ((root,), ("left_hip", "right_hip")) if set(names) <= set(skeleton.joints)]
    if not roots:
        raise ConfigError(f"skeleton {skeleton.name} has neither {root} nor both hips: there is no root.")
    poses = torch.from_numpy(np.stack([sample.xyz for sample in whole])).double()
    try:
        return cluster_poses(structure(poses, skeleton.indices(*roots[0])), count, skeleton, roots[0], seed)
    except ValueError as error:
        raise ConfigError(f"{len(whole)} whole poses: {error}") from error

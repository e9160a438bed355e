"""Pose clusters for the pose structure score (PSS; Kocabas et al., CVPR 2019, section 3.4).

The score is `metrics.pose_structure_score`; this module creates and stores its clusters. k-means runs with a fixed
seed, in double precision on the CPU, so the same poses give the same clusters. Scores are comparable only with the same
file.
"""

from __future__ import annotations

import hashlib
import json
import os
import warnings
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from scipy.cluster.vq import kmeans2
from torch import Tensor

from mvpose.errors import WeightsError
from mvpose.skeleton import SKELETONS, Skeleton

ROUNDS, ROUNDS_AT_ONCE = 300, 10
"""Maximum number of k-means iterations; every ten it stops if no pose has changed its cluster."""


@dataclass(frozen=True, eq=False)
class PoseClusters:
    """Centres of k clusters of poses, and their origin."""

    centroids: Float[Tensor, "k J 3"]
    """Centroids of poses normalised by `metrics.structure`; the largest cluster first."""
    skeleton: Skeleton
    root: tuple[str, ...]
    """Joints whose mean is the origin of a pose."""
    seed: int
    num_poses: int

    @property
    def name(self) -> str:
        """Name of the score: PSS@k."""
        return f"PSS@{len(self.centroids)}"

    @property
    def digest(self) -> str:
        """Twelve hex digits that identify everything scores depend on; to be reported with every figure."""
        subject = json.dumps([self.skeleton.name, self.skeleton.joints, self.root]).encode()
        return hashlib.sha256(subject + self.centroids.contiguous().numpy().tobytes()).hexdigest()[:12]

    @property
    def root_indices(self) -> list[int]:
        """Indices of the root joints, as used by the metrics."""
        return self.skeleton.indices(*self.root)


def cluster_poses(
    structures: Float[Tensor, "n J 3"], count: int, skeleton: Skeleton, root: tuple[str, ...], seed: int = 0
) -> PoseClusters:
    """k-means (k = `count`) of ground-truth poses that `metrics.structure` has made root-relative, of norm 1.

    Initialised by k-means++. Raises ValueError if poses are not normalised, do not match the skeleton, or are fewer
    than the clusters.
    """
    poses = structures.detach().cpu().double().flatten(1)
    if structures.shape[1] != len(skeleton.joints):
        raise ValueError(
            f"poses have {structures.shape[1]} joints, skeleton {skeleton.name} has {len(skeleton.joints)}"
        )
    if not torch.allclose(poses.norm(dim=-1), torch.ones(len(poses), dtype=torch.float64), atol=1e-4):
        raise ValueError("poses must be root-relative and of norm 1: pass metrics.structure(poses, root)")
    distinct = len(torch.unique(poses, dim=0))
    if count < 1 or distinct < count:
        raise ValueError(f"{distinct} different poses cannot make {count} clusters")
    centroids, nearest = _k_means(poses.numpy(), count, seed)
    order = np.argsort(-np.bincount(nearest, minlength=count), kind="stable")
    ordered = torch.from_numpy(centroids[order]).unflatten(1, (-1, 3)).float()
    return PoseClusters(ordered, skeleton, root, seed, len(poses))


def save_clusters(clusters: PoseClusters, path: str) -> None:
    """Write to a local .safetensors file: the centroids, with their origin as metadata."""
    metadata = {
        "kind": "pose clusters",
        "skeleton": clusters.skeleton.name,
        "root": json.dumps(clusters.root),
        "seed": str(clusters.seed),
        "num_poses": str(clusters.num_poses),
    }
    save_file({"centroids": clusters.centroids.contiguous()}, path, metadata)


def load_clusters(path: str) -> PoseClusters:
    """Read a file of `save_clusters`. Raises WeightsError if it is missing or of another kind."""
    if not os.path.isfile(path):
        raise WeightsError(f"no pose clusters at {path}: give a file written by save_clusters")
    try:
        with safe_open(path, "pt") as file:
            metadata = file.metadata() or {}
            if metadata.get("kind") != "pose clusters":
                raise WeightsError(f"{path} contains {', '.join(file.keys())}, not pose clusters")
            if metadata["skeleton"] not in SKELETONS:
                raise WeightsError(f"{path} is for skeleton {metadata['skeleton']}, which this version does not have")
            centroids = file.get_tensor("centroids")
    except SafetensorError as error:
        raise WeightsError(f"{path} is not a safetensors file: {error}") from error
    return PoseClusters(
        centroids,
        SKELETONS[metadata["skeleton"]],
        tuple(json.loads(metadata["root"])),
        int(metadata["seed"]),
        int(metadata["num_poses"]),
    )


def _k_means(
    poses: Float[np.ndarray, "n d"], count: int, seed: int
) -> tuple[Float[np.ndarray, "k d"], Int[np.ndarray, "n"]]:
    """Centres, and the nearest one of each pose. A cluster that lost all its poses keeps its centre.

    SciPy runs a fixed number of rounds, so it is called again until no pose changes its cluster. For 20,000 poses and
    100 clusters it takes 9 s of CPU, 6.6 of them in k-means++, where our own loop took 3.8 s; the mean distance within
    clusters is 0.1 % smaller. It runs once per dataset, so the shorter code is kept.
    """
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "One of the clusters is empty")
        centroids, nearest = kmeans2(poses, count, 1, minit="++", rng=np.random.default_rng(seed))
        for _ in range(0, ROUNDS, ROUNDS_AT_ONCE):
            before = nearest
            centroids, nearest = kmeans2(poses, centroids, ROUNDS_AT_ONCE, minit="matrix")
            if np.array_equal(nearest, before):
                break
    return centroids, nearest

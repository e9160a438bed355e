"""Pose clusters for the pose structure score (PSS; Kocabas et al., CVPR 2019, section 3.4).

The score is `metrics.pose_structure_score`; this module creates and stores its clusters. k-means runs with a fixed
seed, in double precision on the CPU, so the same poses give the same clusters. Scores are comparable only with the same
file.
"""

from __future__ import annotations

import hashlib
import json
import os
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from mvpose.errors import WeightsError
from mvpose.skeleton import SKELETONS, Skeleton

ROUNDS = 300
"""Maximum number of k-means iterations; it stops when no pose changes its cluster."""


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
    generator = torch.Generator().manual_seed(seed)
    centroids = _spread_start(poses, count, generator)
    nearest = _nearest(poses, centroids)
    for _ in range(ROUNDS):
        centroids = _means(poses, nearest, centroids)
        moved = _nearest(poses, centroids)
        if torch.equal(moved, nearest):
            break
        nearest = moved
    order = nearest.bincount(minlength=count).argsort(descending=True, stable=True)
    return PoseClusters(centroids[order].unflatten(1, (-1, 3)).float(), skeleton, root, seed, len(poses))


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


def _spread_start(poses: Float[Tensor, "n d"], count: int, generator: torch.Generator) -> Float[Tensor, "k d"]:
    """k-means++: each next centre is a pose drawn with the squared distance to the previous centres as weight."""
    chosen = [int(torch.randint(len(poses), (1,), generator=generator))]
    distance = (poses - poses[chosen[0]]).square().sum(dim=-1)
    while len(chosen) < count:
        chosen.append(int(torch.multinomial(distance, 1, generator=generator)))
        distance = torch.minimum(distance, (poses - poses[chosen[-1]]).square().sum(dim=-1))
    return poses[chosen]


def _nearest(poses: Float[Tensor, "n d"], centroids: Float[Tensor, "k d"]) -> Int[Tensor, "n"]:
    # |p|^2 is the same for all centres, so it is omitted.
    return (centroids.square().sum(dim=-1) - 2.0 * poses @ centroids.T).argmin(dim=-1)


def _means(
    poses: Float[Tensor, "n d"], nearest: Int[Tensor, "n"], centroids: Float[Tensor, "k d"]
) -> Float[Tensor, "k d"]:
    """Mean of each cluster; a cluster that lost all its poses keeps its centre."""
    sums = torch.zeros_like(centroids).index_add_(0, nearest, poses)
    sizes = nearest.bincount(minlength=len(centroids))[:, None]
    return torch.where(sizes > 0, sums / sizes.clamp_min(1), centroids)

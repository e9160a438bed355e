"""Score predictions against ground truth: every metric of every row."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from mvpose.metrics import joint_errors as metrics
from mvpose.metrics.part_scores import pcp
from mvpose.skeleton import Skeleton

METRICS = (
    "mpjpe_m", "mpjpe_relative_m", "pa_mpjpe_m", "n_mpjpe_m", "mpjve_m", "pck", "npck", "auc", "pcp",
    "jdr", "jdr_occluded", "pss", "found",
)  # fmt: skip
"""Metric columns. `_m` is in metres (`mpjve_m` in metres per frame), the others are shares of 0..1.

Errors in metres are means over the joints that have an answer, and `found` is their share; in `pck`, `npck`, `auc` and
`pcp` a joint without an answer counts as wrong. `jdr_occluded` is the rate of the joints that are in the stored image
but not visible: something covers them or, in a stored crop, the edge of the whole image cuts them off. Of all datasets
only rendered people state what is covered."""

# JDR's head is a tenth of the crop's side, as in the code of cross-view fusion (Qiu et al. 2019).
HEAD_SHARE = 0.1


@dataclass(frozen=True, eq=False)
class CommonJoints:
    """The joints common to prediction and truth, in the truth's order."""

    skeleton: Skeleton
    """Skeleton of the truth."""
    source: Int[np.ndarray, " J"]
    """Index in the prediction of each joint of the truth."""
    counted: Bool[np.ndarray, " J"]
    root: tuple[int, ...]
    """Joints whose mean is the origin of relative errors; empty if there are none."""

    @staticmethod
    def between(
        predicted: Skeleton, truth: Skeleton, joints: Sequence[str] | None = None, root: str = "hip"
    ) -> CommonJoints:
        """Match two skeletons, optionally restricted to `joints`. The root is the joint of that name or both hips."""
        source, counted = predicted.remap(truth)
        if joints is not None:
            counted = counted & np.isin(truth.joints, joints)
        names = [name for name, kept in zip(truth.joints, counted, strict=True) if kept]
        roots = [c for c in ((root,), ("left_hip", "right_hip")) if all(name in names for name in c)]
        return CommonJoints(truth, source, counted, tuple(truth.indices(*roots[0])) if roots else ())

    def selected(self, joints: Float[np.ndarray, "N K 3"]) -> Float[np.ndarray, "N J 3"]:
        """Predictions in the truth's order; NaN for a joint that the prediction's skeleton lacks."""
        return np.where(self.counted[:, None], joints[:, self.source], np.nan)


def score(
    predicted: Float[np.ndarray, "N J 3"],
    truth: Float[np.ndarray, "N J 3"],
    common: CommonJoints,
    centroids: Float[np.ndarray, "k J 3"] | None = None,
) -> dict[str, np.ndarray]:
    """Metrics of each row by name, NaN if there is nothing to score, and `joint_error_m` (N J).

    Metres in the world; NaN marks a joint without an answer, or without a truth. `centroids` are those of
    `mvpose.metrics.joint_errors.pose_structure_score`. MPJVE, which needs neighbours in time, is `velocity_errors`.
    """
    p, g = torch.from_numpy(predicted).double(), torch.from_numpy(truth).double()
    known = g.isfinite().all(dim=-1) & torch.from_numpy(common.counted)
    both = known & p.isfinite().all(dim=-1)
    found = both.sum(dim=1) / known.sum(dim=1)
    g = torch.where(known[..., None], g, torch.nan)
    p = torch.where(both[..., None], p, torch.nan)
    columns = {"mpjpe_m": metrics.mpjpe(p, g, both), "found": found}
    enough = both.sum(dim=1) >= 3
    columns["pa_mpjpe_m"] = torch.where(enough, metrics.pa_mpjpe(p, g, both), torch.nan)
    if common.root:
        rooted = known[:, list(common.root)].all(dim=1)
        selected = rooted & both[:, list(common.root)].all(dim=1)
        relative = {"mpjpe_relative_m": metrics.mpjpe_relative, "n_mpjpe_m": metrics.n_mpjpe}
        shares = {"pck": metrics.pck, "npck": metrics.npck, "auc": metrics.auc}
        for name, metric in relative.items():
            columns[name] = torch.where(selected, metric(p, g, common.root, both), torch.nan)
        for name, metric in shares.items():
            share = torch.where(selected, metric(p, g, common.root, both) * found, 0.0)
            columns[name] = torch.where(rooted, share, torch.nan)
        if centroids is not None:
            columns["pss"] = _structure_scores(p, g, both, common, torch.from_numpy(centroids).double())
    columns["pcp"] = pcp(p, g, common.skeleton.bone_indices, known)
    column_arrays = {name: column.numpy() for name, column in columns.items()}
    return column_arrays | {"joint_error_m": metrics.joint_errors(p, g).numpy()}


def _structure_scores(
    predicted: Float[Tensor, "N J 3"],
    truth: Float[Tensor, "N J 3"],
    both: Bool[Tensor, "N J"],
    common: CommonJoints,
    centroids: Float[Tensor, "k J 3"],
) -> Float[Tensor, " N"]:
    """PSS over the joints that count; NaN for a pose without one of them.

    If the prediction's skeleton lacks joints of the truth, centres are restricted to the others and keep their norms,
    so that a score over fewer joints is comparable between methods of the same joints only.
    """
    kept = torch.from_numpy(common.counted.copy())
    part = centroids[:, kept]
    length = centroids.square().sum(dim=(-1, -2), keepdim=True).sqrt()
    part = part * length / part.square().sum(dim=(-1, -2), keepdim=True).sqrt().clamp_min(1e-9)
    root = [int(kept[:joint].sum()) for joint in common.root]
    score = metrics.pose_structure_score(predicted[:, kept].nan_to_num(), truth[:, kept].nan_to_num(), part, root)
    return torch.where(both[:, kept].all(dim=1), score, torch.nan)


def velocity_errors(
    predicted: Float[np.ndarray, "N J 3"],
    truth: Float[np.ndarray, "N J 3"],
    track: Sequence[tuple],
    position: Int[np.ndarray, " N"],
) -> Float[np.ndarray, " N"]:
    """MPJVE of each row against the previous row in time, metres per frame; NaN for a row without a previous one.

    Rows of one `track` (person, capture and cameras) whose `position` differs by 1 are neighbours.
    """
    place = {(t, p): i for i, (t, p) in enumerate(zip(track, position.tolist(), strict=True))}
    before = np.array([place.get((t, p - 1), -1) for t, p in zip(track, position.tolist(), strict=True)], dtype=int)
    pairs = np.stack([before, np.arange(len(before))], axis=1)
    p, g = (torch.from_numpy(x[pairs]).double() for x in (predicted, truth))
    both = p.isfinite().all(dim=-1) & g.isfinite().all(dim=-1)
    return np.where(before >= 0, metrics.mpjve(p, g, both)[:, 0].numpy(), np.nan)


def detection_rate(
    predicted_px: Float[np.ndarray, "N V J 2"],
    truth_px: Float[np.ndarray, "N V J 2"],
    inside: Bool[np.ndarray, "N V J"],
    size: tuple[int, int],
) -> Float[np.ndarray, " N"]:
    """JDR of each row over all its views, in pixels of crops of `size`; NaN if no joint counts (`inside` an image)."""
    p, g = (torch.from_numpy(x).double().flatten(1, 2) for x in (predicted_px, truth_px))
    head = torch.full((len(p),), HEAD_SHARE * max(size), dtype=p.dtype)
    return metrics.joint_detection_rate(p, g, head, torch.from_numpy(inside).flatten(1)).numpy()

"""PCP in 3D, the percentage of correct parts: of single poses over any bones, and of several people per actor and part.

The rule is that of Belagiannis et al. (CVPR 2014), implemented once here: a bone is correct if the mean error of its
two ends is at most a fraction (0.5) of its true length. An end that was not predicted (NaN) makes it wrong.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from mvpose.skeleton import Skeleton

# Each part is one or two bones; an end with two joints is the point halfway between them.
PARTS = {
    "head": ((("neck",), ("head_top",)),),
    "torso": ((("left_hip", "right_hip"), ("neck",)),),
    "upper_arms": ((("left_shoulder",), ("left_elbow",)), (("right_shoulder",), ("right_elbow",))),
    "lower_arms": ((("left_elbow",), ("left_wrist",)), (("right_elbow",), ("right_wrist",))),
    "upper_legs": ((("left_hip",), ("left_knee",)), (("right_hip",), ("right_knee",))),
    "lower_legs": ((("left_knee",), ("left_ankle",)), (("right_knee",), ("right_ankle",))),
}


Parts = Mapping[str, tuple[tuple[tuple[str, ...], tuple[str, ...]], ...]]


def scored_parts(joints: Collection[str]) -> Parts:
    """Those of `PARTS` whose joints are all among these."""
    needed = {part: {joint for bone in bones for end in bone for joint in end} for part, bones in PARTS.items()}
    return {part: bones for part, bones in PARTS.items() if needed[part] <= set(joints)}


def pcp(
    predicted: Float[Tensor, "*batch J 3"],
    truth: Float[Tensor, "*batch J 3"],
    bones: Sequence[tuple[int, int]],
    mask: Bool[Tensor, "*batch J"] | None = None,
    share: float = 0.5,
) -> Float[Tensor, "*batch"]:
    """Fraction of correct bones per pose, over bones whose ends both count; NaN if there are none."""
    ends = [list(pair) for pair in bones]
    correct = right_bones(predicted[..., ends, :], truth[..., ends, :], share).to(truth)
    counts = torch.ones_like(correct) if mask is None else mask[..., ends].all(dim=-1).to(truth)
    return (correct * counts).sum(dim=-1) / counts.sum(dim=-1)


def right_bones(
    predicted: Float[Tensor, "*batch bones 2 3"], truth: Float[Tensor, "*batch bones 2 3"], share: float
) -> Bool[Tensor, "*batch bones"]:
    """Which bones, given by their two ends, are correct."""
    error = (predicted - truth).norm(dim=-1).mean(dim=-1)
    return error <= share * (truth[..., 1, :] - truth[..., 0, :]).norm(dim=-1)  # comparing a NaN gives False


@dataclass(frozen=True, eq=False)
class PartScore:
    """Counts of bones per actor Q and part, over the frames in which the actor is annotated."""

    parts: tuple[str, ...]
    correct: Int[Tensor, "Q parts"]
    total: Int[Tensor, "Q parts"]

    @property
    def by_actor(self) -> Float[Tensor, " Q"]:
        """PCP of each actor, 0..1; NaN for an actor that is never annotated."""
        return self.correct.sum(dim=1) / self.total.sum(dim=1)

    @property
    def by_part(self) -> Float[Tensor, "Q parts"]:
        """PCP of each actor and part."""
        return self.correct / self.total

    def average(self, actors: Sequence[int]) -> float:
        """Mean of the actors' PCP, as reported in papers: over the first three of Shelf and of Campus."""
        return float(self.by_actor[list(actors)].mean())


def part_score(
    predicted: Float[Tensor, "T P J 3"],
    found: Bool[Tensor, "T P"],
    truth: Float[Tensor, "T Q J 3"],
    present: Bool[Tensor, "T Q"],
    skeleton: Skeleton,
    parts: Parts = PARTS,
    alpha: float = 0.5,
) -> PartScore:
    """PCP of several people as in later work (VoxelPose, Tu et al. 2020); `alpha` is the fraction of a bone's length.

    In each frame, an actor is compared with the predicted pose that is nearest by mean joint distance. Actors without
    a prediction, and bones with an end that was not predicted, are wrong and stay in the total. Joints are those of
    `skeleton` (`datasets.shelf_campus.SHELF14` has all that PARTS needs); `scored_parts` are those that others have.
    """
    distance = (predicted[:, None] - truth[:, :, None]).norm(dim=-1).nanmean(dim=-1)
    distance = torch.where(found[:, None] & distance.isfinite(), distance, torch.inf)  # T Q P
    anybody = distance.isfinite().any(dim=-1) if distance.shape[-1] else torch.zeros_like(present)
    if distance.shape[-1]:
        frames = torch.arange(len(truth), device=truth.device)[:, None]
        nearest = predicted[frames, distance.argmin(dim=-1)]
    else:
        nearest = torch.full_like(truth, torch.nan)
    correct, total = [], []
    for bones in parts.values():
        right = right_bones(_ends(nearest, skeleton, bones), _ends(truth, skeleton, bones), alpha)
        correct.append((right & (anybody & present)[..., None]).sum(dim=(0, 2)))
        total.append(present.sum(dim=0) * len(bones))
    return PartScore(tuple(parts), torch.stack(correct, dim=1), torch.stack(total, dim=1))


def _ends(
    poses: Float[Tensor, "T Q J 3"], skeleton: Skeleton, bones: Sequence[tuple[tuple[str, ...], tuple[str, ...]]]
) -> Float[Tensor, "T Q bones 2 3"]:
    ends = [[poses[..., skeleton.indices(*end), :].mean(dim=-2) for end in bone] for bone in bones]
    return torch.stack([torch.stack(pair, dim=-2) for pair in ends], dim=-3)

"""PCP in 3D over several people: the percentage of correct parts of Shelf and Campus, by actor and by body part."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from mvpose.skeleton import Skeleton

# Each part is one or two bones; an end that names two joints is the point between them.
PARTS = {
    "head": ((("neck",), ("head_top",)),),
    "torso": ((("left_hip", "right_hip"), ("neck",)),),
    "upper_arms": ((("left_shoulder",), ("left_elbow",)), (("right_shoulder",), ("right_elbow",))),
    "lower_arms": ((("left_elbow",), ("left_wrist",)), (("right_elbow",), ("right_wrist",))),
    "upper_legs": ((("left_hip",), ("left_knee",)), (("right_hip",), ("right_knee",))),
    "lower_legs": ((("left_knee",), ("left_ankle",)), (("right_knee",), ("right_ankle",))),
}


@dataclass(frozen=True, eq=False)
class PartScore:
    """Counts of bones by actor Q and part, over the frames in which an actor is annotated."""

    parts: tuple[str, ...]
    correct: Int[Tensor, "Q parts"]
    total: Int[Tensor, "Q parts"]

    @property
    def by_actor(self) -> Float[Tensor, " Q"]:
        """PCP of each actor, 0..1; NaN for one that is never annotated."""
        return self.correct.sum(dim=1) / self.total.sum(dim=1)

    @property
    def by_part(self) -> Float[Tensor, "Q parts"]:
        """PCP of each actor and part."""
        return self.correct / self.total

    def average(self, actors: Sequence[int]) -> float:
        """Mean of the actors' PCP, as papers report it: over the first three of Shelf and of Campus."""
        return float(self.by_actor[list(actors)].mean())


def part_score(
    predicted: Float[Tensor, "T P J 3"],
    found: Bool[Tensor, "T P"],
    truth: Float[Tensor, "T Q J 3"],
    present: Bool[Tensor, "T Q"],
    skeleton: Skeleton,
    alpha: float = 0.5,
) -> PartScore:
    """PCP after Belagiannis et al. (CVPR 2014) as later work counts it (VoxelPose, Tu et al. 2020).

    In each frame an actor is compared with the predicted pose that is nearest by mean joint distance. A bone is correct
    if the mean error of its two ends is at most `alpha` times its true length. An actor for whom nobody was predicted,
    and a bone with an end that was not, are wrong: they stay in the total. Joints are those of `skeleton`
    (`datasets.shelf_campus.SHELF14` has all that PARTS needs).
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
    for bones in PARTS.values():
        right = torch.stack([_correct(nearest, truth, skeleton, bone, alpha) for bone in bones], dim=-1)  # T Q bones
        correct.append((right & (anybody & present)[..., None]).sum(dim=(0, 2)))
        total.append(present.sum(dim=0) * len(bones))
    return PartScore(tuple(PARTS), torch.stack(correct, dim=1), torch.stack(total, dim=1))


def _correct(
    predicted: Float[Tensor, "T Q J 3"],
    truth: Float[Tensor, "T Q J 3"],
    skeleton: Skeleton,
    bone: tuple[tuple[str, ...], tuple[str, ...]],
    alpha: float,
) -> Bool[Tensor, "T Q"]:
    (start, stop), (true_start, true_stop) = (
        [poses[..., [skeleton.index(joint) for joint in end], :].mean(dim=-2) for end in bone]
        for poses in (predicted, truth)
    )
    error = ((start - true_start).norm(dim=-1) + (stop - true_stop).norm(dim=-1)) / 2
    return error <= alpha * (true_stop - true_start).norm(dim=-1)  # a NaN is no more than nothing

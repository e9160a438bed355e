"""Part affinity fields: bottom-up detection of several people in one image (Cao et al., CVPR 2017).

For each bone, a field of unit vectors along the limb assigns, for example, elbows to shoulders. Candidates are the
local maxima of the joints' heatmaps. The score of a pair is the line integral of the field between them. Pairs are
matched bone by bone, greedily or optimally, and joined into people.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from scipy.optimize import linear_sum_assignment
from torch import Tensor
from torch.nn.functional import grid_sample, max_pool2d

from mvpose.models.field_settings import GroupingConfig
from mvpose.skeleton import Skeleton


@dataclass(frozen=True, eq=False)
class Candidates:
    """Local maxima of one joint's map: pixels of the map, and heights."""

    points: Float[Tensor, "n 2"]
    heights: Float[Tensor, "n"]


@dataclass(frozen=True, eq=False)
class GroupedPeople:
    """People in one image, highest score first. A joint that was not found is (0, 0) with `found` false."""

    points: Float[Tensor, "P J 2"]
    found: Bool[Tensor, "P J"]
    heights: Float[Tensor, "P J"]
    """Of the joints' peaks; 0 for one that was not found."""
    scores: Float[Tensor, "P"]
    """Mean over the joints of the skeleton of peak height and limb score."""


def limb_tree(skeleton: Skeleton) -> Skeleton:
    """The joint set with the limbs that have fields: hips hang from the neck, as in the paper's Figure 2.

    From pelvis to hip is about a pixel of a map of a person, too short for a direction: after 1,000 steps of the small
    recipe, a network joined few legs to their bodies over it.
    """
    if "neck" not in skeleton.joints:
        return skeleton
    hips = ("left_hip", "right_hip")
    bones = tuple(
        ("neck", stop) if stop in hips and start == "hip" else (start, stop) for start, stop in skeleton.bones
    )
    return replace(skeleton, bones=bones)


def affinity_targets(
    points: Float[Tensor, "*batch P J 2"],
    present: Bool[Tensor, "*batch P J"],
    skeleton: Skeleton,
    size: tuple[int, int],
    width: float,
) -> Float[Tensor, "*batch L 2 h w"]:
    """Fields of (width, height) `size`: the limb's unit vector within `width` pixels of it, 0 elsewhere.

    If limbs of several people overlap, the field is their mean (Cao et al. 2017, equation 9). A limb shorter than a
    hundredth of a pixel has no direction and leaves no field. The paper's equation 8 cuts the ends of a limb square;
    here they are round, so that a limb which points at the camera and lies between two pixels keeps a field.
    """
    bones = torch.tensor(skeleton.bone_indices, device=points.device)
    start, stop = points[..., bones[:, 0], :], points[..., bones[:, 1], :]
    length = (stop - start).norm(dim=-1, keepdim=True)
    shown = present[..., bones].all(dim=-1) & (length[..., 0] > 0.01)
    unit = (stop - start) / length.clamp_min(0.01)
    ux, uy, reach = unit[..., 0, None, None], unit[..., 1, None, None], length[..., None]
    # One coordinate at a time: twice as fast as vectors in the last axis.
    across = torch.arange(size[0], device=points.device).to(points) - start[..., 0, None, None]
    down = torch.arange(size[1], device=points.device).to(points)[:, None] - start[..., 1, None, None]
    along = torch.minimum((across * ux + down * uy).clamp_min(0.0), reach)
    near = (across - along * ux).square() + (down - along * uy).square() <= width**2
    on_limb = (near & shown[..., None, None]).to(points)
    count = on_limb.sum(dim=-4).clamp_min(1.0)
    return torch.stack([(on_limb * ux).sum(dim=-4) / count, (on_limb * uy).sum(dim=-4) / count], dim=-3)


def local_maxima(heatmap: Float[Tensor, "h w"], min_height: float) -> Candidates:
    """Pixels higher than their eight neighbours and than `min_height`, with sub-pixel positions; highest first.

    Of a plateau only the first pixel counts.
    """
    top = max_pool2d(heatmap[None, None], 3, 1, 1)[0, 0]
    rows, columns = ((heatmap >= top) & (heatmap > min_height)).nonzero(as_tuple=True)
    order = heatmap[rows, columns].argsort(descending=True, stable=True)
    pixels = torch.stack([columns, rows], dim=-1)[order]
    near = (pixels[:, None] - pixels).abs().amax(dim=-1) <= 1
    first = ~(near & torch.ones_like(near).tril(-1)).any(dim=-1)
    pixels = pixels[first]
    heights = heatmap[pixels[:, 1], pixels[:, 0]]
    return Candidates(pixels + _off_pixel(heatmap, pixels), heights)


def limb_scores(
    field: Float[Tensor, "2 h w"],
    starts: Float[Tensor, "n 2"],
    stops: Float[Tensor, "m 2"],
    config: GroupingConfig | None = None,
) -> Float[Tensor, "n m"]:
    """Score of each pair: mean of the field along the line, with a penalty for lengths over half the image.

    0 if too few samples are on the limb, or the mean is not positive.
    """
    config = config or GroupingConfig()
    h, w = field.shape[-2:]
    way = stops[None] - starts[:, None]
    length = way.norm(dim=-1)
    unit = way / length.clamp_min(1e-6)[..., None]
    share = torch.linspace(0.0, 1.0, config.samples).to(field)
    samples = starts[:, None, None] + share[:, None] * way[:, :, None]
    where = samples * (2.0 / torch.tensor([w - 1, h - 1]).to(samples)) - 1.0
    flow = grid_sample(field[None], where.reshape(1, -1, config.samples, 2), align_corners=True)[0]
    agreement = (flow.reshape(2, *samples.shape[:-1]).permute(1, 2, 3, 0) * unit[:, :, None]).sum(dim=-1)
    score = agreement.mean(dim=-1) + (0.5 * h / length.clamp_min(1e-6) - 1.0).clamp_max(0.0)
    on_limb = (agreement > config.min_sample).float().mean(dim=-1) >= config.min_share
    return torch.where(on_limb, score, torch.zeros_like(score)).clamp_min(0.0)


def match(scores: Float[Tensor, "n m"], matching: Literal["greedy", "optimal"]) -> list[tuple[int, int]]:
    """Pairs (row, column) of positive score, each row and column once.

    Greedy repeatedly takes the best remaining pair; optimal maximises the sum (Hungarian method).
    """
    table = scores.detach().cpu().double().numpy()
    if matching == "optimal":
        rows, columns = linear_sum_assignment(table, maximize=True)
        return [(int(r), int(c)) for r, c in zip(rows, columns, strict=True) if table[r, c] > 0]
    pairs, free = [], table.copy()
    while free.size and free.max() > 0:
        row, column = (int(i) for i in np.unravel_index(free.argmax(), free.shape))
        pairs.append((row, column))
        free[row], free[:, column] = 0, 0
    return pairs


def group_people(
    heatmaps: Float[Tensor, "J h w"],
    fields: Float[Tensor, "L 2 h w"],
    skeleton: Skeleton,
    config: GroupingConfig | None = None,
) -> GroupedPeople:
    """Group the maps of one image into people, with points in pixels of the maps.

    Bones are matched in the skeleton's order. If a bone joins two parts without a common joint, they are merged; a
    bone that would give a person a second elbow is skipped. ValueError for maps that do not fit the skeleton.
    """
    config = config or GroupingConfig()
    if len(heatmaps) != len(skeleton.joints) or len(fields) != len(skeleton.bones):
        raise ValueError(
            f"skeleton {skeleton.name} has {len(skeleton.joints)} joints and {len(skeleton.bones)} bones, but there "
            f"are {len(heatmaps)} heatmaps and {len(fields)} fields"
        )
    candidates = [local_maxima(heatmap, config.min_height) for heatmap in heatmaps]
    parts: list[_Part] = []
    for field, (a, b) in zip(fields, skeleton.bone_indices, strict=True):
        scores = limb_scores(field, candidates[a].points, candidates[b].points, config)
        for i, k in match(scores, config.matching):
            _join(parts, (a, i), (b, k), float(scores[i, k]))
    people = [part for part in parts if len(part.joints) >= config.min_joints]
    return _as_people(people, candidates, len(skeleton.joints))


def _off_pixel(heatmap: Float[Tensor, "h w"], pixels: Int[Tensor, "n 2"]) -> Float[Tensor, "n 2"]:
    """Offset of the peak from its pixel, by parabolas through three logarithms; exact for a Gaussian."""
    log = torch.nn.functional.pad(heatmap[None, None], (1, 1, 1, 1), mode="replicate")[0, 0].clamp_min(1e-6).log()
    x, y = (pixels + 1).unbind(-1)
    top = log[y, x]
    before = torch.stack([log[y, x - 1], log[y - 1, x]], dim=-1)
    after = torch.stack([log[y, x + 1], log[y + 1, x]], dim=-1)
    curvature = before + after - 2 * top[:, None]
    return torch.where(curvature < -1e-6, 0.5 * (before - after) / curvature.clamp_max(-1e-6), 0.0).clamp(-0.5, 0.5)


@dataclass
class _Part:
    """Some joints of one person: the candidate of each, and the sum of the limbs' scores."""

    joints: dict[int, int]
    limbs: float


def _join(parts: list[_Part], start: tuple[int, int], stop: tuple[int, int], score: float) -> None:
    """Add a limb between two candidates (joint, place) to the parts it touches."""
    owners = [next((p for p in parts if p.joints.get(joint) == place), None) for joint, place in (start, stop)]
    first, second = owners
    if first is None and second is None:
        parts.append(_Part(dict([start, stop]), score))
    elif first is second and first is not None:
        first.limbs += score
    elif first is not None and second is not None:
        if not first.joints.keys() & second.joints.keys():
            first.joints |= second.joints
            first.limbs += second.limbs + score
            parts.remove(second)
    else:
        owner, (joint, place) = (first, stop) if first is not None else (second, start)
        assert owner is not None
        if joint not in owner.joints:
            owner.joints[joint] = place
            owner.limbs += score


def _as_people(parts: list[_Part], candidates: list[Candidates], num_joints: int) -> GroupedPeople:
    points = candidates[0].points.new_zeros(len(parts), num_joints, 2)
    heights = points.new_zeros(len(parts), num_joints)
    found = torch.zeros(len(parts), num_joints, dtype=torch.bool, device=points.device)
    scores = points.new_zeros(len(parts))
    for p, part in enumerate(parts):
        for joint, place in part.joints.items():
            points[p, joint], found[p, joint] = candidates[joint].points[place], True
            heights[p, joint] = candidates[joint].heights[place]
        scores[p] = (float(heights[p].double().sum()) + part.limbs) / num_joints
    order = scores.argsort(descending=True, stable=True)
    return GroupedPeople(points[order], found[order], heights[order], scores[order])

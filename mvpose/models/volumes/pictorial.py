"""Pictorial structures in 3D, plain (PSM) and recursive (RPSM): Qiu et al., ICCV 2019, section 5, batched over frames.

A person is a tree of joints. Each joint takes one position on a grid. The score of a configuration is the product of
the heatmaps' mean at the projections of the joints, and of a length prior over the limbs. Dynamic programming finds the
best configuration exactly. RPSM then repeats the search on ever finer 2 x 2 x 2 grids about each joint.

`mvpose.models.pictorial_step` runs it on the maps of a network, with the mean limb lengths of its training.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn.functional import grid_sample

from mvpose.errors import ConfigError
from mvpose.models.network_settings import PictorialConfig
from mvpose.models.volumes.heatmap_cameras import CropCameras
from mvpose.models.volumes.peaks import checked_view_weights, triangulated_peaks
from mvpose.skeleton import Skeleton

# A map that is empty everywhere must not exclude a position that the other joints need: its logarithm is floored here.
LOWEST_VALUE = 1e-4
# Worse than all maps of a person empty (17 log 1e-4 = -157), so a broken limb is the last resort, as in a product with
# 0, but the better of two configurations with broken limbs is still found.
BROKEN_LIMB = -1000.0


@dataclass(frozen=True, eq=False)
class PictorialPoses:
    """One pose per frame: joints in the world in metres, and the heatmaps' mean over the views at each."""

    points: Float[Tensor, "B J 3"]
    confidence: Float[Tensor, "B J"]


def grid_centres(
    heatmaps: Float[Tensor, "B V J h w"],
    cameras: CropCameras,
    skeleton: Skeleton,
    view_weights: Float[Tensor, "B V"] | None = None,
) -> tuple[Float[Tensor, "B 3"], Bool[Tensor, "B"]]:
    """Centre of the first grid of each frame (metres, world): the root, triangulated from the peaks of its maps.

    Without a valid root, the mean of the valid joints. The mask is false for frames in which no two views agree on any
    joint.
    """
    found = triangulated_peaks(heatmaps, cameras, view_weights)
    root = _limbs(skeleton)[0].parent
    known = found.valid[..., None]
    mean = (found.points * known).sum(dim=1) / known.sum(dim=1).clamp_min(1)
    return torch.where(known[:, root], found.points[:, root], mean), found.valid.any(dim=1)


def pictorial_poses(
    heatmaps: Float[Tensor, "B V J h w"],
    cameras: CropCameras,
    middle: Float[Tensor, "B 3"],
    lengths: Float[Tensor, "L"],
    skeleton: Skeleton,
    config: PictorialConfig | None = None,
    view_weights: Float[Tensor, "B V"] | None = None,
) -> PictorialPoses:
    """The best configuration of the skeleton in each of B frames.

    `middle` (metres, world) is the centre of the first grid and `lengths` (metres) belong to `skeleton.bones`. A view
    with weight 0 counts as absent. The first round holds B * bins^3 * (V J + 4 J) floats; split long captures.
    ConfigError for a skeleton that is not a tree; TooFewViewsError if a frame has fewer than two views.
    """
    config = config or PictorialConfig()
    limbs = _limbs(skeleton)
    if len(lengths) != len(limbs) or heatmaps.shape[2] != len(skeleton.joints):
        raise ValueError(
            f"skeleton {skeleton.name} has {len(skeleton.joints)} joints and {len(limbs)} limbs, but there are "
            f"{heatmaps.shape[2]} heatmaps and {len(lengths)} lengths"
        )
    search = _Search(heatmaps, cameras, checked_view_weights(heatmaps, view_weights), lengths.tolist(), limbs, config)
    points = search.first_round(middle)
    for i in range(config.rounds):
        points = search.refined(points, config.side_m / (config.bins * 2**i))
    return PictorialPoses(points, search.mean_heat(points[:, :, None])[..., 0])


def mean_limb_lengths(
    points: Float[Tensor, "n J 3"], valid: Bool[Tensor, "n J"], skeleton: Skeleton
) -> Float[Tensor, "L"]:
    """Mean length of each bone over the poses where both ends are valid, in the unit of the points.

    A bone and its mirror image share one mean. NaN for a bone that is visible in no pose.
    """
    bones = torch.tensor(skeleton.bone_indices, device=points.device)
    shown = valid[:, bones].all(dim=-1)
    length = (points[:, bones[:, 0]] - points[:, bones[:, 1]]).norm(dim=-1)
    length = torch.where(shown, length, torch.full_like(length, math.nan))
    position = {frozenset(bone): i for i, bone in enumerate(skeleton.bone_indices)}
    mirror = skeleton.mirror
    twin = [position.get(frozenset((mirror[a], mirror[b])), i) for i, (a, b) in enumerate(skeleton.bone_indices)]
    return torch.cat([length, length[:, twin]]).nanmean(dim=0)


def require_tree(skeleton: Skeleton) -> None:
    """ConfigError if the bones of a skeleton are not a tree with one root."""
    _limbs(skeleton)


@dataclass(frozen=True)
class _Limb:
    """A bone on the way from the root to the leaves; `bone` is its index among the skeleton's bones."""

    parent: int
    child: int
    bone: int


def _limbs(skeleton: Skeleton) -> list[_Limb]:
    """Bones ordered so that a joint's own limb comes before those that leave it; ConfigError if it is no tree."""
    bones = skeleton.bone_indices
    roots = [j for j, parent in enumerate(skeleton.parents) if parent < 0]
    ordered: list[_Limb] = []
    for _ in bones:
        reached = roots + [limb.child for limb in ordered]
        ordered += [_Limb(a, b, i) for i, (a, b) in enumerate(bones) if a in reached and b not in reached]
    if len(roots) != 1 or len(ordered) != len(skeleton.joints) - 1 or len(bones) != len(ordered):
        names = ", ".join(skeleton.joints[j] for j in roots)
        raise ConfigError(
            f"skeleton {skeleton.name} is not a tree: {len(bones)} bones for {len(skeleton.joints)} joints, roots: "
            f"{names or 'none'}; remap to a joint set that has one root, such as human36m17"
        )
    return ordered


Message = Callable[[_Limb, Tensor], Tensor]


@dataclass(frozen=True, eq=False)
class _Search:
    """Data common to all rounds. States come before frames (`K B`), so that frames are contiguous in memory."""

    heatmaps: Float[Tensor, "B V J h w"]
    cameras: CropCameras
    weights: Float[Tensor, "B V"]
    lengths: list[float]
    limbs: list[_Limb]
    config: PictorialConfig

    def first_round(self, root: Float[Tensor, "B 3"]) -> Float[Tensor, "B J 3"]:
        """All joints on one grid of bin centres about the root."""
        n = self.config.bins
        axis = ((torch.arange(n).to(root) + 0.5) / n - 0.5) * self.config.side_m
        grid = torch.cartesian_prod(axis, axis, axis)
        places = (root[:, None] + grid)[:, None].expand(-1, self.heatmaps.shape[2], -1, -1)
        return self._placed(self._shared_unary(places[:, 0]), places, self.config.side_m / n, self._grid_message)

    def refined(self, points: Float[Tensor, "B J 3"], size_m: float) -> Float[Tensor, "B J 3"]:
        """Each joint on the 8 corners of a cube of side `size_m` about its position.

        Corners, and not the centres of octants: they reach as far as the neighbouring cubes, so a joint in the
        wrong bin can still recover.
        """
        axis = torch.tensor([-0.5, 0.5]).to(points) * size_m
        places = points[:, :, None] + torch.cartesian_prod(axis, axis, axis)

        def message(limb: _Limb, belief: Float[Tensor, "K B"]) -> Float[Tensor, "K B"]:
            apart = (places[:, limb.parent, :, None] - places[:, limb.child, None]).norm(dim=-1)
            return (self._prior(apart, limb, size_m).permute(1, 2, 0) + belief).amax(dim=1)

        return self._placed(self.mean_heat(places).clamp_min(LOWEST_VALUE).log(), places, size_m, message)

    def mean_heat(self, places: Float[Tensor, "B J K 3"]) -> Float[Tensor, "B J K"]:
        """Mean of each joint's own map at its positions, over the views that see it."""
        (b, j, k), v = places.shape[:3], self.heatmaps.shape[1]
        pixels, seen = self.cameras.project(places.flatten(1, 2))
        where = self._normalised(pixels).reshape(b * v * j, k, 1, 2)
        heat = grid_sample(self.heatmaps.flatten(0, 2)[:, None], where, mode="bicubic", align_corners=True)
        return self._mean_over_views(heat.reshape(b, v, j, k), seen.reshape(b, v, j, k))

    def _shared_unary(self, places: Float[Tensor, "B K 3"]) -> Float[Tensor, "B J K"]:
        """Logarithm of the maps' mean if all joints have the same positions: projected once, not J times."""
        b, v, j = self.heatmaps.shape[:3]
        pixels, seen = self.cameras.project(places)
        where = self._normalised(pixels).flatten(0, 1)[..., None, :]
        heat = grid_sample(self.heatmaps.flatten(0, 1), where, align_corners=True)
        heat = heat.reshape(b, v, j, -1)
        return self._mean_over_views(heat, seen[:, :, None].expand_as(heat)).clamp_min(LOWEST_VALUE).log()

    def _mean_over_views(self, heat: Float[Tensor, "B V J K"], seen: Bool[Tensor, "B V J K"]) -> Tensor:
        weight = self.weights[..., None, None] * seen
        return (heat * weight).sum(dim=1) / weight.sum(dim=1).clamp_min(1e-9)

    def _normalised(self, pixels: Float[Tensor, "B V n 2"]) -> Float[Tensor, "B V n 2"]:
        h, w = self.heatmaps.shape[-2:]
        return pixels * (2.0 / torch.tensor([w - 1, h - 1]).to(pixels)) - 1.0

    def _prior(self, apart: Float[Tensor, "*n"], limb: _Limb, pitch_m: float) -> Float[Tensor, "*n"]:
        """Logarithm of the prior of a limb whose ends, on grids of `pitch_m`, are `apart` metres apart.

        The soft prior is widened by the grids' own error along the limb, whose variance is pitch^2 / 12 at each end.
        Otherwise rounding decides on a coarse grid, and later rounds cannot undo it.
        """
        off = apart - self.lengths[limb.bone]
        worth = torch.zeros_like(off)
        if self.config.softness_m is not None:
            worth = -0.5 * off**2 / (self.config.softness_m**2 + pitch_m**2 / 6)
        return torch.where(off.abs() <= self.config.tolerance_m, worth, torch.full_like(off, BROKEN_LIMB))

    def _grid_message(self, limb: _Limb, belief: Float[Tensor, "K B"]) -> Float[Tensor, "K B"]:
        """For each bin of the parent, the best belief among the child's bins at the limb's length.

        On a common grid the prior depends only on the step between the bins, so it is a stencil: a shell of some 50
        to 400 steps instead of all 4096 bins.
        """
        n = self.config.bins
        child = belief.reshape(n, n, n, -1)
        best = (belief.amax(dim=0) + BROKEN_LIMB).expand_as(child).clone()
        for step, worth in self._shell(limb):
            here = tuple(slice(max(0, -s), n - max(0, s)) for s in step)
            there = tuple(slice(max(0, s), n - max(0, -s)) for s in step)
            torch.maximum(best[here], child[there] + worth if worth else child[there], out=best[here])
        return best.reshape(belief.shape)

    def _shell(self, limb: _Limb) -> list[tuple[tuple[int, ...], float]]:
        """Steps between bins that the limb's length allows, each with its prior."""
        bins, pitch = self.config.bins, self.config.side_m / self.config.bins
        steps = torch.tensor(list(itertools.product(range(1 - bins, bins), repeat=3)))
        worth = self._prior(steps.double().norm(dim=-1) * pitch, limb, pitch)
        allowed = worth > BROKEN_LIMB
        return list(zip(map(tuple, steps[allowed].tolist()), worth[allowed].tolist(), strict=True))

    def _placed(
        self, unary: Float[Tensor, "B J K"], places: Float[Tensor, "B J K 3"], pitch_m: float, message: Message
    ) -> Float[Tensor, "B J 3"]:
        """Exact maximum of unary plus priors: beliefs from the leaves to the root, choices from the root back."""
        belief = list(unary.permute(1, 2, 0).contiguous())
        for limb in reversed(self.limbs):
            belief[limb.parent] = belief[limb.parent] + message(limb, belief[limb.child])
        frames = torch.arange(len(places), device=places.device)
        chosen = list(places[:, :, 0].unbind(1))
        root = self.limbs[0].parent
        chosen[root] = places[frames, root, belief[root].argmax(dim=0)]
        for limb in self.limbs:
            apart = (places[:, limb.child] - chosen[limb.parent][:, None]).norm(dim=-1)
            best = (self._prior(apart, limb, pitch_m) + belief[limb.child].T).argmax(dim=-1)
            chosen[limb.child] = places[frames, limb.child, best]
        return torch.stack(chosen, dim=1)

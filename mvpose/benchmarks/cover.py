"""Multi-view networks on footage without ground truth: with all cameras, with one fewer, and with one half covered.

The 2D output of every network is triangulated robustly in the same way. Three scores need no ground truth: agreement
of a network's 2D with its own 3D; distance of 3D made without a camera from what the first network sees in that camera
uncovered; variation of limb lengths over time. The first two are in millimetres at the person.
"""

from __future__ import annotations

import itertools
import json
from dataclasses import asdict, dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float, UInt8
from torch import Tensor, nn

from mvpose.datasets.sample_table import read_samples
from mvpose.errors import ConfigError
from mvpose.geometry.robust import RobustTriangulation, triangulate_robust
from mvpose.geometry.triangulation import reprojection_errors
from mvpose.models.backbone_settings import CSPNeXtBackbone
from mvpose.models.input_rule import InputRule, input_rule
from mvpose.models.method import build_method
from mvpose.models.network_settings import TokenMethod
from mvpose.models.saved import load_model
from mvpose.models.shipped import model_folder
from mvpose.skeleton import SKELETONS, Skeleton
from mvpose.training.batches import CropView, sample_arrays, stacked

RTMPOSE = "rtmpose"
RTMPOSE_MARGIN = 1.25
"""Crop over box in the data preparation of the published RTMPose."""
SURE, MIN_CONFIDENCE = 0.5, 0.3
THRESHOLD_SHARE = 6 / 256
"""Outlier threshold relative to a crop's longer side: 15 px of the demo's 1080p images."""
GREY = 128
LIMBS = (("hip", "knee"), ("knee", "ankle"), ("shoulder", "elbow"), ("elbow", "wrist"))


@dataclass(frozen=True, kw_only=True)
class CoverBenchmark:
    """Compare networks on a table of footage (`mvpose dataset convert run`)."""

    models: tuple[str, ...] = (RTMPOSE,)
    """Folders of trained networks with one joint set; `rtmpose` is RTMPose-s alone in every view."""
    table: str
    """Table of samples with crops, all by the same cameras."""
    capture: str = ""
    """Use only this capture; limb lengths are those of one person."""
    count: int = 50
    """Number of samples, from the first."""
    json: str | None = None
    """Output file for the figures."""


@dataclass(frozen=True)
class Figures:
    """Figures of one network in one condition."""

    agreement_mm: float
    left_out_mm: float
    limb_spread: float
    """Standard deviation over mean of a limb's length, mean of eight limbs."""
    found: float


@dataclass(frozen=True, eq=False)
class _Views:
    crops: UInt8[Tensor, "B V 3 H W"]
    projections: Float[Tensor, "B V 3 4"]
    present: Bool[Tensor, "B V"]


def run(config: CoverBenchmark) -> None:
    """Measure, print a table, write JSON."""
    networks = {name: _network(name) for name in config.models}
    rule = next(iter(networks.values()))[1]
    if any((r.skeleton, r.crop) != (rule.skeleton, rule.crop) for _, r in networks.values()):
        raise ConfigError("networks that are compared must have one joint set, and crops of one size and margin.")
    skeleton = SKELETONS[rule.skeleton]
    views = _views(config, CropView(skeleton=skeleton, crop=rule.crop))
    reference = _points(next(iter(networks.values()))[0], views)
    figures: dict[str, dict[str, Figures]] = {}
    print(f"{len(views.crops)} samples of {config.table} by {views.crops.shape[1]} cameras")
    for condition, variants in _conditions(views).items():
        for name, (network, _) in networks.items():
            mean = _mean([_scored(network, variant, skeleton, reference) for variant in variants])
            figures.setdefault(condition, {})[name] = mean
            print(
                f"{condition:18s} {name[-32:]:32s} agreement {mean.agreement_mm:6.1f} mm  left-out camera "
                f"{mean.left_out_mm:6.1f} mm  limbs vary by {mean.limb_spread:5.2%}  found {mean.found:.1%}"
            )
    if config.json:
        with open(config.json, "w", encoding="utf-8") as file:
            json.dump({c: {n: asdict(f) for n, f in by.items()} for c, by in figures.items()}, file, indent=1)


def _network(name: str) -> tuple[nn.Module, InputRule]:
    if name != RTMPOSE:
        saved = load_model(model_folder(name))
        return saved.network, saved.rule
    backbone = CSPNeXtBackbone(weights="rtmpose_s_halpe26", frozen=True)
    # Untrained fusion of tokens corrects nothing.
    config = TokenMethod(skeleton="halpe26", size=(192, 256), backbone=backbone)
    return build_method(config).eval(), input_rule(config, RTMPOSE_MARGIN)


def _views(config: CoverBenchmark, view: CropView) -> _Views:
    chosen = (s for s in read_samples(config.table) if not config.capture or s.capture_id == config.capture)
    samples = list(itertools.islice(chosen, config.count))
    if not samples:
        raise ConfigError(f"{config.table} has no sample of {config.capture or 'any capture'}.")
    cameras = samples[0].rig.names
    view = CropView(**(vars(view) | {"views": len(cameras), "cameras": cameras}))
    columns = stacked([sample_arrays(s, view, np.random.default_rng(0)) for s in samples if s.rig.names == cameras])
    return _Views(*(torch.from_numpy(columns[name]) for name in ("crops", "projections", "present")))


def _conditions(views: _Views) -> dict[str, list[_Views]]:
    cameras = range(views.crops.shape[1])
    height, width = views.crops.shape[-2:]
    lower, left = (slice(height // 2, None), slice(None)), (slice(None), slice(None, width // 2))
    return {
        "all cameras": [views],
        "one camera fewer": [_without(views, c) for c in cameras],
        "lower half covered": [_covered(views, c, lower) for c in cameras],
        "left half covered": [_covered(views, c, left) for c in cameras],
    }


def _without(views: _Views, camera: int) -> _Views:
    present = views.present.clone()
    present[:, camera] = False
    return _Views(views.crops, views.projections, present)


def _covered(views: _Views, camera: int, half: tuple[slice, slice]) -> _Views:
    crops = views.crops.clone()
    crops[:, camera, :, half[0], half[1]] = GREY
    return _Views(crops, views.projections, views.present)


@torch.no_grad()
def _points(network: nn.Module, views: _Views) -> tuple[Float[Tensor, "B V J 2"], Float[Tensor, "B V J"]]:
    parts = [
        network(*batch)
        for batch in zip(views.crops.split(8), views.projections.split(8), views.present.split(8), strict=True)
    ]
    return torch.cat([p.joints_2d for p in parts]), torch.cat([p.confidence_2d for p in parts])


def _scored(network: nn.Module, views: _Views, skeleton: Skeleton, reference: tuple[Tensor, Tensor]) -> Figures:
    joints = [skeleton.index(f"{s}_{j}") for s in ("left", "right") for j in dict.fromkeys(itertools.chain(*LIMBS))]
    points, confidence = (t[:, :, joints] for t in _points(network, views))
    seen, sure = (t[:, :, joints] for t in reference)
    whole = _solved(points, confidence, views)
    own = _error_mm(whole, points, views)[(whole.valid[:, None] & views.present[..., None]).expand(sure.shape)]
    left_out = []
    for camera in range(views.crops.shape[1]):
        fewer = _without(views, camera)
        if not views.present[:, camera].any() or int(fewer.present.sum(dim=1).min()) < 2:
            continue
        seen_by_others, confident = (t[:, :, joints] for t in _points(network, fewer))
        others = _solved(seen_by_others, confident, fewer)
        known = others.valid & (sure[:, camera] > SURE)
        left_out.append(_error_mm(others, seen, views)[:, camera][known])
    names = [skeleton.joints[j] for j in joints]
    return Figures(
        own.mean().item(),
        torch.cat(left_out).mean().item(),
        _limb_spread(whole, names),
        whole.valid.double().mean().item(),
    )


def _solved(points: Tensor, confidence: Tensor, views: _Views) -> RobustTriangulation:
    weights = torch.where((confidence > MIN_CONFIDENCE) & views.present[..., None], confidence, 0.0)
    threshold = THRESHOLD_SHARE * max(views.crops.shape[-2:])
    return triangulate_robust(
        points.transpose(1, 2).double(),
        views.projections[:, None].double(),
        weights.transpose(1, 2).double(),
        threshold_px=threshold,
        scale_px=threshold / 2,
    )


def _error_mm(solved: RobustTriangulation, points: Tensor, views: _Views) -> Float[Tensor, "B V J"]:
    """Reprojection errors as lengths at the joint's depth."""
    cameras = views.projections[:, None].double()
    errors = reprojection_errors(solved.points, points.transpose(1, 2).double(), cameras)
    rows = cameras[..., :3]
    size = rows[..., 2, :].norm(dim=-1)
    focal = torch.linalg.cross(rows[..., 0, :], rows[..., 2, :]).norm(dim=-1) / size**2
    depth = ((rows[..., 2, :] * solved.points[:, :, None]).sum(dim=-1) + cameras[..., 2, 3]) / size
    return (1000 * errors * depth / focal).transpose(1, 2)


def _limb_spread(solved: RobustTriangulation, names: list[str]) -> float:
    spreads = []
    for side, (upper, lower) in itertools.product(("left", "right"), LIMBS):
        a, b = names.index(f"{side}_{upper}"), names.index(f"{side}_{lower}")
        both = solved.valid[:, a] & solved.valid[:, b]
        length = (solved.points[both, a] - solved.points[both, b]).norm(dim=-1)
        spreads.append((length.std() / length.mean()).item())
    return float(np.mean(spreads))


def _mean(figures: list[Figures]) -> Figures:
    return Figures(*np.mean([list(asdict(f).values()) for f in figures], axis=0).tolist())

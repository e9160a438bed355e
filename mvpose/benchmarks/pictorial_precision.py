"""Precision of PSM and RPSM on heatmaps of synthetic people, beside triangulation and the best that the noise allows.

Every map is a Gaussian of height 1 about a joint's pixel, off by normal noise. The best possible joints minimise the
squared reprojection error of exactly these noisy pixels: without knowledge of the body, they are the most likely ones.
PSM is off by its bins (60 mm of 125); each round of RPSM halves them. Limb lengths are the mean of the people.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from mvpose import scenes
from mvpose.errors import ConfigError
from mvpose.geometry import DltMethod
from mvpose.geometry.refinement import RobustLoss, refine
from mvpose.geometry.triangulation import triangulate
from mvpose.heatmaps import gaussian_targets
from mvpose.metrics.intervals import Estimate, mean_estimates
from mvpose.models.network_settings import CropRule, PictorialConfig
from mvpose.models.pinhole_crops import crop_about
from mvpose.models.volumes.heatmap_cameras import CropCameras
from mvpose.models.volumes.peaks import heatmap_peaks
from mvpose.models.volumes.pictorial import grid_centres, mean_limb_lengths, pictorial_poses
from mvpose.skeleton import HUMAN36M17

CROP, MAPS, SIGMA_PX = (256, 256), (64, 64), 2.0
"""Of the paper's maps of 64 x 64."""
FRAME_STEP = 4
"""Frames of a walk that are left out, so that poses differ."""
PSM, RPSM, DLT, LIMIT = "PSM", "RPSM", "DLT of the peaks", "most likely joints"


@dataclass(frozen=True, kw_only=True)
class PictorialBenchmark:
    """Error of PSM and RPSM on maps of four cameras with noise, beside triangulation and the most likely joints."""

    people: int = 20
    """Walks from different places; intervals are over them."""
    frames: int = 8
    """Frames per walk."""
    noise_px: tuple[float, ...] = (0.0, 0.5, 1.0)
    """Standard deviation per coordinate of the maps' peaks about the joints, in pixels of the maps."""
    rounds: tuple[int, ...] = (0, 1, 3, 5, 10)
    """Refinements: 0 is PSM."""
    seed: int = 0
    json: str | None = None
    """Output file for the figures."""


@dataclass(frozen=True, eq=False)
class WalkMaps:
    """Maps of people in B frames and what they show."""

    heatmaps: Float[Tensor, "B V J h w"]
    cameras: CropCameras
    pixels: Float[Tensor, "B V J 2"]
    """Noisy pixels about which the maps are drawn."""
    joints: Float[Tensor, "B J 3"]
    """Truth: metres, world."""
    person: list[str]


def run(config: PictorialBenchmark) -> dict[str, dict[str, dict[str, float]]]:
    """Print one table per noise level; returns, and with `config.json` writes, the figures by noise and method."""
    if min(config.people, config.frames) < 2 or not config.rounds:
        raise ConfigError("give at least 2 people, 2 frames and one number of rounds.")
    found: dict[str, dict[str, dict[str, float]]] = {}
    for noise in config.noise_px:
        walks = walk_maps(config, noise)
        errors = errors_mm(walks, config.rounds)
        found[f"{noise:g}"] = {name: asdict(e) for name, e in _table(noise, walks, errors).items()}
    if config.json:
        with open(config.json, "w", encoding="utf-8") as file:
            json.dump({"config": asdict(config), "figures": found}, file, indent=1)
    return found


def walk_maps(config: PictorialBenchmark, noise_px: float) -> WalkMaps:
    """Maps of walking people by four cameras, in crops as networks get them."""
    generator = torch.Generator().manual_seed(config.seed)
    joints, projections, person = [], [], []
    for number in range(config.people):
        walk = scenes.ring4(seed=config.seed + number, num_frames=FRAME_STEP * config.frames, skeleton=HUMAN36M17)
        for pose in walk.joints[::FRAME_STEP, 0]:
            joints.append(torch.from_numpy(pose))
            projections.append(_crop_projections(walk.rig.projections.double(), joints[-1]))
            person.append(str(number))
    truth, cameras = torch.stack(joints), CropCameras.of_crops(torch.stack(projections), CROP, MAPS)
    exact, _ = cameras.project(truth)
    pixels = exact + noise_px * torch.randn(exact.shape, dtype=exact.dtype, generator=generator)
    heatmaps = gaussian_targets(pixels, MAPS, SIGMA_PX).float()
    return WalkMaps(heatmaps, CropCameras(cameras.projections.float()), pixels, truth, person)


def _crop_projections(projections: Float[Tensor, "V 3 4"], joints: Float[Tensor, "J 3"]) -> Float[Tensor, "V 3 4"]:
    pixels, _ = CropCameras(projections[None]).project(joints[None])
    boxes = torch.cat([pixels[0].amin(dim=1), pixels[0].amax(dim=1)], dim=-1).numpy()
    rule = CropRule(size=CROP, margin=1.4)
    return torch.from_numpy(np.stack([crop_about(box, rule) for box in boxes])) @ projections


def errors_mm(walks: WalkMaps, rounds: tuple[int, ...]) -> dict[str, Float[np.ndarray, " B"]]:
    """Mean error over the joints of each frame, by method."""
    valid = torch.ones(walks.joints.shape[:2], dtype=torch.bool)
    lengths = mean_limb_lengths(walks.joints, valid, HUMAN36M17).float()
    centre, agreed = grid_centres(walks.heatmaps, walks.cameras, HUMAN36M17)
    assert agreed.all()
    found: dict[str, Tensor] = {}
    for count in rounds:
        config = PictorialConfig(rounds=count)
        name = PSM if count == 0 else f"{RPSM}, {count} rounds"
        found[name] = pictorial_poses(walks.heatmaps, walks.cameras, centre, lengths, HUMAN36M17, config).points
    peaks, height = heatmap_peaks(walks.heatmaps)
    matrices = walks.cameras.projections.double()[:, None]
    found[DLT] = triangulate(
        peaks.double().transpose(1, 2), matrices, height.double().transpose(1, 2), method=DltMethod.SVD
    ).points
    found[LIMIT] = refine(
        walks.joints, walks.pixels.transpose(1, 2), matrices, loss=RobustLoss.SQUARED, steps=20
    ).points
    return {
        name: 1000.0 * (points.double() - walks.joints).norm(dim=-1).mean(dim=1).numpy()
        for name, points in found.items()
    }


def _table(noise: float, walks: WalkMaps, errors: Mapping[str, Float[np.ndarray, " B"]]) -> dict[str, Estimate]:
    """Print and return the figures of one noise level."""
    rows = {name: mean_estimates(error[:, None], walks.person)[0] for name, error in errors.items()}
    print(f"\nnoise of {noise:g} px of {MAPS[0]}: error in mm (95 % interval over people)")
    for name, e in rows.items():
        print(f"{name:24}{e.mean:8.1f} ({e.low:.1f} to {e.high:.1f})")
    last = next((name for name in reversed(list(errors)) if name.startswith(RPSM)), None)
    if last is None:
        return rows
    ratios = {"reduction against PSM": (PSM, lambda mine, other: 1.0 - mine / other)} if PSM in errors else {}
    if noise > 0:
        ratios["above the most likely joints"] = (LIMIT, lambda mine, other: mine / other - 1.0)
    for what, (other, ratio) in ratios.items():
        of_people = [_by_person(errors[name], walks.person) for name in (last, other)]
        rows[what] = mean_estimates(ratio(*of_people)[:, None], sorted(set(walks.person)))[0]
        e = rows[what]
        print(f"{last}: {what}: {100 * e.mean:.1f} % ({100 * e.low:.1f} to {100 * e.high:.1f})")
    return rows


def _by_person(error: Float[np.ndarray, " B"], person: list[str]) -> Float[np.ndarray, " n"]:
    """Mean error of each person, in the order of their sorted names."""
    return np.array([error[np.array(person) == name].mean() for name in sorted(set(person))])

"""People found by association: crowds of standing people, each overlooked by all but two of the cameras.

The scenes are synthetic, a frame each, with default settings. A person is found if one body lies within 0.1 m of the
true joints; a body that is nobody, or a second one of the same person, is false.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass

import numpy as np

from mvpose.reconstruction.clip import ReconstructionConfig, reconstruct
from mvpose.scenes import Scene, standing

FOUND_M = 0.1


@dataclass(frozen=True, kw_only=True)
class AssociationBenchmark:
    """Share of people found and of false people, in crowds of people seen by two cameras or by all."""

    seeds: int = 40
    """Number of crowds of each kind."""
    json: str | None = None
    """Output file for the figures."""


@dataclass(frozen=True)
class Crowd:
    """A kind of crowd."""

    people: int
    apart_m: float
    noise_px: float
    cameras: int
    missed_by: int
    """Number of cameras that overlook each person, a different choice for each."""


CROWDS = [Crowd(4, 0.7, 3.0, cameras, missed) for cameras in (3, 4, 5) for missed in (0, cameras - 2)] + [
    Crowd(people, apart, noise, cameras, cameras - 2)
    for people, apart, noise in ((8, 0.5, 3.0), (4, 0.7, 5.0))
    for cameras in (3, 4, 5)
]


def run(config: AssociationBenchmark) -> list[dict[str, float]]:
    """Print one line per kind of crowd, and return the figures."""
    rows = []
    print(f"{'people':>6} {'apart m':>8} {'noise px':>9} {'cameras':>8} {'missed by':>10} {'found':>9} {'false':>9}")
    for crowd in CROWDS:
        found, false = shares(crowd, range(config.seeds))
        rows.append({**asdict(crowd), "found_share": found, "false_share": false})
        print(
            f"{crowd.people:6} {crowd.apart_m:8} {crowd.noise_px:9} {crowd.cameras:8} {crowd.missed_by:10} "
            f"{found:9.2%} {false:9.2%}",
            flush=True,
        )
    if config.json:
        with open(config.json, "w") as file:
            json.dump(rows, file, indent=1)
    return rows


def shares(crowd: Crowd, seeds: Iterable[int]) -> tuple[float, float]:
    """People found and false ones, relative to the people there are, over crowds with these seeds."""
    kind = {"people": crowd.people, "cameras": crowd.cameras, "missed_by": crowd.missed_by, "apart_m": crowd.apart_m}
    counts = [found_and_false(standing(seed=seed, **kind), crowd.noise_px) for seed in seeds]
    found, false = np.sum(counts, axis=0) / (len(counts) * crowd.people)
    return float(found), float(false)


def found_and_false(scene: Scene, noise_px: float) -> tuple[int, int]:
    """Number of people found in the first frame of a scene, and of false ones."""
    poses = reconstruct(scene.keypoints(noise_px), scene.rig, ReconstructionConfig(), scene.fps)
    apart = np.linalg.norm(scene.joints[0][:, None] - poses.xyz[0][None], axis=-1)
    near = np.nanmean(apart[:, np.isfinite(apart).any(axis=(0, 2))], axis=-1) < FOUND_M
    found = int(near.any(axis=1).sum())
    return found, near.shape[1] - found

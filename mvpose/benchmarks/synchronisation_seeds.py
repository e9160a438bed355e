"""How often synchronisation is misjudged: while somebody stands still, and for cameras truly out of step.

The detector's error is not white in time: each joint drifts, as those of real detectors do. Noise that drifts has a
minimum at some shift, too, where nobody moves.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from mvpose import scenes
from mvpose.quality.findings import CheckKind, Finding, PreflightConfig, Status
from mvpose.quality.preflight import preflight, sampled_runs
from mvpose.reconstruction.view_errors import keypoints_at
from mvpose.records import Keypoints2D

FRAMES, FPS = 301, 25.0
STILL = slice(101, 152)
OFFSETS = range(2, 21)
DRIFT_PX, MEMORY_FRAMES = 3.0, 25.0
"""Root mean square of the drift, and the frames after which it has forgotten itself."""
NEAR_FRAMES = 1.0


@dataclass(frozen=True, kw_only=True)
class SynchronisationBenchmark:
    """Judge synchronisation of synthetic takes before a detector that drifts."""

    seeds: int = 100
    """Takes of each kind."""


def run(config: SynchronisationBenchmark) -> None:
    """Judge and print."""
    still = [_worst(_judged(seed, 0, 0, still=True)) for seed in range(config.seeds)]
    failed = [seed for seed, status in enumerate(still) if status == Status.FAIL]
    warned = [seed for seed, status in enumerate(still) if status == Status.WARN]
    print(f"in step, somebody stands still: {len(failed)} of {config.seeds} fail {failed}, {len(warned)} warn {warned}")
    errors, named = [], 0
    for seed in range(config.seeds):
        view, late = seed % 4, OFFSETS[seed % len(OFFSETS)] * (-1) ** (seed // len(OFFSETS))
        found = _judged(seed, view, late, still=False)
        errors.append(abs(found[view].figures.get("offset_frames", np.nan) - late) if len(found) == 4 else np.nan)
        named += [f.status != Status.PASS for f in found] == [v == view for v in range(len(found))]
    near = int((np.array(errors) <= NEAR_FRAMES).sum())
    print(
        f"out of step by {OFFSETS[0]} to {OFFSETS[-1]} frames: {near} of {config.seeds} found to {NEAR_FRAMES:g} frame "
        f"(largest error {np.nanmax(errors):.2f}), {named} with that camera alone named"
    )


def _judged(seed: int, view: int, late: int, still: bool) -> list[Finding]:
    """The findings on synchronisation of a take in which one view is late."""
    scene = scenes.ring4(seed=seed, num_frames=FRAMES + abs(late))
    if still:
        joints = scene.joints.copy()
        joints[STILL] = joints[STILL.start]
        scene = replace(scene, joints=joints)
    drifted = drifting(scene.keypoints(noise_px=1.0), seed)
    frames = np.concatenate([np.array(part) for part in sampled_runs(FRAMES, PreflightConfig())])
    others, own = (keypoints_at(drifted, frames + max(shift, 0)) for shift in (late, -late))
    by_view = {name: getattr(others, name).copy() for name in ("xy", "confidence", "box", "box_score")}
    for name, values in by_view.items():
        values[view] = getattr(own, name)[view]
    keypoints = replace(others, **by_view)
    return list(preflight(keypoints, frames, scene.rig, FPS, PreflightConfig()).of(CheckKind.SYNCHRONISATION))


def _worst(found: list[Finding]) -> Status:
    return max((f.status for f in found), key=list(Status).index)


def drifting(keypoints: Keypoints2D, seed: int) -> Keypoints2D:
    """The same with a first-order drift of every joint in every view on top."""
    xy, kept = keypoints.xy.copy(), np.exp(-1.0 / MEMORY_FRAMES)
    steps = np.random.default_rng(seed).standard_normal(xy.shape)
    error = np.zeros_like(steps[:, 0])
    for t in range(xy.shape[1]):
        error = kept * error + np.sqrt(1.0 - kept**2) * steps[:, t]
        xy[:, t] += DRIFT_PX * error
    return replace(keypoints, xy=xy.astype(np.float32))

"""People before a detector whose error is not white in time: each joint drifts, as those of real detectors do."""

from dataclasses import replace

import numpy as np

from mvpose import scenes
from mvpose.reconstruction.preflight import PreflightConfig, sampled_runs
from mvpose.records import Keypoints2D
from mvpose.scenes import Scene
from tests.reconstruction.faults import seen_at

FRAMES = 301
# Root mean square of the drift, and the frames after which it has forgotten itself.
DRIFT_PX, MEMORY_FRAMES = 3.0, 25.0


def drifting(keypoints: Keypoints2D, seed: int) -> Keypoints2D:
    """The same with a first-order drift of every joint in every view on top."""
    xy, kept = keypoints.xy.copy(), np.exp(-1 / MEMORY_FRAMES)
    steps = np.random.default_rng(seed).standard_normal(xy.shape)
    error = np.zeros_like(steps[:, 0])
    for t in range(xy.shape[1]):
        error = kept * error + np.sqrt(1 - kept**2) * steps[:, t]
        xy[:, t] += DRIFT_PX * error
    return replace(keypoints, xy=xy.astype(np.float32))


def standing(scene: Scene, frames: range) -> Scene:
    """The same with everybody still in these frames."""
    joints = scene.joints.copy()
    joints[frames] = joints[frames.start]
    return replace(scene, joints=joints)


def sampled_take(scene: Scene, view: int = 0, late: int = 0) -> tuple[Keypoints2D, np.ndarray]:
    """What a check looks at of a take of `FRAMES` frames, in which one view is late, and the frames' numbers."""
    keypoints = drifting(scene.keypoints(noise_px=1.0), scene.seed)
    frames = np.concatenate([np.array(run) for run in sampled_runs(FRAMES, PreflightConfig())])
    shown = [frames + max(late, 0)] * len(scene.rig)
    shown[view] = frames + max(-late, 0)
    return seen_at(keypoints, shown), frames


def walk(seed: int, spare: int = 0) -> Scene:
    """One person walking before four cameras, with `spare` frames more for a view that is late."""
    return scenes.ring4(seed=seed, num_frames=FRAMES + spare)

"""People before a detector whose error is not white in time: each joint drifts, as those of real detectors do."""

from dataclasses import replace

import numpy as np

from mvpose import scenes
from mvpose.benchmarks.synchronisation_seeds import FRAMES, drifting
from mvpose.quality.preflight import PreflightConfig, sampled_runs
from mvpose.records import Keypoints2D
from mvpose.scenes import Scene
from tests.reconstruction.faults import seen_at


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

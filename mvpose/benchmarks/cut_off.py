"""Compare rules for 2D joints, of which images cut off some, by the 3D joints that follow from them."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Float, Int

from mvpose.benchmarks.detected_takes import DetectedTake, in_images
from mvpose.errors import NoPersonError
from mvpose.geometry.camera import CameraRig
from mvpose.quality.quality import quality
from mvpose.reconstruction.clip import ReconstructionConfig, reconstruct
from mvpose.records import Keypoints2D, Poses3D
from mvpose.rigs.adjust import AdjustmentConfig, adjust_extrinsics
from mvpose.run.run_folder import RunFolder
from mvpose.skeleton import BODY_JOINTS

Rule = Callable[[Keypoints2D, CameraRig], Keypoints2D]
WRONG_M = 0.1
SAME_PERSON_M = 0.3


@dataclass(frozen=True)
class JointFigures:
    """Body joints of rendered people in 3D."""

    joints: int
    """Joints in the images of at least two cameras, but not of all."""
    right: float
    """Share of these found, with an error of at most `WRONG_M`."""
    wrong: float
    """Share of those found with a larger error."""
    mean_mm: float
    """Error of those found."""
    complete_right: float
    """Share right of the joints in the images of all cameras."""
    complete_mean_mm: float
    unseen: float
    """Share found of the joints in the images of fewer than two cameras."""


def print_takes(takes: Sequence[DetectedTake], rules: Mapping[str, Rule]) -> dict[str, dict[str, float]]:
    """3D joints with all cameras of the takes, and without the last."""
    figures, cameras = {}, len(takes[0].rig)
    for views in (cameras, cameras - 1):
        for name, rule in rules.items():
            found = joint_figures([first_views(take, views) for take in takes], rule)
            figures[f"{name}, {views} cameras"] = vars(found)
            print(
                f"{views} cameras, {name:20} in some images ({found.joints} joints): right {found.right:.1%}  wrong "
                f"{found.wrong:.1%}  mean {found.mean_mm:.1f} mm | in all: right {found.complete_right:.1%}  mean "
                f"{found.complete_mean_mm:.1f} mm | in fewer than two: found {found.unseen:.1%}"
            )
    return figures


def joint_figures(takes: Sequence[DetectedTake], rule: Rule) -> JointFigures:
    """Figures of the 3D joints of all takes by one rule."""
    error = np.concatenate([errors_m(take, rule).ravel() for take in takes])
    images = np.concatenate([in_images(take)[1].sum(axis=0).ravel() for take in takes])
    cameras = len(takes[0].rig)
    some, complete = error[(images >= 2) & (images < cameras)], error[images == cameras]
    return JointFigures(
        joints=len(some),
        right=_mean(some <= WRONG_M),
        wrong=_mean(some[np.isfinite(some)] > WRONG_M),
        mean_mm=1000.0 * _mean(some[np.isfinite(some)]),
        complete_right=_mean(complete <= WRONG_M),
        complete_mean_mm=1000.0 * _mean(complete[np.isfinite(complete)]),
        unseen=_mean(np.isfinite(error[images < 2])),
    )


def _mean(values: np.ndarray) -> float:
    return float(values.mean()) if len(values) else math.nan


def errors_m(take: DetectedTake, rule: Rule) -> Float[np.ndarray, "T P J"]:
    """Errors of the joints of each person; NaN where they are missing, or nobody is near the person."""
    return errors_and_sigmas_m(take, rule)[0]


def errors_and_sigmas_m(
    take: DetectedTake, rule: Rule
) -> tuple[Float[np.ndarray, "T P J"], Float[np.ndarray, "T P J"]]:
    """`errors_m`, and what the same joints have for sigma."""
    people, missing = take.truth.shape[1], np.full(take.truth.shape[:3], np.nan)
    try:
        poses = reconstruct(rule(take.keypoints, take.rig), take.rig, ReconstructionConfig(), take.fps, people)
    except NoPersonError:
        return missing, missing
    body = poses.skeleton.indices(*BODY_JOINTS)
    nearest = nearest_people(poses, take.truth)
    joints = of_nearest(poses.xyz[:, :, body].astype(np.float64), nearest)
    return (
        np.linalg.norm(joints - take.truth, axis=-1),
        of_nearest(poses.sigma_mm[:, :, body] / 1000.0, nearest),
    )


def nearest_people(poses: Poses3D, truth: Float[np.ndarray, "T P J 3"]) -> Int[np.ndarray, "T P"]:
    """Which of the people found is nearest to each person, whose body joints are given; -1 where nobody is near."""
    found = poses.xyz[:, None, :, poses.skeleton.indices(*BODY_JOINTS)]
    distance = np.linalg.norm(found - truth[:, :, None], axis=-1)
    middle = np.ma.median(np.ma.masked_invalid(distance), axis=-1).filled(np.inf)
    if not middle.shape[2]:
        return np.full(middle.shape[:2], -1)
    return np.where(middle.min(axis=2) < SAME_PERSON_M, middle.argmin(axis=2), -1)


def of_nearest(
    values: Float[np.ndarray, "T K *rest"], nearest: Int[np.ndarray, "T P"]
) -> Float[np.ndarray, "T P *rest"]:
    """Values of the nearest people; NaN where there is none."""
    out = np.full((*nearest.shape, *values.shape[2:]), np.nan)
    frame, person = np.nonzero(nearest >= 0)
    out[frame, person] = values[frame, nearest[frame, person]]
    return out


def first_views(take: DetectedTake, views: int) -> DetectedTake:
    """The take as its first cameras see it."""
    by_view = ("xy", "confidence", "box", "box_score")
    kept = replace(take.keypoints, **{name: getattr(take.keypoints, name)[:views] for name in by_view})
    return replace(take, rig=take.rig.select(take.rig.names[:views]), keypoints=kept)


def print_run(folder: str, rules: Mapping[str, Rule]) -> None:
    """Figures of merit of each capture of a run, with the cameras as calibrated and adjusted."""
    run = RunFolder(folder)
    for plan in run.plans():
        keypoints, poses, capture = run.keypoints(plan), run.poses(plan), plan.capture
        if keypoints is None or poses is None:
            continue
        config, people = ReconstructionConfig(), len(poses.track_id)
        for name, rule in rules.items():
            changed = rule(keypoints, capture.rig)
            adjusted, _ = adjust_extrinsics(changed, capture.rig, AdjustmentConfig())
            for rig, cameras in ((capture.rig, "calibrated"), (adjusted, "adjusted")):
                made = reconstruct(changed, rig, config, capture.fps, people)
                found = quality(made, changed, rig, capture.fps, config).figures()
                print(
                    f"{capture.capture_id}, {cameras}, {name}: left-out {found['body_left_out_mean_px']:.2f} px, "
                    f"bone spread {found['body_bone_spread_share']:.2%}, joints {found['reconstructed_share']:.2%}"
                )

"""Figures of merit of reconstructed poses, from the poses, the 2D joints and the cameras; no ground truth is needed."""

from __future__ import annotations

import warnings
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Int

from mvpose.geometry.camera import CameraRig
from mvpose.reconstruction.reconstruct import ReconstructionConfig
from mvpose.reconstruction.view_errors import (
    ViewErrors,
    keypoints_at,
    leave_one_camera_out,
    poses_at,
    view_errors,
)
from mvpose.records import Keypoints2D, Poses3D
from mvpose.skeleton import BODY_JOINTS, Skeleton

# Leaving cameras out costs as many reconstructions as there are cameras; so many frames, evenly spread, are enough.
LEFT_OUT_FRAMES = 300
# No joint of a person moves faster; a sprinter's foot reaches 20 m/s.
FASTEST_M_S = 25.0


@dataclass(frozen=True, eq=False)
class Errors:
    """Mean and median of distances in pixels; NaN where there are none."""

    mean_px: float
    median_px: float

    @staticmethod
    def of(distances: Float[np.ndarray, "*n"]) -> Errors:
        """Over all distances that are not NaN."""
        there = distances[np.isfinite(distances)]
        return Errors(float(there.mean()), float(np.median(there))) if there.size else Errors(np.nan, np.nan)


@dataclass(frozen=True, eq=False)
class Quality:
    """How good the poses of a capture are. `body`: over the joints of `skeleton.BODY_JOINTS` that the skeleton has."""

    cameras: tuple[str, ...]
    skeleton: Skeleton
    body_used: Errors
    """Reprojection error of the views that the reconstruction kept."""
    body_all_views: Errors
    """Of every view that shows the person, kept or not."""
    body_left_out: Errors
    """Of views against what the others reconstruct without them, on up to `LEFT_OUT_FRAMES` frames."""
    body_used_mm: float
    """As `body_used`, mean, at the depth of each joint: an error in the pictures of any camera as one in the room."""
    body_left_out_mm: float
    used: Errors
    all_views: Errors
    body_views_used: float
    """Views that a reconstructed joint rests on, mean."""
    body_views_seen: float
    """Views that show it."""
    body_reconstructed_share: float
    """Of the joints of a person between the first and the last frame in which the person was found."""
    reconstructed_share: float
    frames_share: float
    """Frames in which anybody was found, of all."""
    swapped_share: float
    """Observations in which left and right were exchanged, of all that were used."""
    too_fast_share: float
    """Steps from frame to frame that no person can make (`FASTEST_M_S`), of all."""
    camera_used: tuple[Errors, ...]
    camera_used_mm: tuple[float, ...]
    camera_all_views: tuple[Errors, ...]
    camera_left_out: tuple[Errors, ...]
    camera_excluded_share: tuple[float, ...]
    """Joint by joint, how often a camera that shows a reconstructed joint was left out."""
    camera_unused_frames_share: tuple[float, ...]
    """Frames with a pose to which a camera contributes no joint."""
    joint_used: tuple[Errors, ...]
    joint_used_mm: tuple[float, ...]
    joint_all_views: tuple[Errors, ...]
    joint_reconstructed_share: tuple[float, ...]
    bone_length_m: tuple[float, ...]
    """Median over frames, mean over people."""
    bone_spread: tuple[float, ...]
    """Standard deviation over median, mean over people."""

    @property
    def body_bone_spread(self) -> float:
        """Mean spread of the bones between body joints (arms and legs)."""
        return _mean(np.array([s for s, b in zip(self.bone_spread, self.skeleton.bones, strict=True) if _in_body(b)]))

    def figures(self) -> dict[str, float]:
        """Everything as one flat dict; names end in their unit (px, mm, m, share) where they have one."""
        flat = {
            **_errors("body_used", self.body_used),
            **_errors("body_all_views", self.body_all_views),
            **_errors("body_left_out", self.body_left_out),
            **_errors("used", self.used),
            **_errors("all_views", self.all_views),
            "body_used_mean_mm": self.body_used_mm,
            "body_left_out_mean_mm": self.body_left_out_mm,
            "body_views_used": self.body_views_used,
            "body_views_seen": self.body_views_seen,
            "body_reconstructed_share": self.body_reconstructed_share,
            "reconstructed_share": self.reconstructed_share,
            "frames_share": self.frames_share,
            "body_bone_spread_share": self.body_bone_spread,
            "swapped_share": self.swapped_share,
            "too_fast_share": self.too_fast_share,
        }
        for v, camera in enumerate(self.cameras):
            flat |= _errors(f"camera/{camera}/used", self.camera_used[v])
            flat[f"camera/{camera}/used_mean_mm"] = self.camera_used_mm[v]
            flat |= _errors(f"camera/{camera}/all_views", self.camera_all_views[v])
            flat |= _errors(f"camera/{camera}/left_out", self.camera_left_out[v])
            flat[f"camera/{camera}/excluded_share"] = self.camera_excluded_share[v]
            flat[f"camera/{camera}/unused_frames_share"] = self.camera_unused_frames_share[v]
        for j, joint in enumerate(self.skeleton.joints):
            flat |= _errors(f"joint/{joint}/used", self.joint_used[j])
            flat[f"joint/{joint}/used_mean_mm"] = self.joint_used_mm[j]
            flat |= _errors(f"joint/{joint}/all_views", self.joint_all_views[j])
            flat[f"joint/{joint}/reconstructed_share"] = self.joint_reconstructed_share[j]
        for b, (parent, child) in enumerate(self.skeleton.bones):
            flat[f"bone/{parent}-{child}/length_m"] = self.bone_length_m[b]
            flat[f"bone/{parent}-{child}/spread_share"] = self.bone_spread[b]
        return flat


def quality(
    poses: Poses3D, keypoints: Keypoints2D, rig: CameraRig, fps: float, config: ReconstructionConfig | None = None
) -> Quality:
    """The figures of poses of one capture; `keypoints` has the same frames, `config` is the one that made the poses.

    Frames next to each other are taken for successive ones.
    """
    errors = view_errors(poses, keypoints, rig, config)
    some = np.unique(np.linspace(0, len(poses.xyz) - 1, LEFT_OUT_FRAMES).round().astype(int))
    left_out = leave_one_camera_out(poses_at(poses, some), keypoints_at(keypoints, some), rig, config)
    used_px = np.where(poses.views_used, errors.error_px, np.nan)
    used_mm, left_out_mm = used_px * errors.pixel_mm, left_out * errors.pixel_mm[some]
    body = [i for i, joint in enumerate(poses.skeleton.joints) if joint in BODY_JOINTS]
    there = _there(poses.xyz[..., 0])
    present = _present(there)
    in_body = there[:, :, body]
    lengths, spreads = _bones(poses)
    return Quality(
        cameras=rig.names,
        skeleton=poses.skeleton,
        body_used=Errors.of(used_px[:, :, body]),
        body_all_views=Errors.of(errors.error_px[:, :, body]),
        body_left_out=Errors.of(left_out[:, :, body]),
        body_used_mm=_mean(used_mm[:, :, body]),
        body_left_out_mm=_mean(left_out_mm[:, :, body]),
        used=Errors.of(used_px),
        all_views=Errors.of(errors.error_px),
        body_views_used=_mean(poses.num_views[:, :, body][in_body]),
        body_views_seen=_mean(_there(errors.error_px[:, :, body]).sum(axis=-1)[in_body]),
        body_reconstructed_share=_mean(in_body[present]),
        reconstructed_share=_mean(there[present]),
        frames_share=_mean(np.asarray(there.any(axis=(1, 2)))),
        swapped_share=_share(errors.swapped, poses.views_used),
        too_fast_share=_too_fast(poses.xyz, fps),
        camera_used=_each(used_px, 3),
        camera_used_mm=tuple(map(_mean, np.moveaxis(used_mm, 3, 0))),
        camera_all_views=_each(errors.error_px, 3),
        camera_left_out=_each(left_out, 3),
        camera_excluded_share=_excluded(poses, errors),
        camera_unused_frames_share=_unused_frames(poses),
        joint_used=_each(used_px, 2),
        joint_used_mm=tuple(map(_mean, np.moveaxis(used_mm, 2, 0))),
        joint_all_views=_each(errors.error_px, 2),
        joint_reconstructed_share=tuple(_mean(there[:, :, j][present]) for j in range(there.shape[2])),
        bone_length_m=lengths,
        bone_spread=spreads,
    )


def _errors(name: str, errors: Errors) -> dict[str, float]:
    return {f"{name}_mean_px": errors.mean_px, f"{name}_median_px": errors.median_px}


def _each(distances: Float[np.ndarray, "T P J V"], axis: int) -> tuple[Errors, ...]:
    return tuple(Errors.of(part) for part in np.moveaxis(distances, axis, 0))


def _mean(values: np.ndarray) -> float:
    there = values[np.isfinite(values)]
    return float(there.mean()) if there.size else np.nan


def _share(some: Bool[np.ndarray, "*n"], of: Bool[np.ndarray, "*n"]) -> float:
    return float((some & of).sum() / of.sum()) if of.any() else np.nan


def _there(values: Float[np.ndarray, "*n"]) -> Bool[np.ndarray, "*n"]:
    return np.asarray(np.isfinite(values))


def _present(there: Bool[np.ndarray, "T P J"]) -> Bool[np.ndarray, "T P"]:
    """From the first to the last frame in which a person has any joint."""
    found = np.asarray(there.any(axis=-1))
    return np.maximum.accumulate(found, axis=0) & np.maximum.accumulate(found[::-1], axis=0)[::-1]


def _excluded(poses: Poses3D, errors: ViewErrors) -> tuple[float, ...]:
    seen = _there(errors.error_px)
    return tuple(_share(~poses.views_used[..., v], seen[..., v]) for v in range(seen.shape[-1]))


def _unused_frames(poses: Poses3D) -> tuple[float, ...]:
    posed = np.asarray(_there(poses.xyz[..., 0]).any(axis=-1))
    used = np.asarray(poses.views_used.any(axis=2))
    return tuple(_share(~used[..., v], posed) for v in range(used.shape[-1]))


def _too_fast(xyz: Float[np.ndarray, "T P J 3"], fps: float) -> float:
    speed = np.linalg.norm(np.diff(xyz, axis=0), axis=-1) * fps
    return _share(speed > FASTEST_M_S, _there(speed))


def _bones(poses: Poses3D) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Length in metres and relative spread of each bone, people averaged."""
    bones: Int[np.ndarray, "B 2"] = np.array(poses.skeleton.bone_indices, int).reshape(-1, 2)
    length = np.linalg.norm(poses.xyz[:, :, bones[:, 0]] - poses.xyz[:, :, bones[:, 1]], axis=-1)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # a bone that was never seen is NaN
        median = np.nanmedian(length, axis=0)
        spread = np.nanstd(length, axis=0) / median
    return tuple(_mean(m) for m in median.T), tuple(_mean(s) for s in spread.T)


def _in_body(bone: tuple[str, str]) -> bool:
    return bone[0] in BODY_JOINTS and bone[1] in BODY_JOINTS

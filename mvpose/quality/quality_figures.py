"""The figures of merit of a capture's poses, and their names in tables."""

from __future__ import annotations

import math
from dataclasses import dataclass

from mvpose.skeleton import BODY_JOINTS, Skeleton


@dataclass(frozen=True, eq=False)
class Errors:
    """Mean and median of distances in pixels; NaN if there are none."""

    mean_px: float
    median_px: float


@dataclass(frozen=True, eq=False)
class Quality:
    """Figures of merit of a capture's poses. `body`: over the joints of `skeleton.BODY_JOINTS` in the skeleton."""

    cameras: tuple[str, ...]
    skeleton: Skeleton
    body_used: Errors
    """Reprojection error of the views that the reconstruction used."""
    body_all_views: Errors
    """Reprojection error of all views that show the person, used or not."""
    body_left_out: Errors
    """Error of views against the reconstruction without them, on the frames `quality.judged_frames`."""
    body_used_mm: float
    """Mean of `body_used`, converted to millimetres at the depth of each joint."""
    body_left_out_mm: float
    body_sigma_mm: float
    """Median of `Poses3D.sigma_mm`; NaN where it is not known."""
    used: Errors
    all_views: Errors
    body_views_used: float
    """Mean number of views used for a reconstructed joint."""
    body_views_seen: float
    """Mean number of views that show it."""
    body_reconstructed_share: float
    """Fraction of a person's joints in the frames in which the person was found."""
    reconstructed_share: float
    present_share: float
    """Fraction of the frames in which a person was found, from the first to the last, over all people."""
    frames_share: float
    """Fraction of frames with at least one person."""
    swapped_share: float
    """Fraction of the used observations in which left and right were exchanged."""
    second_look_share: float
    """Fraction of the detections in all views that a second look found (see `records.SECOND_LOOK`)."""
    too_fast_share: float
    """Fraction of steps between frames that are too fast for a person (`quality.FASTEST_M_S`)."""
    error_limit_px: float
    """The reconstruction's `max_error` in pixels, mean over frames, people and the views that show them."""
    camera_used: tuple[Errors, ...]
    camera_used_mm: tuple[float, ...]
    camera_all_views: tuple[Errors, ...]
    camera_left_out: tuple[Errors, ...]
    camera_excluded_share: tuple[float, ...]
    """Fraction of reconstructed joints that a camera shows but that were computed without it."""
    camera_unused_frames_share: tuple[float, ...]
    """Fraction of poses to which a camera contributes no joint."""
    camera_error_limit_px: tuple[float, ...]
    joint_used: tuple[Errors, ...]
    joint_used_mm: tuple[float, ...]
    joint_all_views: tuple[Errors, ...]
    joint_sigma_mm: tuple[float, ...]
    joint_reconstructed_share: tuple[float, ...]
    bone_length_m: tuple[float, ...]
    """Median over frames, mean over people."""
    bone_spread: tuple[float, ...]
    """Standard deviation over median, mean over people."""

    @property
    def body_bone_spread(self) -> float:
        """Mean spread of the bones between body joints (arms and legs)."""
        spreads = [s for s, bone in zip(self.bone_spread, self.skeleton.bones, strict=True) if _in_body(bone)]
        there = [s for s in spreads if math.isfinite(s)]
        return sum(there) / len(there) if there else math.nan

    @property
    def body_asymmetry(self) -> float:
        """Mean relative difference between the left and the right of the bones between body joints; NaN without any."""
        length = dict(zip(self.skeleton.bones, self.bone_length_m, strict=True))
        sides = [((a, b), (_right(a), _right(b))) for a, b in length if _in_body((a, b))]
        pairs = [(length[left], length[right]) for left, right in sides if left != right and right in length]
        there = [2 * abs(a - b) / (a + b) for a, b in pairs if math.isfinite(a + b)]
        return sum(there) / len(there) if there else math.nan

    def figures(self) -> dict[str, float]:
        """All figures as a flat dict; names end in their unit (px, mm, m, share) if they have one."""
        flat = {
            **_errors("body_used", self.body_used),
            **_errors("body_all_views", self.body_all_views),
            **_errors("body_left_out", self.body_left_out),
            **_errors("used", self.used),
            **_errors("all_views", self.all_views),
            "body_used_mean_mm": self.body_used_mm,
            "body_left_out_mean_mm": self.body_left_out_mm,
            "body_sigma_median_mm": self.body_sigma_mm,
            "body_views_used": self.body_views_used,
            "body_views_seen": self.body_views_seen,
            "body_reconstructed_share": self.body_reconstructed_share,
            "reconstructed_share": self.reconstructed_share,
            "present_share": self.present_share,
            "frames_share": self.frames_share,
            "body_bone_spread_share": self.body_bone_spread,
            "body_bone_asymmetry_share": self.body_asymmetry,
            "swapped_share": self.swapped_share,
            "views_found_by_second_look_share": self.second_look_share,
            "too_fast_share": self.too_fast_share,
            "error_limit_px": self.error_limit_px,
        }
        for v, camera in enumerate(self.cameras):
            flat |= _errors(f"camera/{camera}/used", self.camera_used[v])
            flat[f"camera/{camera}/used_mean_mm"] = self.camera_used_mm[v]
            flat |= _errors(f"camera/{camera}/all_views", self.camera_all_views[v])
            flat |= _errors(f"camera/{camera}/left_out", self.camera_left_out[v])
            flat[f"camera/{camera}/excluded_share"] = self.camera_excluded_share[v]
            flat[f"camera/{camera}/unused_frames_share"] = self.camera_unused_frames_share[v]
            flat[f"camera/{camera}/error_limit_px"] = self.camera_error_limit_px[v]
        for j, joint in enumerate(self.skeleton.joints):
            flat |= _errors(f"joint/{joint}/used", self.joint_used[j])
            flat[f"joint/{joint}/used_mean_mm"] = self.joint_used_mm[j]
            flat |= _errors(f"joint/{joint}/all_views", self.joint_all_views[j])
            flat[f"joint/{joint}/sigma_median_mm"] = self.joint_sigma_mm[j]
            flat[f"joint/{joint}/reconstructed_share"] = self.joint_reconstructed_share[j]
        for b, (parent, child) in enumerate(self.skeleton.bones):
            flat[f"bone/{parent}-{child}/length_m"] = self.bone_length_m[b]
            flat[f"bone/{parent}-{child}/spread_share"] = self.bone_spread[b]
        return flat


def _errors(name: str, errors: Errors) -> dict[str, float]:
    return {f"{name}_mean_px": errors.mean_px, f"{name}_median_px": errors.median_px}


def _right(joint: str) -> str:
    return joint.replace("left_", "right_")


def _in_body(bone: tuple[str, str]) -> bool:
    return bone[0] in BODY_JOINTS and bone[1] in BODY_JOINTS

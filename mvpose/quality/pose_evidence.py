"""What a camera's misfit speaks for: its calibration, or joints that its image cuts off or that something covers.

A wrong calibration is off for all joints, at all times and everywhere in the image. A joint that is cut off or covered
is guessed by the detector: those are some joints, some frames, or the border of the image.
"""

from __future__ import annotations

from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor

from mvpose.geometry.camera import CameraRig
from mvpose.quality.sightings import Sightings, misfit_px

# Width of the border of an image, as a share of its shorter side.
BORDER = 0.05
# A wrong calibration affects at least this share of joints, and of frames. With any camera of the single-person demo
# turned by 1.5 to 4 degrees, all 12 joints and all frames are off.
WIDESPREAD = 2.0 / 3.0
# The border decides if its misfit is larger than that elsewhere by this factor, and the rest is within the limit.
CONCENTRATED = 2.0
MAX_NAMED = 4


@dataclass(frozen=True, kw_only=True)
class PoseEvidence:
    """How the misfit of a camera is spread. A joint or frame is off if its median misfit is above the limit."""

    limit_px: float
    joints: tuple[str, ...]
    """Joints that the camera shows and the others predict."""
    joints_off: tuple[str, ...]
    frames: int
    """Number of frames with such joints."""
    frames_off: int
    border_px: float
    """Median misfit near the border of the image; NaN if it shows no joints."""
    inside_px: float

    @property
    def at_border(self) -> bool:
        """Whether only joints near the border of the image are off."""
        return self.inside_px <= self.limit_px and self.border_px > CONCENTRATED * self.inside_px

    @property
    def of_some_joints(self) -> bool:
        """Whether only some joints are off."""
        return len(self.joints_off) < WIDESPREAD * len(self.joints)

    @property
    def of_some_frames(self) -> bool:
        """Whether most joints are off, but only part of the time."""
        return self.frames_off < WIDESPREAD * self.frames

    @property
    def of_detections(self) -> bool:
        """Whether the misfit is that of wrongly detected joints, and not of a camera."""
        return self.at_border or self.of_some_joints

    def figures(self) -> dict[str, float]:
        """Figures of a finding, by name."""
        return {
            "joints": float(len(self.joints)),
            "joints_off": float(len(self.joints_off)),
            "frames": float(self.frames),
            "frames_off": float(self.frames_off),
            "border_misfit_px": self.border_px,
            "inside_misfit_px": self.inside_px,
        }

    def __str__(self) -> str:
        when = f"{self.frames_off} of {self.frames} frames" if self.frames > 1 else "the one instant that was checked"
        spread = f"{len(self.joints_off)} of {len(self.joints)} joints are off, in {when}"
        if self.at_border:
            return (
                f"joints near the image border are off by {self.border_px:.0f} px, others by {self.inside_px:.0f} px: "
                "people are cut off by the image, which says nothing against the calibration"
            )
        if self.of_some_joints:
            named = ", ".join(joint.replace("_", " ") for joint in self.joints_off[:MAX_NAMED])
            some = f" ({named})" if named else ""
            return f"{spread}{some}: these are covered or wrongly detected, which says nothing against the calibration"
        if self.of_some_frames:
            return f"{spread}: something covers the people there, or the camera was moved or out of step"
        return f"{spread}: this speaks for a wrong calibration"


def pose_evidence(sightings: Sightings, rig: CameraRig, view: int, limit_share: float) -> PoseEvidence:
    """How a view's misfit against the other cameras is spread; the limit is a share of the people's height."""
    misfit = misfit_px(sightings, rig, view)
    limit = limit_share * float(sightings.person_px[view])
    by_joint = misfit.flatten(0, 1).nanmedian(dim=0).values
    by_frame = misfit.flatten(1).nanmedian(dim=1).values
    known = [joint for joint, px in zip(sightings.skeleton.joints, by_joint.tolist(), strict=True) if px == px]
    off = [joint for joint, px in zip(sightings.skeleton.joints, by_joint.tolist(), strict=True) if px > limit]
    near = _near_border(sightings.ideal[..., view, :], rig.size[view])
    return PoseEvidence(
        limit_px=limit,
        joints=tuple(known),
        joints_off=tuple(off),
        frames=int(by_frame.isfinite().sum()),
        frames_off=int((by_frame > limit).sum()),
        border_px=float(misfit[near].nanmedian()) if near.any() else float("nan"),
        inside_px=float(misfit[~near].nanmedian()) if (~near).any() else float("nan"),
    )


def _near_border(pixels: Float[Tensor, "*n 2"], size: Tensor) -> Tensor:
    margin = BORDER * float(size.min())
    return ((pixels < margin) | (pixels > size - 1 - margin)).any(dim=-1)

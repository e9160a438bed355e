"""Settings for importing 2D joints."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import ClassVar

from mvpose.confidence import AS_STATED, ConfidenceScale
from mvpose.config import digest, flatten
from mvpose.errors import ConfigError
from mvpose.footage.archive_settings import UpAxis
from mvpose.geometry import Unit
from mvpose.models.detection.cards import read_card
from mvpose.skeleton import BODY25, SKELETONS, Skeleton
from mvpose.storage.locations import absolute

READERS_VERSION = 2
"""To be increased when the readers interpret the same files differently: 2D joints are then imported again."""

OPENPOSE = ConfidenceScale(likelihood=((0.0, 0.0), (0.1, 0.3), (1.0, 1.0)))
"""Not fitted, for lack of its network. On footage with ground truth, a threshold of 0.1 instead of 0.3 raises the share
of people found by two cameras from 84 to 93 %. The straight lines beside this point are a guess."""
SCALES = ("openpose", "rtmpose", "likelihood")


def named_scale(name: str) -> ConfidenceScale:
    """The confidence scale of one of `SCALES`."""
    if name == "rtmpose":
        return read_card("rtmpose_s_halpe26").confidence
    return OPENPOSE if name == "openpose" else AS_STATED


def stated_scale(pairs: tuple[str, ...]) -> ConfidenceScale:
    """The scale of pairs CONFIDENCE=LIKELIHOOD, from (0, 0) on. Raises ConfigError if one is not of this form."""
    points = []
    for pair in pairs:
        confidence, _, likelihood = pair.partition("=")
        try:
            points.append((float(confidence), float(likelihood)))
        except ValueError as error:
            raise ConfigError(
                f"confidence_scale: {pair} is none of {', '.join(SCALES)}, and not of the form CONFIDENCE=LIKELIHOOD."
            ) from error
    return ConfidenceScale(likelihood=((0.0, 0.0), *points))


@dataclass(frozen=True, kw_only=True)
class KeypointImport:
    """Import 2D joints of another tool, one sequence per camera, instead of running a detector."""

    format: ClassVar[str]

    calibration: str = ""
    """Calibration of the cameras. Default: found as in an archive, in a folder `calibration` next to the joints or
    above them."""
    unit: Unit | None = None
    """Override the calibration's unit."""
    up: UpAxis | None = None
    """Override the calibration's up axis (in its world frame)."""
    fps: float | None = None
    """Frames per second; required if no footage states it."""
    first_frame: int | None = None
    """Number of the frame that becomes frame 0. By default, frames keep their numbers."""
    skeleton: str = ""
    """Skeleton of the joints, by its name in mvpose. Default: detected from the files."""
    confidence_scale: tuple[str, ...] = ()
    """What the confidence in the files means: openpose, rtmpose, likelihood (of a joint within 4 % of the person's size
    from its place), or pairs CONFIDENCE=LIKELIHOOD such as 0.1=0.3 1=0.98. Default: openpose for JSON of 25 joints,
    rtmpose for other JSON, likelihood for DeepLabCut and SLEAP."""
    videos: str = ""
    """Folder with the footage in which the joints were found, used only for the overlays of `mvpose view`. Default: the
    footage next to the joints, if there is any."""

    def __post_init__(self) -> None:
        if self.skeleton and self.skeleton not in SKELETONS:
            raise ConfigError(f"unknown skeleton {self.skeleton!r}; available: {', '.join(SKELETONS)}.")
        if self.fps is not None and not 0.0 < self.fps < 1e6:
            raise ConfigError(f"fps is {self.fps:g}; it must be a positive number.")
        if self.first_frame is not None and self.first_frame < 0:
            raise ConfigError(f"first_frame is {self.first_frame}; it must not be negative.")
        if self.confidence_scale and " ".join(self.confidence_scale) not in SCALES:
            stated_scale(self.confidence_scale)

    def scale_name(self, skeleton: Skeleton) -> str:
        """The scale of joints of this skeleton, as stated or by default."""
        if self.confidence_scale:
            return " ".join(self.confidence_scale)
        if self.format not in ("openpose", "pose2sim"):
            return "likelihood"
        return "openpose" if skeleton == BODY25 else "rtmpose"

    def scale(self, skeleton: Skeleton) -> ConfidenceScale:
        """What the confidence of joints of this skeleton means."""
        name = self.scale_name(skeleton)
        return named_scale(name) if name in SCALES else stated_scale(self.confidence_scale)

    @property
    def named_skeleton(self) -> Skeleton | None:
        """The requested joint set."""
        return SKELETONS.get(self.skeleton)

    @property
    def joint_names(self) -> Mapping[str, str]:
        """New names for joints of the files."""
        return {}

    @property
    def located(self) -> KeypointImport:
        """A copy with absolute locations."""
        locations = {"calibration": self.calibration, "videos": self.videos}
        return replace(self, **{name: absolute(uri) for name, uri in locations.items() if uri})

    @property
    def settings(self) -> dict[str, object]:
        """The flat settings stored in a run. The calibration is represented by its content, in the catalogue."""
        stated = flatten(self.located, "imported.")
        del stated["imported.calibration"]
        return {"imported": self.format, **stated}

    @property
    def digest(self) -> str:
        """Digest of everything that the 2D joints depend on except the content of the files."""
        return digest(
            "imported", self.format, READERS_VERSION, self.first_frame, self.skeleton, self.joint_names,
            self.confidence_scale, [named_scale(name) for name in SCALES],
        )  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class OpenPoseImport(KeypointImport):
    """OpenPose JSON: one folder per camera (`cam01_json/cam01_000000000012_keypoints.json` is frame 12)."""

    format: ClassVar[str] = "openpose"


@dataclass(frozen=True, kw_only=True)
class Pose2SimImport(KeypointImport):
    """Pose2Sim projects. As in Pose2Sim, each trial uses `pose-associated`, else `pose-sync`, else `pose`."""

    format: ClassVar[str] = "pose2sim"


@dataclass(frozen=True, kw_only=True)
class TableImport(KeypointImport):
    """One file per camera, with named joints."""

    joints: tuple[str, ...] = ()
    """Rename joints of the files: tail=right_wrist."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if wrong := [pair for pair in self.joints if pair.count("=") != 1 or not all(pair.split("="))]:
            raise ConfigError(f"joints: {', '.join(wrong)} is not of the form FROM=TO.")

    @property
    def joint_names(self) -> Mapping[str, str]:
        """New names for joints of the files."""
        return dict(pair.split("=") for pair in self.joints)


@dataclass(frozen=True, kw_only=True)
class DeepLabCutImport(TableImport):
    """DeepLabCut h5 or csv: one file per camera."""

    format: ClassVar[str] = "deeplabcut"


@dataclass(frozen=True, kw_only=True)
class SleapImport(TableImport):
    """SLEAP analysis h5: one file per camera."""

    format: ClassVar[str] = "sleap"

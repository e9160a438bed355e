"""What a user can say of 2D joints that are imported."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import ClassVar

from mvpose.archive.calibration import Unit, UpAxis
from mvpose.archive.locations import absolute
from mvpose.config import digest, flatten
from mvpose.errors import ConfigError
from mvpose.skeleton import SKELETONS, Skeleton

READERS_VERSION = 1
"""To be raised when the readers make something else of the same files: 2D joints are then imported again."""


@dataclass(frozen=True, kw_only=True)
class KeypointImport:
    """2D joints that another tool found, one sequence a camera, in place of a detector."""

    format: ClassVar[str]

    calibration: str = ""
    """Calibration of the cameras, whose pixels the joints are in; without it the one found as in an archive, in a
    folder `calibration` beside the joints or above them."""
    unit: Unit | None = None
    """Unit of the calibration, over what it states."""
    up: UpAxis | None = None
    """Axis of the calibration's world that points up, over what it states."""
    fps: float | None = None
    """Frames per second; needed where no footage states it."""
    first_frame: int | None = None
    """Number of the frame that becomes frame 0. Without it frames keep their numbers."""
    skeleton: str = ""
    """Joint set, by its name in mvpose; without it the one that the files show."""
    videos: str = ""
    """Folder with the footage that the joints were found in, for the overlays of `mvpose view` alone; without it the
    one that is beside the joints, if there is any."""

    def __post_init__(self) -> None:
        if self.skeleton and self.skeleton not in SKELETONS:
            raise ConfigError(f"there is no skeleton {self.skeleton!r}; there are {', '.join(SKELETONS)}.")
        if self.fps is not None and not 0.0 < self.fps < 1e6:
            raise ConfigError(f"fps is {self.fps:g}, and a positive number of frames per second is needed.")
        if self.first_frame is not None and self.first_frame < 0:
            raise ConfigError(f"first_frame is {self.first_frame}, and frames are counted from 0.")

    @property
    def named_skeleton(self) -> Skeleton | None:
        """The joint set that was asked for."""
        return SKELETONS.get(self.skeleton)

    @property
    def joint_names(self) -> Mapping[str, str]:
        """The joints of the files that are to have other names."""
        return {}

    @property
    def located(self) -> KeypointImport:
        """With absolute locations."""
        locations = {"calibration": self.calibration, "videos": self.videos}
        return replace(self, **{name: absolute(uri) for name, uri in locations.items() if uri})

    @property
    def settings(self) -> dict[str, object]:
        """What a run remembers, flat; of the calibration its content counts, which is in the catalogue."""
        told = flatten(self.located, "imported.")
        del told["imported.calibration"]
        return {"imported": self.format, **told}

    @property
    def digest(self) -> str:
        """Of what the 2D joints depend on besides the content of the files."""
        return digest("imported", self.format, READERS_VERSION, self.first_frame, self.skeleton, self.joint_names)


@dataclass(frozen=True, kw_only=True)
class OpenPoseImport(KeypointImport):
    """OpenPose JSON, a folder a camera (`cam01_json/cam01_000000000012_keypoints.json` is frame 12)."""

    format: ClassVar[str] = "openpose"


@dataclass(frozen=True, kw_only=True)
class Pose2SimImport(KeypointImport):
    """Pose2Sim projects: of each trial `pose-associated`, else `pose-sync`, else `pose`, as Pose2Sim itself does."""

    format: ClassVar[str] = "pose2sim"


@dataclass(frozen=True, kw_only=True)
class TableImport(KeypointImport):
    """One file a camera, which names its joints."""

    joints: tuple[str, ...] = ()
    """Joints of the files that are to have other names: tail=right_wrist."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if wrong := [pair for pair in self.joints if pair.count("=") != 1 or not all(pair.split("="))]:
            raise ConfigError(f"joints: {', '.join(wrong)} is not of the form FROM=TO.")

    @property
    def joint_names(self) -> Mapping[str, str]:
        """The joints of the files that are to have other names."""
        return dict(pair.split("=") for pair in self.joints)


@dataclass(frozen=True, kw_only=True)
class DeepLabCutImport(TableImport):
    """DeepLabCut's h5 or csv, a file a camera."""

    format: ClassVar[str] = "deeplabcut"


@dataclass(frozen=True, kw_only=True)
class SleapImport(TableImport):
    """SLEAP's analysis h5, a file a camera."""

    format: ClassVar[str] = "sleap"

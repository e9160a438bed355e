"""`mvpose import openpose|pose2sim|deeplabcut|sleap`: the batch job on 2D joints that another tool found."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated

import tyro

from mvpose.archive.catalogue import CatalogueConfig
from mvpose.archive.keypoint_import import (
    DeepLabCutImport,
    OpenPoseImport,
    Pose2SimImport,
    SleapImport,
)
from mvpose.commands.reconstruct import Reconstruct, run_job
from mvpose.errors import ConfigError
from mvpose.models.detector import DetectorConfig


@dataclass(frozen=True, kw_only=True)
class _Import(Reconstruct):
    archive: tyro.conf.Positional[str] = ""
    """Folder or s3:// URI with the 2D joints."""
    catalogue: tyro.conf.Suppress[CatalogueConfig] = field(default_factory=CatalogueConfig)
    detector: tyro.conf.Suppress[DetectorConfig] = field(default_factory=DetectorConfig)
    model: tyro.conf.Suppress[str] = ""


@dataclass(frozen=True, kw_only=True)
class OpenPose(_Import):
    """Reconstruct from OpenPose JSON: in the folder, or in each of its folders of trials, a folder for each camera.

    The number in a file's name is its frame. Joint sets of 17 (coco17), 25 (body25) and 26 (halpe26) are recognised.
    """

    imported: Annotated[OpenPoseImport, tyro.conf.arg(name="")] = field(default_factory=OpenPoseImport)


@dataclass(frozen=True, kw_only=True)
class Pose2Sim(_Import):
    """Reconstruct from a Pose2Sim project: of each trial `pose-associated`, else `pose-sync`, else `pose`."""

    imported: Annotated[Pose2SimImport, tyro.conf.arg(name="")] = field(default_factory=Pose2SimImport)


@dataclass(frozen=True, kw_only=True)
class DeepLabCut(_Import):
    """Reconstruct from DeepLabCut's h5 or csv, a file for each camera. The index of a table is the frame."""

    imported: Annotated[DeepLabCutImport, tyro.conf.arg(name="")] = field(default_factory=DeepLabCutImport)


@dataclass(frozen=True, kw_only=True)
class Sleap(_Import):
    """Reconstruct from SLEAP's analysis h5, a file for each camera."""

    imported: Annotated[SleapImport, tyro.conf.arg(name="")] = field(default_factory=SleapImport)


Import = (
    Annotated[OpenPose, tyro.conf.subcommand("openpose")]
    | Annotated[Pose2Sim, tyro.conf.subcommand("pose2sim")]
    | Annotated[DeepLabCut, tyro.conf.subcommand("deeplabcut")]
    | Annotated[Sleap, tyro.conf.subcommand("sleap")]
)


def run(command: OpenPose | Pose2Sim | DeepLabCut | Sleap) -> int:
    """Exit code as of `mvpose reconstruct`."""
    imported = command.imported
    if not command.archive or not command.output:
        raise ConfigError(
            "say where the 2D joints are and which output: "
            f"mvpose import {imported.format} FOLDER --calibration FILE --output OUT"
        )
    return run_job(command, f"Reconstructing from the 2D joints in {command.archive}", f"found by {imported.format}")

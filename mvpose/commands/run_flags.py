"""The flags of the verbs about archives and runs. They import nothing heavy, so that `--help` is there at once."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated, Literal

import tyro

from mvpose.exchange.keypoints.import_config import (
    DeepLabCutImport,
    KeypointImport,
    OpenPoseImport,
    Pose2SimImport,
    SleapImport,
)
from mvpose.footage.archive_settings import CatalogueConfig
from mvpose.models.detection.detector_settings import DetectorConfig
from mvpose.pipeline.engine import EngineConfig
from mvpose.pipeline.job_settings import ReconstructJob
from mvpose.quality.findings import PreflightConfig
from mvpose.report.report_settings import RecordingConfig, ReportConfig
from mvpose.tracking import TrackingConfig

RECONSTRUCTION = (
    "--output",
    "--adjust-extrinsics",
    "--filtered",
    "--filtering.smoothing",
    "--filtering.cutoff-hz",
    "--reconstruction.max-people",
    "--retry-failed",
    "--replan",
    "--dry-run",
    "--local",
    "--address",
    "--workers",
)
COMMON = {
    "reconstruct": (
        *RECONSTRUCTION,
        "--model",
        "--catalogue.unit",
        "--catalogue.fps",
        "--detector.device",
        "--gpus-per-worker",
    ),
    "import": (*RECONSTRUCTION, "--calibration", "--unit", "--fps", "--first-frame", "--videos"),
}
"""The flags that most users need, by verb: `--help` shows these, `--help-all` all."""


@dataclass(frozen=True, kw_only=True)
class Index:
    """List the captures of an archive and what is wrong with them."""

    archive: tyro.conf.Positional[str] = ""
    """Folder or s3:// URI with the captures."""
    output: str | None = None
    """Parquet file for the catalogue, one row a capture and camera. Where it is there already, only videos that are
    new or changed since (size and time, or ETag) are opened."""
    full: bool = False
    """Open every video again, whatever the catalogue that is there says."""
    catalogue: CatalogueConfig = field(default_factory=CatalogueConfig)


@dataclass(frozen=True, kw_only=True)
class Check:
    """Look at some frames of every capture: names, synchronisation, cameras, scale and floor."""

    archive: tyro.conf.Positional[str] = ""
    """Folder or s3:// URI with the captures."""
    captures: tuple[str, ...] = ()
    """Only these; without it all."""
    output: str | None = None
    """JSON file for all findings with their figures."""
    verbose: bool = False
    """Tell what passes too."""
    catalogue: CatalogueConfig = field(default_factory=CatalogueConfig)
    detector: DetectorConfig = field(default_factory=DetectorConfig)
    preflight: PreflightConfig = field(default_factory=PreflightConfig)


@dataclass(frozen=True, kw_only=True)
class Reconstruct(ReconstructJob):
    """Reconstruct 3D poses from an archive of calibrated, synchronised multi-view footage."""

    archive: tyro.conf.Positional[str] = ""
    """Folder or s3:// URI with the captures."""
    output: str = ""
    """Run folder or s3:// URI. Run the same command again to go on after an interruption."""
    imported: Annotated[KeypointImport | None, tyro.conf.Suppress] = None
    engine: Annotated[EngineConfig, tyro.conf.arg(name="")] = field(default_factory=EngineConfig)
    dry_run: bool = False
    """Say what would be done, and do nothing."""


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


@dataclass(frozen=True, kw_only=True)
class View:
    """Make overlays, plots and a summary page of finished runs, and an index of their captures, worst first."""

    run: tyro.conf.Positional[tuple[str, ...]] = ()
    """Outputs of `mvpose reconstruct`, one or several."""
    output: str | None = None
    """Where the images and the index go; without it the folder `view` (or `view_filtered`) of the run. The pages of
    several runs go to their own folders, and the index of all goes here."""
    filtered: bool = False
    """Show the filtered poses, not the raw ones."""
    report: ReportConfig = field(default_factory=ReportConfig)
    tracking: TrackingConfig = field(default_factory=TrackingConfig)


PoseFormat = Literal["trc", "c3d", "csv_long", "csv_wide", "bvh", "pose2sim", "anipose", "nwb"]


CameraFormat = Literal[
    "openpose_json",
    "calibration_pose2sim",
    "calibration_anipose",
    "calibration_easymocap",
    "calibration_opencv",
    "calibration_panoptic",
]


@dataclass(frozen=True, kw_only=True)
class Export:
    """Write the poses of a run in the formats of other tools."""

    run: tyro.conf.Positional[str] = ""
    """Output of `mvpose reconstruct`."""
    format: tuple[PoseFormat | CameraFormat, ...] = ("trc",)
    """One or several; those of poses go to `raw/` (and `filtered/`), those of cameras beside them."""
    output: str | None = None
    """Where the files go, a folder a capture; without it the folder `export` of the run."""
    captures: tuple[str, ...] = ()
    """Only these; without it all of the run."""
    filtered: bool = False
    """Write the run's filtered poses beside the raw ones; how they are filtered is a setting of `reconstruct`."""


@dataclass(frozen=True, kw_only=True)
class Record:
    """Write captures of a run as Rerun recordings (.rrd), to be opened with `rerun FILE`."""

    run: tyro.conf.Positional[str] = ""
    """Output of `mvpose reconstruct`."""
    output: str | None = None
    """Where the recordings go; without it the folder `recordings` (or `recordings_filtered`) of the run."""
    captures: tuple[str, ...] = ()
    """Only these; without it all of the run."""
    filtered: bool = False
    """Record the filtered poses, not the raw ones."""
    recording: RecordingConfig = field(default_factory=RecordingConfig)

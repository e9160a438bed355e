"""Flags of the verbs for archives and runs. Nothing heavy is imported, so `--help` is fast."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated

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
from mvpose.pipeline.job_settings import AUTO, ReconstructJob
from mvpose.quality.findings import PreflightConfig
from mvpose.report.report_settings import RecordingConfig, ReportConfig
from mvpose.tracking import TrackingConfig

RECONSTRUCTION = (
    "--output",
    "--people",
    "--adjust-extrinsics",
    "--monocular",
    "--filtered",
    "--filtering.smoothing",
    "--filtering.cutoff-hz",
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
        "--gpus",
    ),
    "import": (*RECONSTRUCTION, "--calibration", "--unit", "--fps", "--first-frame", "--videos"),
}
"""Common flags by verb: `--help` lists these, `--help-all` lists all."""


@dataclass(frozen=True, kw_only=True)
class Index:
    """List the captures of an archive and their problems."""

    archive: tyro.conf.Positional[str] = ""
    """Folder or s3:// URI with the captures."""
    output: str | None = None
    """Parquet file for the catalogue, one row per capture and camera. If it exists, only new or changed videos (by
    size and time, or ETag) are opened."""
    full: bool = False
    """Reopen every video, even those in the existing catalogue."""
    catalogue: CatalogueConfig = field(default_factory=CatalogueConfig)


@dataclass(frozen=True, kw_only=True)
class Check:
    """Check some frames of every capture: camera names, synchronisation, cameras, scale and floor."""

    archive: tyro.conf.Positional[str] = ""
    """Folder or s3:// URI with the captures."""
    captures: tuple[str, ...] = ()
    """Only these captures (default: all)."""
    output: str | None = None
    """JSON file for all findings with their figures."""
    verbose: bool = False
    """Also list passed checks."""
    catalogue: CatalogueConfig = field(default_factory=CatalogueConfig)
    detector: DetectorConfig = field(default_factory=DetectorConfig)
    preflight: PreflightConfig = field(default_factory=PreflightConfig)


@dataclass(frozen=True, kw_only=True)
class Reconstruct(ReconstructJob):
    """Reconstruct 3D poses from an archive of calibrated, synchronised multi-view footage."""

    archive: tyro.conf.Positional[str] = ""
    """Folder or s3:// URI with the captures."""
    output: str = ""
    """Run folder or s3:// URI. Rerun the same command to resume."""
    imported: Annotated[KeypointImport | None, tyro.conf.Suppress] = None
    engine: Annotated[EngineConfig, tyro.conf.arg(name="")] = field(default_factory=EngineConfig)
    dry_run: bool = False
    """Print the planned work, and exit."""
    exit_zero: bool = False
    """For schedulers, which take any other exit code for a failure: exit with 0 instead of 3 if the run is complete and
    its failed clips are within `max_failed_share`. The last line printed states both figures."""


@dataclass(frozen=True, kw_only=True)
class _Import(Reconstruct):
    archive: tyro.conf.Positional[str] = ""
    """Folder or s3:// URI with the 2D joints."""
    catalogue: tyro.conf.Suppress[CatalogueConfig] = field(default_factory=CatalogueConfig)
    detector: tyro.conf.Suppress[DetectorConfig] = field(default_factory=DetectorConfig)
    model: tyro.conf.Suppress[str] = AUTO


@dataclass(frozen=True, kw_only=True)
class OpenPose(_Import):
    """Reconstruct from OpenPose JSON: one folder per camera, in the folder itself or in each trial's folder.

    The number in a file's name is its frame. Joint sets of 17 (coco17), 25 (body25) and 26 (halpe26) are recognised.
    """

    imported: Annotated[OpenPoseImport, tyro.conf.arg(name="")] = field(default_factory=OpenPoseImport)


@dataclass(frozen=True, kw_only=True)
class Pose2Sim(_Import):
    """Reconstruct from a Pose2Sim project: per trial `pose-associated`, else `pose-sync`, else `pose`."""

    imported: Annotated[Pose2SimImport, tyro.conf.arg(name="")] = field(default_factory=Pose2SimImport)


@dataclass(frozen=True, kw_only=True)
class DeepLabCut(_Import):
    """Reconstruct from DeepLabCut h5 or csv, one file per camera. The index of a table is the frame."""

    imported: Annotated[DeepLabCutImport, tyro.conf.arg(name="")] = field(default_factory=DeepLabCutImport)


@dataclass(frozen=True, kw_only=True)
class Sleap(_Import):
    """Reconstruct from SLEAP analysis h5, one file per camera."""

    imported: Annotated[SleapImport, tyro.conf.arg(name="")] = field(default_factory=SleapImport)


Import = (
    Annotated[OpenPose, tyro.conf.subcommand("openpose")]
    | Annotated[Pose2Sim, tyro.conf.subcommand("pose2sim")]
    | Annotated[DeepLabCut, tyro.conf.subcommand("deeplabcut")]
    | Annotated[Sleap, tyro.conf.subcommand("sleap")]
)


@dataclass(frozen=True, kw_only=True)
class View:
    """Make overlays, plots and a summary page of finished runs, with an index of captures, worst first."""

    run: tyro.conf.Positional[tuple[str, ...]] = ()
    """One or more outputs of `mvpose reconstruct`."""
    output: str | None = None
    """Folder for images and index (default: `view` or `view_filtered` in the run). With several runs, each page stays
    in its own run, and the shared index goes here."""
    filtered: bool = False
    """Show filtered instead of raw poses."""
    beside: str = ""
    """Another run of the same archive, whose overlays and figures are shown beside those of the first."""
    report: ReportConfig = field(default_factory=ReportConfig)
    tracking: TrackingConfig = field(default_factory=TrackingConfig)


@dataclass(frozen=True, kw_only=True)
class Export:
    """Write the poses of a run in the formats of other tools."""

    run: tyro.conf.Positional[str] = ""
    """Output of `mvpose reconstruct`."""
    format: tuple[str, ...] = ("trc",)
    """trc, c3d, csv_long, csv_wide, bvh, nwb, pose2sim, anipose; openpose_json; calibration_pose2sim, _anipose,
    _easymocap, _opencv, _panoptic. Poses go to `raw/` (and `filtered/`), cameras next to them. For your own format,
    pass `package.module:name`: a function from a Recording to (file name, content) pairs."""
    output: str | None = None
    """Output folder, with one folder per capture (default: `export` in the run)."""
    captures: tuple[str, ...] = ()
    """Only these captures (default: all of the run)."""
    filtered: bool = False
    """Also write the run's filtered poses; configure the filter in `reconstruct`."""


@dataclass(frozen=True, kw_only=True)
class Record:
    """Write captures of a run as Rerun recordings (.rrd). Open them with `rerun FILE`."""

    run: tyro.conf.Positional[str] = ""
    """Output of `mvpose reconstruct`."""
    output: str | None = None
    """Output folder (default: `recordings` or `recordings_filtered` in the run)."""
    captures: tuple[str, ...] = ()
    """Only these captures (default: all of the run)."""
    filtered: bool = False
    """Record filtered instead of raw poses."""
    recording: RecordingConfig = field(default_factory=RecordingConfig)

"""Settings of the batch job. Imports are light, because every command line loads this module."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from mvpose.errors import ConfigError
from mvpose.exchange.keypoints.import_config import KeypointImport
from mvpose.footage.archive_settings import CatalogueConfig
from mvpose.models.detection.detector_settings import DetectorConfig
from mvpose.pipeline.engine import EngineConfig
from mvpose.reconstruction.reconstruction_settings import AdjustmentConfig, ReconstructionConfig
from mvpose.temporal.filter_settings import ButterworthFilter, Filtering
from mvpose.tracking.tracking_config import TrackingConfig

AUTO, NO_MODEL = "auto", "none"


@dataclass(frozen=True, kw_only=True)
class ReconstructJob:
    """All settings of a reconstruction job."""

    archive: str
    """Folder or s3:// URI with the captures."""
    output: str
    """Run folder or s3:// URI, with the results and everything needed to resume."""
    people: int | Literal["all"] = "all"
    """Maximum people of a capture to reconstruct, those seen best, or all that two cameras see for 0.2 s. People who
    were seen and left out are reported."""
    clip_frames: int = 300
    """Maximum frames per clip, the unit of work and retry. With 300 frames, seeking costs a few per cent."""
    adjust_extrinsics: bool = False
    """Refine the camera poses on each capture's 2D joints before the 3D stage, and report how far they moved."""
    filtered: bool = True
    """Also write filtered poses: gaps filled and smoothed by `filtering`. Raw poses stay unchanged."""
    max_failed_share: float = 0.1
    """Maximum share of failed clips for exit code 3; above it, the exit code is 4."""
    strict: bool = False
    """Record captures that are judged bad as failures, which count for the exit code. Their poses are kept."""
    replan: bool = False
    """Resume a run with changed settings or footage; results that still apply are kept."""
    retry_failed: bool = False
    """Retry failed clips (for example, storage was unavailable), and redo the results that depend on them."""
    catalogue: CatalogueConfig = field(default_factory=CatalogueConfig)
    detector: DetectorConfig = field(default_factory=DetectorConfig)
    imported: KeypointImport | None = None
    """2D joints of another tool, read from `archive`; replaces footage and detector."""
    model: str = AUTO
    """Multi-view network that corrects the detected people: a name from `mvpose models list`, its folder, or
    models:/NAME@ALIAS in the registry, resolved to a version when the job is planned. `auto` is the shipped canonical
    fusion if the detector is the one that it was trained on; `none` triangulates the detector's own joints."""
    monocular: str = ""
    """Network for captures of one camera, which fail without: a lifter of 2D joints, or a network of one image. Its
    folder, or models:/NAME@ALIAS. Depth and size are its guesses, and the captures' verdicts say so."""
    tracking: TrackingConfig = field(default_factory=TrackingConfig)
    """Model registry, and the store where the run is recorded."""
    reconstruction: ReconstructionConfig = field(default_factory=ReconstructionConfig)
    adjustment: AdjustmentConfig = field(default_factory=AdjustmentConfig)
    filtering: Filtering = field(default_factory=ButterworthFilter)
    engine: EngineConfig = field(default_factory=EngineConfig)

    def __post_init__(self) -> None:
        if self.people != "all" and self.people < 1:
            raise ConfigError(f"people is {self.people}; it must be a number from 1, or all")

    @property
    def max_people(self) -> int | None:
        """Maximum people of a capture; None for all."""
        return None if self.people == "all" else self.people

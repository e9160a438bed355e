"""Everything that a reconstruction job can be told. Light, because every command line reads it."""

from __future__ import annotations

from dataclasses import dataclass, field

from mvpose.exchange.keypoints.import_config import KeypointImport
from mvpose.footage.archive_settings import CatalogueConfig
from mvpose.models.detection.detector_settings import DetectorConfig
from mvpose.pipeline.engine import EngineConfig
from mvpose.reconstruction.reconstruction_settings import AdjustmentConfig, ReconstructionConfig
from mvpose.temporal.filter_settings import ButterworthFilter, Filtering
from mvpose.tracking.tracking_config import TrackingConfig


@dataclass(frozen=True, kw_only=True)
class ReconstructJob:
    """Everything that a reconstruction job can be told."""

    archive: str
    """Folder or s3:// URI with the captures."""
    output: str
    """Run folder or s3:// URI: the results, and what is needed to go on after an interruption."""
    clip_frames: int = 300
    """Longest clip, the unit of work and of retry. 300 frames keep the cost of seeking at a few per cent."""
    adjust_extrinsics: bool = False
    """Adjust the cameras' poses to the 2D joints of each capture before the 3D stage; what moved is reported."""
    filtered: bool = True
    """Make filtered poses beside the raw ones, which stay as they are: gaps filled and smoothed as `filtering` says."""
    max_failed_share: float = 0.1
    """Largest share of failed clips that still counts as success with failures (exit code 3, else 4)."""
    replan: bool = False
    """Go on in an output that was begun with other settings or footage; results that still fit are kept."""
    retry_failed: bool = False
    """Do the clips again that failed (a storage was away, a worker out of memory), and what was made without them."""
    catalogue: CatalogueConfig = field(default_factory=CatalogueConfig)
    detector: DetectorConfig = field(default_factory=DetectorConfig)
    imported: KeypointImport | None = None
    """2D joints of another tool, in place of footage and detector: `archive` is where they are."""
    model: str = ""
    """A multi-view network that looks again at whom the detector found: its folder, or models:/NAME@ALIAS of the
    registry, which is resolved to a version when the job is planned."""
    tracking: TrackingConfig = field(default_factory=TrackingConfig)
    """Where the registry is, and where the run is recorded."""
    reconstruction: ReconstructionConfig = field(default_factory=ReconstructionConfig)
    adjustment: AdjustmentConfig = field(default_factory=AdjustmentConfig)
    filtering: Filtering = field(default_factory=ButterworthFilter)
    engine: EngineConfig = field(default_factory=EngineConfig)

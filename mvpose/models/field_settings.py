"""Settings of part affinity fields: the network, and the grouping of its maps. Imports no torch."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from mvpose.errors import ConfigError


@dataclass(frozen=True, kw_only=True)
class GroupingConfig:
    """Settings of the grouping of part affinity fields into people."""

    matching: Literal["greedy", "optimal"] = "optimal"
    """Of the candidates of a bone: the best pair first, or the best sum (the Hungarian method)."""
    min_height: float = 0.1
    """Minimum height of a candidate, a local maximum of a heatmap."""
    samples: int = 10
    """Samples along the line between two candidates."""
    min_sample: float = 0.05
    """Minimum component of the field along the line for a sample to count as on the limb."""
    min_share: float = 0.5
    """Minimum share of samples on the limb. If limbs of two people overlap in opposite directions, their
    fields cancel: the common value 0.8 lost 2 of 1600 limbs in crowds of five for this reason, 0.5 none."""
    min_joints: int = 3
    """Minimum joints of a person; fewer are a false alarm."""


@dataclass(frozen=True, kw_only=True)
class FieldsConfig:
    """Sizes of a network of part affinity fields; the defaults are those of Cao et al. 2017."""

    stages: int = 6
    width: int = 128
    """Channels of the features and of the stages' convolutions."""
    kernel: int = 7
    """Side of the convolutions from the second stage onwards."""
    upsampled: int = 2
    """Deconvolutions after the backbone: 2 give maps of an eighth of the image's side (the paper's), 3 of a quarter."""
    limb_width: float = 1.0
    """Distance in pixels of the map within which a limb has its field."""
    grouping: GroupingConfig = field(default_factory=GroupingConfig)

    def __post_init__(self) -> None:
        if min(self.stages, self.width) < 1 or self.kernel % 2 != 1 or self.upsampled < 0 or self.limb_width <= 0:
            raise ConfigError("fields: stages and width of 1 or more, an odd kernel, limb_width above 0.")

"""A corpus of rendered people: sample i of seed s is determined by s, i and the settings alone.

It is bit-identical on one renderer (`renderer().device`) with one version of the libraries. Another driver rounds
pixels differently, while joints, cameras and boxes are unchanged.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Literal

import numpy as np

from mvpose.datasets.origins import RENDERED_PEOPLE
from mvpose.datasets.sample import TEST, TRAIN, VALIDATION, Sample
from mvpose.errors import ConfigError
from mvpose.footage.calibration import read_calibration
from mvpose.geometry.camera import CameraRig
from mvpose.rendering.camera_rigs import RANDOM, static_rig
from mvpose.rendering.cast import troupe
from mvpose.rendering.scene import SPLITS, ImageConfig, scene_people
from mvpose.skeleton import RENDERED, Skeleton

BLOCK = 50
"""Consecutive samples that share a troupe of people."""
# Random stream beyond those of all tries of a scene.
_VIEWS_STREAM = 1 << 16


@dataclass(frozen=True, kw_only=True)
class Rendered:
    """MakeHuman people moved by motion capture, rendered for a rig: a dataset that needs only its assets."""

    assets: str | None = None
    """Folder or s3:// URI of the meshes, images and motion capture (default: MVPOSE_ASSETS)."""
    rig: Literal["ring4", "ring8", "ring31", "random"] = "ring4"
    """Rig name; `random` draws a new rig for each sample."""
    calibration: str | None = None
    """Calibration file of the rig, instead of `rig`."""
    min_views: int = 4
    """Minimum and maximum cameras of random rigs."""
    max_views: int = 4
    people_in_image: int | None = None
    """Render groups of so many people: every image shows all of them, close together, and all are labelled, one sample
    each. By default one person is labelled, and others may be in the background."""
    train: int = 1000
    """Samples of each split, or groups. Splits share no person and no motion."""
    validation: int = 100
    test: int = 200
    people: int = 400
    """Number of people to draw from: seven in ten are in the train split only, one in ten in validation,
    one in five in test."""
    shard_samples: int = 50
    seed: int = 0
    images: ImageConfig = field(default_factory=ImageConfig)

    def __post_init__(self) -> None:
        if min(self.train, self.validation, self.test) < 0 or self.shard_samples < 1 or self.images.side < 16:
            raise ConfigError(
                "a corpus needs a non-negative number of samples, shards of 1 or more, crops of 16 pixels or more."
            )
        if self.people_in_image is not None and self.people_in_image < 2:
            raise ConfigError(f"people_in_image is {self.people_in_image}: a group has 2 people or more.")
        if not 1 <= self.min_views <= self.max_views:
            raise ConfigError(f"min_views {self.min_views}, max_views {self.max_views}: 1 or more, and in this order.")

    @property
    def name(self) -> str:
        """Dataset name in the samples."""
        return RENDERED_PEOPLE

    @property
    def skeleton(self) -> Skeleton:
        """Joint set of all samples."""
        return RENDERED

    def shards(self) -> list[str]:
        """`train/00000` and so on: the unit of work of one task."""
        return shard_names({TRAIN: self.train, VALIDATION: self.validation, TEST: self.test}, self.shard_samples)

    def read(self, shard: str) -> Iterator[Sample]:
        """Render the samples of a shard."""
        split = shard.split("/")[0]
        for index in within_shard(shard, getattr(self, split), self.shard_samples):
            cast = troupe(self.assets, self.seed, split, index // BLOCK, self.people)
            rig = self._rig(split, index)
            yield from scene_people(self.seed, split, index, cast, rig, self.images, self.people_in_image)

    def _rig(self, split: str, index: int) -> CameraRig | int:
        if self.calibration is not None:
            return _calibrated(self.calibration)
        if self.rig != RANDOM:
            return static_rig(self.rig)
        rng = np.random.default_rng(np.random.SeedSequence([self.seed, SPLITS.index(split), index, _VIEWS_STREAM]))
        return int(rng.integers(self.min_views, self.max_views + 1))


@lru_cache(maxsize=4)
def _calibrated(uri: str) -> CameraRig:
    return read_calibration(uri)


def shard_names(counts: Mapping[str, int], size: int) -> list[str]:
    """`train/00000` and so on, `size` of a split's `counts` in each."""
    return [f"{split}/{i:05d}" for split, count in counts.items() for i in range(-(-count // size))]


def within_shard(shard: str, count: int, size: int) -> range:
    """Indices in the split of `count` of what is in a shard of `size`."""
    first = int(shard.split("/")[1]) * size
    return range(first, min(first + size, count))

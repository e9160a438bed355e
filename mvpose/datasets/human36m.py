"""Human3.6M (Ionescu et al., TPAMI 2014), in its original layout and in the two most common derived layouts.

All three give the same samples: captures `S9/Greeting-2` (subject, action, trial as numbered in `metadata.xml`), frames
of the 50 Hz recording from 0, joints of the world-scale skeleton. `D3_Positions_mono_universal`, which most
preprocessing scripts store as "3D joints", gives all subjects the same bone lengths, so that no two cameras agree
on the position of a joint. It is never read.

Files are in millimetres, the world is Z-up. The lens has Human3.6M's own tangential terms (LensModel.HUMAN36M).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from mvpose.datasets import human36m_annotations, human36m_labels, human36m_original
from mvpose.datasets.sample import Sample
from mvpose.skeleton import HUMAN36M17, Skeleton

_LAYOUTS = {"original": human36m_original, "labels": human36m_labels, "annotations": human36m_annotations}


@dataclass(frozen=True, kw_only=True)
class Human36M:
    """Human3.6M: 4 cameras, 7 subjects with ground truth, 15 actions in 2 trials each."""

    folder: str
    """Root folder of the chosen layout."""
    layout: Literal["original", "labels", "annotations"] = "labels"
    """original: `metadata.xml` and `S1/MyPoseFeatures`, `S1/Videos`. labels: `processed/S1/Phoning-1/imageSequence` and
    `extra/human36m-multiview-labels-*.npy`. annotations: `images/s_01_act_02_subact_01_ca_01` and
    `annot/h36m_train.pkl`, `annot/h36m_validation.pkl`."""
    stride: int = 5
    """Original layout only: take every n-th frame (the other layouts contain every 5th)."""
    undistorted: bool = False
    """Labels layout only: use the images in `imageSequence-undistorted`."""

    @property
    def name(self) -> str:
        """Short name of the dataset."""
        return "human36m"

    @property
    def skeleton(self) -> Skeleton:
        """The 17 commonly used joints."""
        return HUMAN36M17

    def shards(self) -> list[str]:
        """Captures, or the two annotation files."""
        return _LAYOUTS[self.layout].shards(self.folder)

    def read(self, shard: str) -> Iterator[Sample]:
        """Samples of a shard; DatasetError or CalibrationError, with path and reason, for a bad file."""
        if self.layout == "original":
            return human36m_original.read(self.folder, shard, self.stride)
        if self.layout == "labels":
            return human36m_labels.read(self.folder, shard, self.undistorted)
        return human36m_annotations.read(self.folder, shard)

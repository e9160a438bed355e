"""Human3.6M (Ionescu et al., TPAMI 2014), as it is delivered and in the two forms most code has it.

All three become the same samples: captures `S9/Greeting-2` (subject, action, trial as `metadata.xml` numbers them),
frames of the 50 Hz recording from 0, joints of the world-scale skeleton. `D3_Positions_mono_universal`, which most
preprocessing scripts store as "3D joints", shows everybody with one set of bone lengths: in it no two cameras agree
where a joint is. It is never read.

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
    """The folder that holds what `layout` names."""
    layout: Literal["original", "labels", "annotations"] = "labels"
    """original: `metadata.xml` and `S1/MyPoseFeatures`, `S1/Videos`. labels: `processed/S1/Phoning-1/imageSequence` and
    `extra/human36m-multiview-labels-*.npy`. annotations: `images/s_01_act_02_subact_01_ca_01` and
    `annot/h36m_train.pkl`, `annot/h36m_validation.pkl`."""
    stride: int = 5
    """Of the original: take every n-th frame (5 is what the other layouts hold)."""
    undistorted: bool = False
    """Of labels: use the images in `imageSequence-undistorted`."""

    @property
    def name(self) -> str:
        """The dataset, in one word."""
        return "human36m"

    @property
    def skeleton(self) -> Skeleton:
        """The 17 joints that all work uses."""
        return HUMAN36M17

    def shards(self) -> list[str]:
        """Captures, or the two files of annotations."""
        return _LAYOUTS[self.layout].shards(self.folder)

    def read(self, shard: str) -> Iterator[Sample]:
        """Samples of one of them; DatasetError or CalibrationError, with path and reason, for a bad file."""
        if self.layout == "original":
            return human36m_original.read(self.folder, shard, self.stride)
        if self.layout == "labels":
            return human36m_labels.read(self.folder, shard, self.undistorted)
        return human36m_annotations.read(self.folder, shard)

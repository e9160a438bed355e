"""Convert rows of a sample table to training input: pinhole crops, their cameras, and the ground truth."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

import cv2
import numpy as np
import torch
from jaxtyping import Bool, Float, UInt8
from torch import Tensor

from mvpose.datasets.files import DatasetError
from mvpose.datasets.sample import Sample, SampleImage
from mvpose.footage.video.image_folder import read_image
from mvpose.models.multiview import without_gaps
from mvpose.models.objective import MultiViewTruth
from mvpose.models.pinhole_crops import CropRule, cut_crops
from mvpose.models.single_view.field_network import LabelledPeople
from mvpose.skeleton import Skeleton
from mvpose.training.augmentation import (
    covered,
    drawn_jitter,
    mirrored,
    recoloured,
    without_some_views,
)
from mvpose.training.training_config import NONE, AugmentationConfig


@dataclass(frozen=True, kw_only=True)
class CropView:
    """The part of a sample that a network sees."""

    skeleton: Skeleton
    crop: CropRule
    views: int = 4
    """Number of view slots. Rows with more views contribute a subset; rows with fewer leave slots absent."""
    cameras: tuple[str, ...] = ()
    """Cameras to use, in this order; empty for those of the row."""


@dataclass(frozen=True, eq=False)
class TrainingBatch:
    """B samples by V views, the input of `mvpose.models.multiview` and `mvpose.models.objective`."""

    crops: UInt8[Tensor, "B V 3 H W"] | Float[Tensor, "B V J d"]
    """Or the tokens that a frozen single-view network made from them."""
    projections: Float[Tensor, "B V 3 4"]
    present: Bool[Tensor, "B V"]
    truth: MultiViewTruth

    @staticmethod
    def of(columns: dict[str, Tensor]) -> TrainingBatch:
        """A batch from stacked columns of `sample_arrays`."""
        truth = MultiViewTruth(
            columns["joints"],
            columns["known"].bool(),
            columns["joints_2d"],
            columns["inside"].bool(),
            columns["before"].bool(),
        )
        return TrainingBatch(columns["crops"], columns["projections"], columns["present"].bool(), truth)

    def __len__(self) -> int:
        return len(self.crops)

    def to(self, device: torch.device) -> TrainingBatch:
        """The same batch on another device, without waiting for the copy."""
        return self._each(lambda tensor: tensor.to(device, non_blocking=True))

    def parts(self, count: int) -> list[TrainingBatch]:
        """The batch in `count` equal parts, in order."""
        size = len(self) // count
        return [self._each(lambda t, i=i: t[i * size : (i + 1) * size]) for i in range(count)]

    def each_view(self) -> TrainingBatch:
        """Every view as a sample of its own, B V samples of one view; absent ones repeat a present one, masked."""
        views = self.present.shape[1]
        crops, projections, present = without_gaps(self.crops, self.projections, self.present)
        truth = self.truth
        alone = MultiViewTruth(
            truth.joints.repeat_interleave(views, dim=0),
            truth.known.repeat_interleave(views, dim=0),
            *(part.flatten(0, 1)[:, None] for part in (truth.joints_2d, truth.inside, truth.before)),
        )
        return TrainingBatch(
            crops.flatten(0, 1)[:, None], projections.flatten(0, 1)[:, None], present.flatten()[:, None], alone
        )

    def _each(self, change) -> TrainingBatch:
        truth = replace(self.truth, **{k: change(v) for k, v in vars(self.truth).items()})
        return TrainingBatch(change(self.crops), change(self.projections), change(self.present), truth)


@dataclass(frozen=True, eq=False)
class LiftingBatch:
    """B windows of T frames of a person as one camera sees them: the input of a lifter, and the truth."""

    points: Float[Tensor, "B T J 2"]
    """On the plane z = 1 of the camera."""
    seen: Bool[Tensor, "B T J"]
    poses: Float[Tensor, "B T J 3"]
    """Axes of the camera, metres from the root."""
    known: Bool[Tensor, "B T J"]
    """Joints of the truth that count: of frames in which the detector finds the person."""

    def __len__(self) -> int:
        return len(self.points)

    def to(self, device: torch.device) -> LiftingBatch:
        """The same batch on another device, without waiting for the copy."""
        return LiftingBatch(**{k: v.to(device, non_blocking=True) for k, v in vars(self).items()})

    def parts(self, count: int) -> list[LiftingBatch]:
        """The batch in `count` equal parts, in order."""
        size = len(self) // count
        return [LiftingBatch(**{k: v[i * size : (i + 1) * size] for k, v in vars(self).items()}) for i in range(count)]


@dataclass(frozen=True, eq=False)
class GroupBatch:
    """B images of several people: the input of `FieldNetwork`, and the truth."""

    images: UInt8[Tensor, "B 3 H W"]
    people: LabelledPeople

    @staticmethod
    def of(columns: dict[str, Tensor]) -> GroupBatch:
        """The images that there are, of samples by views."""
        there = columns["present"].bool()
        points, known, inside = (columns[name][there] for name in ("points", "known", "inside"))
        return GroupBatch(columns["images"][there], LabelledPeople(points, known.bool(), inside.bool()))

    def __len__(self) -> int:
        return len(self.images)

    def to(self, device: torch.device) -> GroupBatch:
        """The same batch on another device, without waiting for the copy."""
        return self._each(lambda tensor: tensor.to(device, non_blocking=True))

    def parts(self, count: int) -> list[GroupBatch]:
        """The batch in `count` parts of about equal size, in order."""
        ends = [round(i * len(self) / count) for i in range(count + 1)]
        return [self._each(lambda t, a=a, b=b: t[a:b]) for a, b in pairwise(ends)]

    def _each(self, change) -> GroupBatch:
        return GroupBatch(change(self.images), LabelledPeople(**{k: change(v) for k, v in vars(self.people).items()}))


Batch = TrainingBatch | LiftingBatch | GroupBatch


def batch_of(columns: dict[str, Tensor]) -> Batch:
    """A batch from the stacked columns of a reader."""
    if "images" in columns:
        return GroupBatch.of(columns)
    if "points" not in columns:
        return TrainingBatch.of(columns)
    points, seen, poses, known = (columns[name] for name in ("points", "seen", "poses", "known"))
    return LiftingBatch(points, seen.bool(), poses, known.bool())


def stacked(samples: Sequence[dict[str, np.ndarray]]) -> dict[str, np.ndarray]:
    """Samples of `sample_arrays` as columns with a batch axis."""
    return {name: np.stack([sample[name] for sample in samples]) for name in samples[0]}


def sample_arrays(
    sample: Sample, view: CropView, rng: np.random.Generator, config: AugmentationConfig | None = None
) -> dict[str, np.ndarray]:
    """One sample for training: crops (V 3 H W) uint8 RGB, projections (V 3 4), present (V), joints (J 3) in metres,
    known (J), joints_2d (V J 2) in pixels of the crops and beyond them, inside and before (V J): see `MultiViewTruth`.
    Floats are float32.

    Absent views are black and have a zero camera matrix. A joint missing from the table's skeleton is not known.
    Without `config` nothing is random: of too many views, the first are used. DatasetError if an image cannot be read.
    """
    seen = _chosen_views(sample, view, rng if config else None)
    (width, height), places = view.crop.size, view.views
    crops = np.zeros((places, 3, height, width), np.uint8)
    projections = np.zeros((places, 3, 4))
    present: np.ndarray = np.all(np.isfinite(seen.box), axis=-1)
    if config:
        present = without_some_views(present, config, rng)
    pinholes = seen.rig.projections.double().numpy()
    for v, crop, change in cut_crops(
        lambda v: decoded(seen.images[v], seen),
        seen.rig,
        seen.box,
        np.flatnonzero(present).tolist(),
        view.crop,
        lambda: drawn_jitter(config or NONE, rng),
    ):
        if config:
            crop = covered(recoloured(crop, config, rng), config, rng)
        crops[v], projections[v] = crop.transpose(2, 0, 1), change @ pinholes[v]
    present = np.pad(present, (0, places - len(present)))
    source, found = sample.skeleton.remap(view.skeleton)
    known = found & sample.valid[source]
    joints = np.where(known[:, None], sample.xyz[source], 0.0)
    # Draw only if mirroring is on, so that samples of older recipes stay bit-identical.
    if config and config.mirror and rng.random() < config.mirror:
        crops, projections, joints, known = mirrored(crops, projections, joints, known, view.skeleton.mirror)
    joints_2d, in_image, before = projected(projections, joints, view.crop.size)
    here = known & present[:, None]
    return {
        "crops": crops,
        "projections": projections.astype(np.float32),
        "present": present,
        "joints": joints.astype(np.float32),
        "known": known,
        "joints_2d": joints_2d.astype(np.float32),
        "inside": in_image & here,
        "before": before & here,
    }


def projected(
    projections: Float[np.ndarray, "V 3 4"], joints: Float[np.ndarray, "J 3"], size: tuple[int, int]
) -> tuple[Float[np.ndarray, "V J 2"], Bool[np.ndarray, "V J"], Bool[np.ndarray, "V J"]]:
    """Pixels of world points, and masks of those inside the crop and in front of the camera; pixel 0 behind it."""
    x = joints @ projections[:, :, :3].swapaxes(1, 2) + projections[:, None, :, 3]
    front = x[..., 2] > 1e-6
    pixels = x[..., :2] / np.where(front, x[..., 2], 1.0)[..., None]
    inside = front & ((pixels >= -0.5) & (pixels <= np.array(size) - 0.5)).all(axis=-1)
    return np.where(front[..., None], pixels, 0.0), inside, front


def _chosen_views(sample: Sample, view: CropView, rng: np.random.Generator | None) -> Sample:
    """The sample with at most `view.views` of the selected cameras, in their order."""
    names = [n for n in view.cameras if n in sample.rig.names] if view.cameras else list(sample.rig.names)
    if len(names) > view.views:
        drawn = range(view.views) if rng is None else sorted(rng.permutation(len(names))[: view.views])
        names = [names[i] for i in drawn]
    return sample if tuple(names) == sample.rig.names else sample.select(names)


def decoded(image: SampleImage, sample: Sample) -> UInt8[np.ndarray, "h w 3"]:
    """Pixels of a sample's image; DatasetError if it is not valid, or a frame of a video."""
    if image.crop is None:
        if image.frame >= 0:
            raise DatasetError(
                f"{sample.capture_id} frame {sample.frame} refers to a video frame, but training does not "
                "read videos: convert the dataset with --crops.side 384."
            )
        return read_image(image.uri)
    pixels = cv2.imdecode(np.frombuffer(image.crop, np.uint8), cv2.IMREAD_COLOR_RGB)
    if pixels is None:
        raise DatasetError(
            f"a crop of {sample.capture_id} frame {sample.frame} is not a valid JPEG or PNG: convert it again."
        )
    return pixels

"""Rows of a table of samples to what a multi-view method is trained on: pinhole crops, their cameras, and the truth."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import cv2
import numpy as np
import torch
from jaxtyping import Bool, Float, UInt8
from torch import Tensor

from mvpose.archive.image_folder import read_picture
from mvpose.datasets.files import DatasetError
from mvpose.datasets.sample import Picture, Sample
from mvpose.geometry.camera import CameraRig
from mvpose.geometry.lens import LensModel
from mvpose.models.objective import MultiViewTruth
from mvpose.skeleton import Skeleton
from mvpose.training.augmentation import (
    NONE,
    AugmentationConfig,
    covered,
    crop_from_picture,
    mirrored,
    recoloured,
    without_some_views,
)


@dataclass(frozen=True, kw_only=True)
class CropView:
    """What a network is shown of a sample."""

    skeleton: Skeleton
    size: tuple[int, int]
    """(width, height) of crops in pixels."""
    views: int = 4
    """Places for views: rows with more views give some of them, rows with fewer leave places absent."""
    cameras: tuple[str, ...] = ()
    """Only these, in this order; empty for the row's own."""
    margin: float = 1.4
    """Crop over box about the joints."""


@dataclass(frozen=True, eq=False)
class TrainingBatch:
    """B samples by V views, as `mvpose.models.multiview` and `mvpose.models.objective` want them."""

    crops: UInt8[Tensor, "B V 3 H W"]
    projections: Float[Tensor, "B V 3 4"]
    present: Bool[Tensor, "B V"]
    truth: MultiViewTruth

    @staticmethod
    def of(columns: dict[str, Tensor]) -> TrainingBatch:
        """From the columns of `sample_arrays`, stacked."""
        truth = MultiViewTruth(
            columns["joints"], columns["known"].bool(), columns["joints_2d"], columns["inside"].bool()
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

    def _each(self, change) -> TrainingBatch:
        truth = replace(self.truth, **{k: change(v) for k, v in vars(self.truth).items()})
        return TrainingBatch(change(self.crops), change(self.projections), change(self.present), truth)


def stacked(samples: Sequence[dict[str, np.ndarray]]) -> dict[str, np.ndarray]:
    """Samples of `sample_arrays` as columns with a batch axis."""
    return {name: np.stack([sample[name] for sample in samples]) for name in samples[0]}


def sample_arrays(
    sample: Sample, view: CropView, rng: np.random.Generator, config: AugmentationConfig | None = None
) -> dict[str, np.ndarray]:
    """One sample for training: crops (V 3 H W) uint8 RGB, projections (V 3 4), present (V), joints (J 3) in metres,
    known (J), joints_2d (V J 2) in pixels of the crops, inside (V J); floats are float32.

    Absent views are black with a camera of zeros. A joint that the table's skeleton lacks is not known. Without
    `config` nothing is drawn: of too many views the first are taken. DatasetError where a picture cannot be read.
    """
    seen = _chosen_views(sample, view, rng if config else None)
    (width, height), places = view.size, view.views
    crops = np.zeros((places, 3, height, width), np.uint8)
    projections = np.zeros((places, 3, 4))
    present: np.ndarray = np.all(np.isfinite(seen.box), axis=-1)
    if config:
        present = without_some_views(present, config, rng)
    pinholes, boxes = seen.rig.projections.double().numpy(), pinhole_boxes(seen.rig, seen.box)
    for v in np.flatnonzero(present):
        change = crop_from_picture(boxes[v], view.size, view.margin, config or NONE, rng)
        crop = pinhole_crop(_decoded(seen.pictures[v], seen), seen.rig, int(v), change, view.size)
        if config:
            crop = covered(recoloured(crop, config, rng), config, rng)
        crops[v], projections[v] = crop.transpose(2, 0, 1), change @ pinholes[v]
    present = np.pad(present, (0, places - len(present)))
    source, found = sample.skeleton.remap(view.skeleton)
    known = found & sample.valid[source]
    joints = np.where(known[:, None], sample.xyz[source], 0.0)
    # No draw without a probability: samples of the recipes that came before stay what they were, to the bit.
    if config and config.mirror and rng.random() < config.mirror:
        crops, projections, joints, known = mirrored(crops, projections, joints, known, view.skeleton.mirror)
    joints_2d, in_picture = projected(projections, joints, view.size)
    return {
        "crops": crops,
        "projections": projections.astype(np.float32),
        "present": present,
        "joints": joints.astype(np.float32),
        "known": known,
        "joints_2d": joints_2d.astype(np.float32),
        "inside": in_picture & known & present[:, None],
    }


def pinhole_boxes(rig: CameraRig, box: Float[np.ndarray, "V 4"]) -> Float[np.ndarray, "V 4"]:
    """Boxes in pictures to boxes about the same corners once the lens is undone; NaN stays NaN."""
    if all(is_pinhole(rig, v) for v in range(len(rig))):
        return box
    corners = torch.from_numpy(np.nan_to_num(box)[:, [[0, 1], [2, 1], [2, 3], [0, 3]]])
    straight = rig.to(torch.float64).undistorted(corners)[0].numpy()
    straight = np.where(np.isfinite(box[:, :1, None]), straight, np.nan)
    return np.concatenate([straight.min(axis=1), straight.max(axis=1)], axis=-1)


def is_pinhole(rig: CameraRig, v: int) -> bool:
    """Whether a camera's lens changes nothing."""
    return rig.lens.models[v] != LensModel.KANNALA_BRANDT and not bool(rig.lens.coefficients[v].any())


def pinhole_crop(
    picture: UInt8[np.ndarray, "h w 3"],
    rig: CameraRig,
    v: int,
    change: Float[np.ndarray, "3 3"],
    size: tuple[int, int],
) -> UInt8[np.ndarray, "H W 3"]:
    """The crop of (width, height) `size` that `change` maps undistorted pixels of view v to; black beyond the picture.

    `change` is affine. The lens is undone in the same resampling, bilinear, after averaging where much is shrunk.
    """
    back = np.linalg.inv(change)
    # Pixels of the picture along one of the crop: from two on, sampling alone would lose thin limbs.
    shrunk = max(int(np.sqrt(abs(np.linalg.det(back[:2, :2]))) + 1e-6), 1)
    if shrunk > 1:
        h, w = (max(side // shrunk, 1) for side in picture.shape[:2])
        picture = cv2.resize(picture[: h * shrunk, : w * shrunk], (w, h), interpolation=cv2.INTER_AREA)
    # A pixel c of the picture is (c + 0.5) / shrunk - 0.5 of the shrunk one.
    smaller = np.array([[1 / shrunk, 0, 0.5 / shrunk - 0.5], [0, 1 / shrunk, 0.5 / shrunk - 0.5], [0, 0, 1]])
    if is_pinhole(rig, v):
        flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
        return cv2.warpAffine(picture, (smaller @ back)[:2], size, flags=flags)
    places = _distorted_places(rig, v, back, size) * np.float32(smaller[0, 0]) + np.float32(smaller[0, 2])
    return cv2.remap(picture, places[..., 0], places[..., 1], cv2.INTER_LINEAR)


def projected(
    projections: Float[np.ndarray, "V 3 4"], joints: Float[np.ndarray, "J 3"], size: tuple[int, int]
) -> tuple[Float[np.ndarray, "V J 2"], Bool[np.ndarray, "V J"]]:
    """Pixels of world points, and which lie in front of the camera and on the crop; elsewhere the pixel is 0."""
    x = joints @ projections[:, :, :3].swapaxes(1, 2) + projections[:, None, :, 3]
    front = x[..., 2] > 1e-6
    pixels = x[..., :2] / np.where(front, x[..., 2], 1.0)[..., None]
    inside = front & ((pixels >= -0.5) & (pixels <= np.array(size) - 0.5)).all(axis=-1)
    return np.where(inside[..., None], pixels, 0.0), inside


def _chosen_views(sample: Sample, view: CropView, rng: np.random.Generator | None) -> Sample:
    """The sample by at most `view.views` of the cameras that count, in their order."""
    names = [n for n in view.cameras if n in sample.rig.names] if view.cameras else list(sample.rig.names)
    if len(names) > view.views:
        drawn = range(view.views) if rng is None else sorted(rng.permutation(len(names))[: view.views])
        names = [names[i] for i in drawn]
    return sample if tuple(names) == sample.rig.names else sample.select(names)


def _decoded(picture: Picture, sample: Sample) -> UInt8[np.ndarray, "h w 3"]:
    if picture.crop is None:
        if picture.frame >= 0:
            raise DatasetError(
                f"{sample.capture_id} frame {sample.frame} names a frame of a video: convert the dataset with "
                "--crops.side 384, so that training reads no videos."
            )
        return read_picture(picture.uri)
    image = cv2.imdecode(np.frombuffer(picture.crop, np.uint8), cv2.IMREAD_COLOR_RGB)
    if image is None:
        raise DatasetError(f"a crop of {sample.capture_id} frame {sample.frame} is no JPEG or PNG: convert it again.")
    return image


def _distorted_places(
    rig: CameraRig, v: int, picture_from_crop: Float[np.ndarray, "3 3"], size: tuple[int, int]
) -> Float[np.ndarray, "H W 2"]:
    """Where in the distorted picture each pixel of the crop lies; far outside where the lens shows nothing."""
    u, w = np.meshgrid(np.arange(size[0]), np.arange(size[1]))
    flat = np.stack([u.ravel(), w.ravel()], axis=-1) @ picture_from_crop[:2, :2].T + picture_from_crop[:2, 2]
    focal, centre = rig.focal[v], rig.centre[v]
    ideal = ((torch.from_numpy(flat) - centre) / focal).float()
    lens = rig.lens.select([v])
    pixels = lens.distort(ideal[None])[0] * focal.float() + centre.float()
    seen = ideal.norm(dim=-1) <= lens.limit().float()
    pixels = torch.where(seen[:, None], pixels, torch.full_like(pixels, -1e6))
    return pixels.reshape(size[1], size[0], 2).numpy()

"""Training images with all of their people, for networks that work bottom-up."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from jaxtyping import Float, Int
from torch.utils.data import Dataset

from mvpose.datasets.row_reader import RowReader
from mvpose.datasets.sample import Sample
from mvpose.errors import ConfigError
from mvpose.geometry.camera import CameraRig
from mvpose.training.augmentation import AugmentationConfig
from mvpose.training.batches import CropView, projected, sample_arrays
from mvpose.training.order import Take


class GroupReader(Dataset):
    """Maps takes to columns of `GroupBatch`: for each row the images of its frame, with everyone in them.

    A sample depends only on seed, epoch and row, not on the reader.
    """

    def __init__(self, table: RowReader, view: CropView, augmentation: AugmentationConfig | None, seed: int) -> None:
        """ConfigError if no image of the table has several labelled people."""
        self._table, self._view, self._augmentation, self._seed = table, view, augmentation, seed
        self._together = people_of_frames(table)
        self._most = max(map(len, self._together.values()))
        if self._most < 2:
            raise ConfigError(
                f"no image of {table.uri} has several labelled people: bottom-up networks are trained on groups "
                "(mvpose dataset render --people-in-image 3)."
            )

    def __getitem__(self, take: Take) -> dict[str, np.ndarray]:
        samples = [self._arrays(row, np.random.default_rng([self._seed, take.epoch, row])) for row in take.rows]
        return {name: np.stack([sample[name] for sample in samples]) for name in samples[0]}

    def _arrays(self, row: int, rng: np.random.Generator) -> dict[str, np.ndarray]:
        people = [self._table.sample(int(other)) for other in self._together[row]]
        return group_arrays(people, self._view, rng, self._augmentation, self._most)


def people_of_frames(table: RowReader) -> dict[int, Int[np.ndarray, " P"]]:
    """By the first row of every frame, the rows of all people in it."""
    keys = table.keys(("capture", "frame"))
    groups = keys.groupby(["capture", "frame"], sort=False).indices
    return {int(rows.min()): np.sort(rows) for rows in groups.values()}


def group_arrays(
    people: Sequence[Sample],
    view: CropView,
    rng: np.random.Generator,
    config: AugmentationConfig | None = None,
    slots: int | None = None,
) -> dict[str, np.ndarray]:
    """A frame for training: images (V 3 H W) uint8 RGB without lens distortion, their projections (V 3 4), present (V),
    points (V P J 2) in pixels of the images, known and inside (V P J): see `LabelledPeople`; P is at least `slots`.

    Without `config` nothing is random. ConfigError if the people have different images: crops about each of them.
    """
    if len({sample.images for sample in people}) > 1:
        raise ConfigError(
            f"{people[0].capture_id} has a crop about each person: bottom-up networks take images of all people."
        )
    first = replace(people[0], box=whole_images(people[0].rig))
    arrays = sample_arrays(first, view, rng, config)
    source, found = first.skeleton.remap(view.skeleton)
    shape = (view.views, max(len(people), slots or 0), len(found))
    points, known, inside = np.zeros((*shape, 2), np.float32), np.zeros(shape, bool), np.zeros(shape, bool)
    for p, sample in enumerate(people):
        valid = found & sample.valid[source]
        joints = np.where(valid[:, None], sample.xyz[source], 0.0)
        pixels, in_image, before = projected(arrays["projections"].astype(np.float64), joints, view.crop.size)
        points[:, p], known[:, p] = pixels, before & valid & arrays["present"][:, None]
        inside[:, p] = in_image & known[:, p]
    return {
        "images": arrays["crops"],
        "projections": arrays["projections"],
        "present": arrays["present"],
        "points": points,
        "known": known,
        "inside": inside,
    }


def whole_images(rig: CameraRig) -> Float[np.ndarray, "V 4"]:
    """Boxes of the whole images of all cameras."""
    return np.concatenate([np.full((len(rig), 2), -0.5), rig.size.numpy() - 0.5], axis=-1)

"""Select the rows of a training and of its validation, and open their readers."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import torch
from jaxtyping import Bool, Int
from torch.utils.data import Dataset

from mvpose.datasets.origins import (
    TRAINED_ON,
    VALIDATED_ON,
    Origins,
    origins_of,
    pose_digests,
    recordings_of,
    to_lineage,
)
from mvpose.datasets.row_reader import RowReader
from mvpose.errors import ConfigError
from mvpose.models.detection.cards import read_card
from mvpose.models.network_settings import CrossViewMethod, FieldsMethod, LiftingMethod
from mvpose.models.pictorial_step import bone_name
from mvpose.models.saved import LIMBS
from mvpose.models.volumes.pictorial import mean_limb_lengths
from mvpose.skeleton import SKELETONS
from mvpose.storage.locations import exists, join, read_text
from mvpose.training.augmentation import AugmentationConfig
from mvpose.training.batches import Batch, CropView, sample_arrays, stacked
from mvpose.training.group_reader import GroupReader, people_of_frames
from mvpose.training.lifting_reader import LiftingReader
from mvpose.training.loading import Reader, read_by_processes, read_by_threads
from mvpose.training.order import ALONE, SampleOrder, Split, Take
from mvpose.training.token_cache import TokenCache
from mvpose.training.token_reader import TokenReader
from mvpose.training.training_config import SamplesConfig, TrainConfig

CACHE_REPORT = 20
"""Row groups between two lines about the progress of a cache."""


@dataclass(frozen=True, eq=False)
class Feed:
    """The selected samples of a training and of its validation; images are not read yet."""

    config: TrainConfig
    table: RowReader
    order: SampleOrder
    validation_table: RowReader
    validation_rows: Int[np.ndarray, " n"]

    @staticmethod
    def open(config: TrainConfig) -> Feed:
        """Read footers and keys of the tables; ConfigError if no sample is selected."""
        chosen = config.samples
        table = RowReader(config.data, chosen.shuffled_groups)
        keys = table.keys()
        rows = chosen_rows(keys, chosen, chosen.split, config.data)
        if isinstance(config.method, CrossViewMethod) and config.method.fixed_views:
            _require_one_rig(keys.iloc[rows], chosen)
        other = RowReader(chosen.validation, chosen.shuffled_groups) if chosen.validation else table
        if chosen.validation_share:
            held = _held_out(keys.iloc[rows].assign(dataset=table.dataset), chosen.validation_share, config.seed)
            rows, held_out = rows[~held], rows[held]
        else:
            other_keys = other.keys() if chosen.validation else keys
            held_out = chosen_rows(other_keys, chosen, chosen.validation_split, other.uri)
        if isinstance(config.method, FieldsMethod):
            rows, held_out = _one_per_frame(table, rows), _one_per_frame(other, held_out)
        order = SampleOrder(rows, table.group_of(rows), config.optimisation.batch, config.seed, chosen.shuffled_groups)
        return Feed(config, table, order, other, thinned(held_out, chosen.validation_samples))

    @property
    def total_steps(self) -> int:
        """Length of the training in steps."""
        return self.config.optimisation.total_steps(self.order.steps_per_epoch)

    def digests(self) -> dict[str, str]:
        """Digests of the tables, as settings of a training."""
        digests = {"data_digest": self.table.digest()}
        if self.config.samples.validation:
            digests["validation_digest"] = self.validation_table.digest()
        return digests

    def make_caches(self, say: Callable[[str], None]) -> None:
        """Make the caches of tokens that the settings ask for, as far as they are missing."""
        if not self.config.cache.draws:
            return
        parts = ((self.table, self.order.rows), (self.validation_table, self.validation_rows))
        for table, rows in parts:
            cache = TokenCache.of(self.config, table.uri)
            groups = np.unique(table.group_of(rows)).tolist()
            say(f"tokens of {len(groups)} row groups of {table.uri}: {cache.folder}")
            for count, _ in enumerate(cache.make(groups, self.config.compute.loaders), 1):
                if count % CACHE_REPORT == 0:
                    say(f"tokens of {count} of {len(groups)} row groups")

    def limb_lengths(self) -> dict[str, float]:
        """Mean length in metres of each bone of the method's skeleton over the training samples; the known ones."""
        skeleton = SKELETONS[self.config.method.skeleton]
        columns = self.table.keys(("valid",)).iloc[self.order.rows]
        xyz = self.table.joints(self.order.rows).astype(np.float64)
        source, found = self.table.skeleton.remap(skeleton)
        valid = np.stack(columns.valid.tolist())[:, source] & found
        lengths = mean_limb_lengths(torch.from_numpy(xyz[:, source]), torch.from_numpy(valid), skeleton).tolist()
        # To a micrometre: beyond, the mean depends on the order of the rows.
        named = zip(map(bone_name, skeleton.bones), lengths, strict=True)
        return {name: round(length, 6) for name, length in named if np.isfinite(length)}

    def lineage(self) -> dict[str, Any]:
        """What a model's lineage states of its samples and labels, beside settings and digests."""
        seen: dict[str, Any] = {
            TRAINED_ON: to_lineage(_origins(self.table, self.order.rows)),
            VALIDATED_ON: to_lineage(_origins(self.validation_table, self.validation_rows)),
            LIMBS: self.limb_lengths(),
        }
        if exists(made_by := join(self.table.uri, "dataset.json")):
            # Says what the labels are: a dataset's truth, or those of `mvpose dataset label` and its teacher.
            seen["table"] = json.loads(read_text(made_by))
        source = self.reader(training=True)
        if not isinstance(source, TokenReader):
            return seen
        card = read_card(self.config.method.backbone.weights)
        joints = SKELETONS[self.config.method.skeleton].joints
        offsets = zip(joints, np.linalg.norm(source.labels.offsets, axis=-1), strict=True)
        return {
            **seen,
            "backbone_sha256": card.sha256,
            "label_offsets_mm": {joint: round(1000 * float(mm), 1) for joint, mm in offsets if np.isfinite(mm)},
            "label_share": round(float(np.isfinite(source.labels.joints[self.order.rows, :, 0]).mean()), 4),
        }

    def reader(self, *, training: bool, loaders: int = 1) -> Reader:
        """Reader of the training samples with augmentation, or of the held-out ones without; one of `loaders`."""
        config, table = self.config, self.table if training else self.validation_table
        if config.cache.draws:
            cache = TokenCache.of(config, table.uri)
            return TokenReader(cache, config.samples, config.method.size, config.seed, training=training)
        augmentation, seed = (config.augmentation, config.seed) if training else (None, 0)
        if isinstance(config.method, LiftingMethod):
            return LiftingReader(table, config.method, config.samples.cameras, augmentation, seed)
        if isinstance(config.method, FieldsMethod):
            return GroupReader(table, config.view, augmentation, seed)
        if loaders > 1:
            # All of them together keep one window of row groups.
            table = table.keeping(math.ceil(config.samples.shuffled_groups / loaders))
        return TakeReader(table, config.view, augmentation, seed)

    def batches(self, start: int, rank: int = 0, splits: tuple[Split, ...] = ALONE) -> Iterator[Batch]:
        """The training batches of one worker, from step `start` onwards."""
        compute, steps = self.config.compute, range(start, self.total_steps)
        loaders, pinned = compute.loaders, compute.gpus > 0
        if not loaders:
            takes = (self.order.take(step, rank, splits) for step in steps)
            return read_by_threads(self.reader(training=True), takes, 1, pinned=pinned)
        source = self.reader(training=True, loaders=loaders)
        return read_by_processes(
            source, lambda step: self.order.parts(step, rank, splits, loaders), steps, loaders, pinned=pinned
        )

    def validation_batches(self, rank: int = 0, workers: int = 1) -> Iterator[Batch]:
        """The held-out samples of one of `workers`, without augmentation."""
        config = self.config
        size = max(config.optimisation.batch // workers, 1)
        # Consecutive rows, so that each row group is read by one worker.
        mine = np.array_split(self.validation_rows, workers)[rank]
        takes = [Take(0, 0, tuple(mine[i : i + size].tolist())) for i in range(0, len(mine), size)]
        threads = max(config.compute.loaders, 1)
        return read_by_threads(self.reader(training=False), takes, threads, pinned=config.compute.gpus > 0)


class TakeReader(Dataset):
    """Maps takes to columns of `sample_arrays`. A sample depends only on seed, epoch and row, not on the reader."""

    def __init__(self, table: RowReader, view: CropView, augmentation: AugmentationConfig | None, seed: int) -> None:
        self._table, self._view, self._augmentation, self._seed = table, view, augmentation, seed

    def __getitem__(self, take: Take) -> dict[str, np.ndarray]:
        rngs = [np.random.default_rng([self._seed, take.epoch, row]) for row in take.read]
        return stacked(
            [
                sample_arrays(self._table.sample(row), self._view, rng, self._augmentation)
                for row, rng in zip(take.read, rngs, strict=True)
            ]
        )


def chosen_rows(keys: pd.DataFrame, samples: SamplesConfig, split: str, uri: str) -> Int[np.ndarray, " n"]:
    """Numbers of the selected rows; ConfigError if there are none."""
    wanted = set(samples.cameras)
    counts = keys.camera.map(lambda names: len(wanted & set(names)) if wanted else len(names))
    rows = np.flatnonzero((keys.split == split) & (samples.damaged | ~keys.damaged) & (counts >= samples.min_views))
    if not len(rows):
        there = ", ".join(sorted(set(keys.split))) or "no rows"
        raise ConfigError(
            f"{uri} has no sample of split {split!r} with at least {samples.min_views} of the selected cameras; "
            f"its splits: {there}. To validate on a part of the training split: --samples.validation-share 0.1."
        )
    return rows


def _one_per_frame(table: RowReader, rows: Int[np.ndarray, " n"]) -> Int[np.ndarray, " m"]:
    """The first row of each frame among these, for readers that take everyone in a frame together."""
    return rows[np.isin(rows, list(people_of_frames(table)))]


def _require_one_rig(keys: pd.DataFrame, samples: SamplesConfig) -> None:
    """ConfigError unless all samples have the same cameras, as many as slots: a dense layer belongs to its cameras."""
    wanted = samples.cameras
    seen = {tuple(n for n in wanted if n in names) if wanted else tuple(names) for names in keys.camera}
    if {len(names) for names in seen} != {samples.views} or len(seen) > 1:
        raise ConfigError(
            f"the dense layer belongs to {samples.views} cameras, but samples have {len(seen)} set(s) of cameras, like "
            f"{', '.join(sorted(seen)[0])}: name its cameras (--samples.cameras) and leave out samples that lack one "
            f"(--samples.min-views {samples.views}), or use --method.cross-view.fusion rays."
        )


def _held_out(keys: pd.DataFrame, share: float, seed: int) -> Bool[np.ndarray, " n"]:
    """The rows of a share of the recordings, at least one and not all; which ones depends on their names and the seed.

    ConfigError if there is one recording only.
    """
    recordings = recordings_of(keys)
    names = sorted(set(recordings.tolist()), key=lambda name: hashlib.sha256(f"{seed}/{name}".encode()).digest())
    if len(names) < 2:
        raise ConfigError("samples.validation_share needs two recordings or more: name a table in samples.validation.")
    return np.isin(recordings, names[: min(max(round(share * len(names)), 1), len(names) - 1)])


def _origins(table: RowReader, rows: Int[np.ndarray, " n"]) -> list[Origins]:
    keys = table.keys().iloc[rows]
    return origins_of(keys.assign(dataset=table.dataset, pose=pose_digests(table.joints(rows))))


def thinned(rows: Int[np.ndarray, " n"], maximum: int) -> Int[np.ndarray, " m"]:
    """At most `maximum` of the rows, evenly spread; all if it is 0."""
    if not maximum or len(rows) <= maximum:
        return rows
    return rows[np.linspace(0, len(rows) - 1, maximum).round().astype(int)]

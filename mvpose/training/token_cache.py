"""Tokens of a frozen joint network for every view of a table, made once: as found in full view, and disturbed.

    TABLE/tokens/DIGEST/00000.safetensors     one file per row group of the table
      tokens        float16 (n, V, 1 + draws, J, d)   version 0 is in full view
      projections   float64 (n, V, 1 + draws, 3, 4)   world (metres) to pixels of each version's crop
      present       bool    (n, V)
      consensus     float32 (n, J, 3)    where the views in full view agree, metres; NaN where they do not
      views         int32   (n, J)       how many of them agree
      table         float32 (n, J, 3)    the table's own joints; NaN where it has none

A file is a function of the table, the settings, the network and the seed alone, so a cache is resumed by what is
missing. Its size is known before it is made: 2 (1 + draws) V J d bytes per sample, 13 KB per version of a view.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from functools import cached_property
from multiprocessing import get_context

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from safetensors.numpy import save

from mvpose.config import digest, home_folder
from mvpose.datasets.row_reader import RowReader
from mvpose.datasets.sample import Sample
from mvpose.geometry.camera import CameraRig
from mvpose.geometry.robust import triangulate_robust
from mvpose.models.crop_cameras import crop_projections
from mvpose.models.detection.cards import locate, read_card
from mvpose.models.detection.detector_settings import DetectorConfig
from mvpose.models.detection.joint_network import BoxJoints, JointNetwork, crop_from_image
from mvpose.reconstruction.reconstruction_settings import ReconstructionConfig
from mvpose.skeleton import SKELETONS
from mvpose.storage.commits import write_whole
from mvpose.storage.locations import exists, is_folder, is_remote, join
from mvpose.training.batches import decoded
from mvpose.training.token_views import SeenPerson, disturbed, found
from mvpose.training.training_config import TokenCacheConfig, TrainConfig

VERSION = 1


@dataclass(frozen=True, eq=False)
class TokenCache:
    """The cache of a table: its place, and how to make it."""

    uri: str
    """The table."""
    card: str
    """Of the joint network."""
    config: TokenCacheConfig
    seed: int

    @staticmethod
    def of(config: TrainConfig, uri: str) -> TokenCache:
        """The cache of a training's table, or of its validation's."""
        return TokenCache(uri, config.method.backbone.weights, config.cache, config.seed)

    @cached_property
    def table(self) -> RowReader:
        """The samples; one row group at a time is in memory."""
        return RowReader(self.uri, kept_groups=1)

    @cached_property
    def folder(self) -> str:
        """Beside a local table; in the cache folder of this machine for one in an object store."""
        made_by = {k: v for k, v in asdict(self.config).items() if k in _MAKING}
        own = digest(VERSION, read_card(self.card).sha256, self.table.digest(), made_by, self.seed)[:16]
        if is_remote(self.uri):
            home = os.environ.get("MVPOSE_CACHE") or os.path.join(home_folder(), ".cache", "mvpose")
            return os.path.join(home, "tokens", own)
        return join(self.uri if is_folder(self.uri) else f"{self.uri}.cache", "tokens", own)

    def file(self, group: int) -> str:
        """The file of a row group."""
        return join(self.folder, f"{group:05d}.safetensors")

    def groups(self) -> list[int]:
        """The row groups that are in the cache."""
        return [group for group in range(self.table.num_groups) if exists(self.file(group))]

    def make(self, groups: Sequence[int], processes: int) -> Iterator[int]:
        """Make what is missing of these row groups, in this process or in several; yields each when it is there."""
        there = set(self.groups()) & set(groups)
        missing = [group for group in groups if group not in there]
        yield from sorted(there)
        locate(read_card(self.card))  # a missing file is an error here, not in each process of the pool
        if processes <= 1:
            maker = _Maker(self)
            for group in missing:
                maker.make(group)
                yield group
            return
        # Forking a process whose libraries run threads sometimes hangs.
        with ProcessPoolExecutor(processes, get_context("spawn"), _start, (self,)) as pool:
            yield from pool.map(_make, missing)


_MAKING = ("draws", "furniture", "people", "edge", "misplaced", "blurred")
"""Settings that decide what is in the files; the others apply at each step."""


class _Maker:
    """Makes the files of a cache, with one session of the network."""

    def __init__(self, cache: TokenCache) -> None:
        self.cache = cache
        card = read_card(cache.card)
        self.network = JointNetwork(card, DetectorConfig(threads=1, precision="float32"), keep_tokens=True)
        self.skeleton = SKELETONS[self.network.skeleton.name]

    def make(self, group: int) -> None:
        """Write the file of one row group."""
        rows = self.cache.table.rows_of(group)
        samples = [self.cache.table.sample(row) for row in rows]
        views = max(len(sample.rig) for sample in samples)
        images = [
            [decoded(image, s) if seen else None for image, seen in zip(s.images, _seen(s), strict=True)]
            for s in samples
        ]
        parts = []
        for i, (row, sample) in enumerate(zip(rows, samples, strict=True)):
            others = [image for image in images[i - 1] if image is not None]
            rng = np.random.default_rng([self.cache.seed, row])
            parts.append(self._sample(sample, images[i], others, views, rng))
        # safetensors writes the memory of an array whatever its order: a transposed one would be read back scrambled.
        columns = {name: np.ascontiguousarray([part[name] for part in parts]) for name in parts[0]}
        write_whole(self.cache.file(group), save(columns))

    def _sample(
        self,
        sample: Sample,
        images: list[np.ndarray | None],
        others: list[np.ndarray],
        views: int,
        rng: np.random.Generator,
    ) -> dict[str, np.ndarray]:
        versions, config = 1 + self.cache.config.draws, self.cache.config
        present = _seen(sample)
        seen: list[SeenPerson] = []
        for image, box in zip(images, sample.box, strict=True):
            if image is not None:
                person = SeenPerson(image, box)
                seen += [found(person, rng), *(disturbed(person, others, config, rng) for _ in range(config.draws))]
        box = np.stack([person.box for person in seen])
        joints = self.network([person.image for person in seen], box)
        assert joints.tokens is not None
        shape = (int(present.sum()), versions)
        boxes = box.reshape(*shape, 4)
        cameras = crop_projections(
            _rig(sample, present),
            boxes,
            crop_from_image(box, self.network.card.input_size).reshape(*shape, 2, 3),
        ).numpy()
        consensus, agreed = self._consensus(sample, present, joints, boxes)
        source, there = sample.skeleton.remap(self.skeleton)
        table = np.where((there & sample.valid[source])[:, None], sample.xyz[source], np.nan)
        tokens = np.zeros((views, versions, *joints.tokens.shape[1:]), np.float16)
        projections = np.zeros((views, versions, 3, 4))
        where = np.flatnonzero(present)
        tokens[where] = joints.tokens.reshape(*shape, *joints.tokens.shape[1:])
        projections[where] = cameras
        return {
            "tokens": tokens,
            "projections": projections,
            "present": np.pad(present, (0, views - len(present))),
            "consensus": consensus.astype(np.float32),
            "views": agreed.astype(np.int32),
            "table": table.astype(np.float32),
        }

    def _consensus(
        self, sample: Sample, present: Bool[np.ndarray, " V"], joints: BoxJoints, boxes: Float[np.ndarray, "n k 4"]
    ) -> tuple[Float[np.ndarray, "J 3"], Int[np.ndarray, " J"]]:
        """The detector's joints in world metres, and how many views in full view agree on each."""
        if present.sum() < 2:
            missing = np.full((len(self.skeleton.joints), 3), np.nan)
            return missing, np.zeros(len(missing), int)
        rig = _rig(sample, present).to(torch.float64)
        every = slice(None, None, boxes.shape[1])
        pixels, valid = rig.undistorted(torch.from_numpy(joints.xy[every]).double())
        sure = torch.from_numpy(joints.confidence[every]).double()
        limit = ReconstructionConfig.max_error * torch.from_numpy((boxes[:, 0, 2:] - boxes[:, 0, :2]).max(axis=1))
        solved = triangulate_robust(
            pixels.transpose(0, 1),
            rig.projections[None],
            torch.where(valid & (sure >= ReconstructionConfig.min_confidence), sure, 0.0).T,
            threshold_px=limit[None],
            scale_px=limit[None] / 2,
            check=False,
        )
        points = torch.where(solved.valid[:, None], solved.points, torch.nan)
        return points.numpy(), (solved.inliers & solved.valid[:, None]).sum(dim=-1).numpy()


def _seen(sample: Sample) -> Bool[np.ndarray, " V"]:
    return np.asarray(np.isfinite(sample.box).all(axis=-1))


def _rig(sample: Sample, present: Bool[np.ndarray, " V"]) -> CameraRig:
    return sample.rig.select(tuple(name for name, there in zip(sample.rig.names, present, strict=True) if there))


_maker: _Maker | None = None
"""Of a process of the pool."""


def _start(cache: TokenCache) -> None:
    global _maker
    torch.set_num_threads(1)
    _maker = _Maker(cache)


def _make(group: int) -> int:
    assert _maker is not None
    _maker.make(group)
    return group

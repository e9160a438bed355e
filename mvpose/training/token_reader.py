"""Training samples from a cache of tokens: labels in the detector's own joints, and what may go wrong at each step.

The joints of a table need not be the detector's: those of a rendered person are up to 11 cm from RTMPose's (neck), and
a network trained on them agrees with itself and misses the footage. Labels are therefore the joints on which the
detector's views agree. The table's joints only tell which of them are wrong: those that are further from the table's
than the constant offset between the two definitions, in the person's own axes, explains.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from jaxtyping import Float, Int
from safetensors import safe_open
from torch.utils.data import Dataset

from mvpose.models.detection.cards import read_card
from mvpose.skeleton import SKELETONS, Skeleton
from mvpose.training.batches import projected, stacked
from mvpose.training.order import Take
from mvpose.training.token_cache import TokenCache
from mvpose.training.training_config import SamplesConfig, TokenCacheConfig

VALIDATION_VIEWS = 4


@dataclass(frozen=True, eq=False)
class TokenLabels:
    """Labels of all rows of a table."""

    joints: Float[np.ndarray, "n J 3"]
    """World, metres; the table's own where its joints are the detector's. NaN where there is none."""
    offsets: Float[np.ndarray, "J 3"]
    """From the table's joints to the labels, metres: to the person's left, forward and up. NaN if not comparable."""


def token_labels(cache: TokenCache) -> TokenLabels:
    """Labels from the small columns of a cache; rows that are not in it have none."""
    skeleton = SKELETONS[str(read_card(cache.card).skeleton)]
    shape = (len(cache.table), len(skeleton.joints))
    consensus, table = (np.full((*shape, 3), np.nan, np.float32) for _ in range(2))
    views = np.zeros(shape, np.int32)
    for group in cache.groups():
        rows = cache.table.rows_of(group)
        with safe_open(cache.file(group), framework="np") as file:
            for name, column in (("consensus", consensus), ("views", views), ("table", table)):
                column[rows.start : rows.stop] = file.get_tensor(name)
    if cache.table.skeleton.joints == skeleton.joints:
        return TokenLabels(table, np.full_like(table[0], np.nan))
    agreed = np.where((views >= cache.config.label_views)[..., None], consensus, np.nan)
    return _held_against(agreed, table, skeleton, cache.config.label_offset_m)


def _held_against(
    agreed: Float[np.ndarray, "n J 3"], table: Float[np.ndarray, "n J 3"], skeleton: Skeleton, maximum_m: float
) -> TokenLabels:
    """The agreed joints that are where the table's joints and the offset between the definitions have them."""
    axes = person_axes(table, skeleton)
    apart = np.einsum("nab,njb->nja", axes, agreed - table)
    comparable = np.isfinite(apart).all(axis=-1)
    offsets = np.full(table.shape[1:], np.nan)
    for joint in np.flatnonzero(comparable.any(axis=0)):
        offsets[joint] = np.median(apart[comparable[:, joint], joint], axis=0)
    wrong = comparable & (np.linalg.norm(apart - offsets, axis=-1) > maximum_m)
    return TokenLabels(np.where(wrong[..., None], np.nan, agreed), offsets)


def person_axes(joints: Float[np.ndarray, "n J 3"], skeleton: Skeleton) -> Float[np.ndarray, "n 3 3"]:
    """World to the person's own axes (rows): left, forward and up, from hips and shoulders."""
    corners = ("left_hip", "right_hip", "left_shoulder", "right_shoulder")
    left, right, one, other = (joints[:, skeleton.index(name)] for name in corners)
    up = _unit((one + other - left - right) / 2)
    forward = _unit(np.cross(left - right, up))
    return np.stack([np.cross(up, forward), forward, up], axis=1)


def _unit(vectors: Float[np.ndarray, "n 3"]) -> Float[np.ndarray, "n 3"]:
    return vectors / np.maximum(np.linalg.norm(vectors, axis=-1, keepdims=True), 1e-9)


class TokenReader(Dataset):
    """Map takes to the columns of `batches.sample_arrays`, with tokens in place of crops.

    In training, each step has its own number of views, and each sample its own views, versions and disturbances, all
    drawn from seed, epoch, step and row. In validation, every sample has up to `VALIDATION_VIEWS` views that depend on
    the row alone, and no disturbance other than that of the versions.
    """

    def __init__(
        self, cache: TokenCache, samples: SamplesConfig, size: tuple[int, int], seed: int, *, training: bool
    ) -> None:
        self._cache, self._samples, self._size = cache, samples, size
        self._seed, self._training = seed, training
        self._files: dict[int, Any] = {}

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_files": {}}

    @cached_property
    def labels(self) -> TokenLabels:
        """Labels of all rows."""
        return token_labels(self._cache)

    def __getitem__(self, take: Take) -> dict[str, np.ndarray]:
        views = VALIDATION_VIEWS
        if self._training:
            step = np.random.default_rng([self._seed, take.epoch, take.step])
            views = int(step.integers(self._samples.min_views, self._samples.views + 1))
        return stacked([self._sample(row, take, views) for row in take.read])

    def _sample(self, row: int, take: Take, views: int) -> dict[str, np.ndarray]:
        config = self._cache.config
        rng = np.random.default_rng([self._seed, take.epoch if self._training else 0, row])
        present = self._column(row, "present")
        chosen = rng.permutation(np.flatnonzero(present))[:views]
        tokens, projections = self._drawn(row, chosen, config, rng)
        joints = self.labels.joints[row].astype(np.float64)
        known = np.isfinite(joints).all(axis=-1)
        joints[~known] = 0.0
        joints_2d, inside, before = projected(projections, joints, self._size)
        if self._training:
            tokens = self._disturbed(tokens, row, take.rows, config, rng)
            projections = with_wrong_cameras(projections, self._size, config, rng)
        missing = views - len(chosen)

        def padded(values: np.ndarray) -> np.ndarray:
            return np.pad(values, ((0, missing), *[(0, 0)] * (values.ndim - 1)))

        return {
            "crops": padded(tokens.astype(np.float32)),
            "projections": padded(projections.astype(np.float32)),
            "present": np.arange(views) < len(chosen),
            "joints": joints.astype(np.float32),
            "known": known,
            "joints_2d": padded(joints_2d.astype(np.float32)),
            "inside": padded(inside & known),
            "before": padded(before & known),
        }

    def _drawn(
        self, row: int, chosen: Int[np.ndarray, " v"], config: TokenCacheConfig, rng: np.random.Generator
    ) -> tuple[Float[np.ndarray, "v J d"], Float[np.ndarray, "v 3 4"]]:
        """One version of each chosen view; samples differ in how many of their views are disturbed."""
        full = rng.random(len(chosen)) < rng.uniform(config.full_view, 1)
        version = np.where(full, 0, rng.integers(1, 1 + config.draws, len(chosen)))
        tokens, projections = self._column(row, "tokens"), self._column(row, "projections")
        return tokens[chosen, version], projections[chosen, version]

    def _disturbed(
        self,
        tokens: Float[np.ndarray, "v J d"],
        row: int,
        rows: Sequence[int],
        config: TokenCacheConfig,
        rng: np.random.Generator,
    ) -> Float[np.ndarray, "v J d"]:
        """Tokens of another person in place of a view's, and left and right exchanged."""
        tokens = tokens.copy()
        for view in np.flatnonzero(rng.random(len(tokens)) < config.another_person):
            other = int(rows[int(rng.integers(len(rows)))])
            there = np.flatnonzero(self._column(other, "present"))
            if other != row and len(there):
                tokens[view] = self._column(other, "tokens")[int(rng.choice(there)), 0]
        for view in np.flatnonzero(rng.random(len(tokens)) < config.exchanged_sides):
            tokens[view] = tokens[view][self._mirror]
        return tokens

    @cached_property
    def _mirror(self) -> list[int]:
        return list(SKELETONS[str(read_card(self._cache.card).skeleton)].mirror)

    def _column(self, row: int, name: str) -> Any:
        group = int(self._cache.table.group_of(np.array([row]))[0])
        if group not in self._files:
            self._files[group] = safe_open(self._cache.file(group), framework="np").__enter__()
        return self._files[group].get_slice(name)[row - self._cache.table.rows_of(group).start]


def with_wrong_cameras(
    projections: Float[np.ndarray, "v 3 4"], size: tuple[int, int], config: TokenCacheConfig, rng: np.random.Generator
) -> Float[np.ndarray, "v 3 4"]:
    """Sometimes cameras that are turned about their centres, with focal lengths that are a little off."""
    if rng.random() >= config.wrong_camera:
        return projections
    out = projections.copy()
    middle = (np.array(size) - 1.0) / 2
    for view, matrix in enumerate(projections):
        turn = _rotation(rng.normal(0, 1, 3), np.radians(config.wrong_degrees) * rng.random())
        centre = -np.linalg.solve(matrix[:, :3], matrix[:, 3])
        zoom = 1 + config.wrong_focal * rng.uniform(-1, 1)
        scaling = np.array([[zoom, 0, (1 - zoom) * middle[0]], [0, zoom, (1 - zoom) * middle[1]], [0, 0, 1]])
        linear = scaling @ matrix[:, :3] @ turn
        out[view] = np.concatenate([linear, -(linear @ centre)[:, None]], axis=1)
    return out


def _rotation(axis: Float[np.ndarray, "3"], angle: float) -> Float[np.ndarray, "3 3"]:
    x, y, z = axis / np.linalg.norm(axis)
    cross = np.array([[0, -z, y], [z, 0, -x], [-y, x, 0]])
    return np.eye(3) + np.sin(angle) * cross + (1 - np.cos(angle)) * cross @ cross

"""The samples of each training step, determined by the seed before training starts.

A step uses the same samples after any number of restarts, so the step is the position in the data. The row groups of
an epoch are divided among the workers, and those of a worker among its loaders, so that each group is read and decoded
by one process. Which samples meet in a step therefore depends on the number of workers, but not on that of loaders.
When the number of workers changes in the middle of an epoch, the rows that it has not used yet are divided again: every
epoch takes each row at most once, and leaves out less than a batch.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Int

from mvpose.errors import ConfigError


@dataclass(frozen=True)
class Split:
    """From a step on, each batch is divided among a number of workers."""

    step: int
    workers: int


ALONE = (Split(0, 1),)


@dataclass(frozen=True)
class Take:
    """The samples of one worker in one step."""

    step: int
    epoch: int
    rows: tuple[int, ...]
    """Row numbers of the table."""
    places: tuple[int, ...] | None = None
    """Places in `rows` of those that one of the worker's loaders reads; None for all."""

    @property
    def read(self) -> tuple[int, ...]:
        """The rows to read."""
        return self.rows if self.places is None else tuple(self.rows[place] for place in self.places)


@dataclass(frozen=True, eq=False)
class _Share:
    """The part of an epoch that one worker reads."""

    rows: Int[np.ndarray, " m"]
    """In training order."""
    turns: Int[np.ndarray, " m"]
    """Of each row's group among the groups of this share, in the order of reading."""
    per_step: int


class SampleOrder:
    """The samples of every step. Each epoch drops its last incomplete batch.

    The groups are put in random order, and the rows of each `window` groups of a worker are shuffled together. Readers
    that keep `window` groups together therefore read each group once. A table of at most `window` groups is shuffled as
    a whole.
    """

    def __init__(
        self, rows: Int[np.ndarray, " n"], groups: Int[np.ndarray, " n"], batch: int, seed: int, window: int
    ) -> None:
        """`rows` of a table and their row groups; `batch` samples per step over all workers.

        ConfigError if there are fewer rows than a batch.
        """
        if len(rows) < batch:
            raise ConfigError(f"{len(rows)} training samples are fewer than a batch of {batch}.")
        self.steps_per_epoch = len(rows) // batch
        self.rows, self._groups = rows, groups
        self._batch, self._seed, self._window = batch, seed, window
        self._divided: tuple[int, tuple[Split, ...]] = (-1, ())
        self._shares: list[_Share] = []

    def __len__(self) -> int:
        return len(self.rows)

    def take(self, step: int, rank: int = 0, splits: tuple[Split, ...] = ALONE) -> Take:
        """The samples of worker `rank` in step `step` (from 0); `splits` are those of the training so far."""
        share, here = self._share(step, rank, splits)
        return Take(step, step // self.steps_per_epoch, tuple(share.rows[here].tolist()))

    def parts(self, step: int, rank: int, splits: tuple[Split, ...], loaders: int) -> list[Take]:
        """The same take for each of a worker's loaders, which reads the rows of its own row groups."""
        share, here = self._share(step, rank, splits)
        take, loader = self.take(step, rank, splits), share.turns[here] % loaders
        return [replace(take, places=tuple(np.flatnonzero(loader == number).tolist())) for number in range(loaders)]

    def _share(self, step: int, rank: int, splits: tuple[Split, ...]) -> tuple[_Share, slice]:
        epoch, first = step // self.steps_per_epoch, step - step % self.steps_per_epoch
        before = max((split for split in splits if split.step <= first), key=lambda split: split.step)
        within = (Split(first, before.workers), *(split for split in splits if first < split.step <= step))
        if self._divided != (epoch, within):
            self._divided, self._shares = (epoch, within), self._divide(epoch, within)
        share = self._shares[rank]
        begin = (step - within[-1].step) * share.per_step
        return share, slice(begin, begin + share.per_step)

    def _divide(self, epoch: int, splits: tuple[Split, ...]) -> list[_Share]:
        """The shares of the last of an epoch's splits, of what the earlier ones have left."""
        rng = np.random.default_rng([self._seed, epoch])
        place = np.empty(int(self._groups.max()) + 1, int)
        shuffled = rng.permutation(np.unique(self._groups))
        place[shuffled] = np.arange(len(shuffled))
        places, keys = place[self._groups], rng.random(len(self._groups))
        left = np.argsort(places, kind="stable")
        for split, following in zip(splits, (*splits[1:], None), strict=True):
            # Worker w takes every `workers`-th sample of a batch, from the w-th: batches need not be divisible.
            sizes = [len(range(rank, self._batch, split.workers)) for rank in range(split.workers)]
            cuts = len(left) * np.cumsum(sizes)[:-1] // self._batch
            parts = [self._shuffled(part, places, keys) for part in np.split(left, cuts)]
            if following is None:
                return [
                    _Share(self.rows[order], turns, size) for (order, turns), size in zip(parts, sizes, strict=True)
                ]
            steps = following.step - split.step
            used = np.concatenate([order[: steps * size] for (order, _), size in zip(parts, sizes, strict=True)])
            left = left[~np.isin(left, used)]
        raise AssertionError("no split")

    def _shuffled(
        self, part: Int[np.ndarray, " m"], places: Int[np.ndarray, " n"], keys: np.ndarray
    ) -> tuple[Int[np.ndarray, " m"], Int[np.ndarray, " m"]]:
        """Indices of a worker's rows in training order, and the turn of each one's group."""
        turns = np.unique(places[part], return_inverse=True)[1]
        order = np.lexsort((keys[part], turns // self._window))
        return part[order], turns[order]

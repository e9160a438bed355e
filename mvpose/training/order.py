"""The samples of each training step, determined by the seed before training starts.

Step s uses the same samples for any number of workers and after any number of restarts, so the step alone is the
position in the data.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Int

from mvpose.errors import ConfigError


def epoch_order(groups: Int[np.ndarray, " n"], seed: int, epoch: int, window: int) -> Int[np.ndarray, " n"]:
    """A permutation of n rows in row groups `groups`; it differs between epochs.

    The groups are put in random order, and the rows of each `window` groups are shuffled together. A reader that keeps
    `window` groups therefore reads each group once. A table of at most `window` groups is shuffled as a whole.
    """
    rng = np.random.default_rng([seed, epoch])
    shuffled = rng.permutation(np.unique(groups))
    window_of = np.empty(int(groups.max()) + 1, int)
    window_of[shuffled] = np.arange(len(shuffled)) // window
    return np.lexsort((rng.random(len(groups)), window_of[groups]))


@dataclass(frozen=True)
class Take:
    """The samples that one worker reads for one step."""

    step: int
    epoch: int
    rows: tuple[int, ...]
    """Row numbers of the table."""


class SampleOrder:
    """The samples of every step. Each epoch drops its last incomplete batch."""

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
        self._epoch, self._order = -1, rows

    def __len__(self) -> int:
        return len(self.rows)

    def take(self, step: int, rank: int = 0, workers: int = 1) -> Take:
        """The share of one of `workers` in step `step` (from 0): every `workers`-th sample of the batch."""
        epoch, place = divmod(step, self.steps_per_epoch)
        if epoch != self._epoch:
            order = epoch_order(self._groups, self._seed, epoch, self._window)
            self._epoch, self._order = epoch, self.rows[order]
        batch = self._order[place * self._batch : (place + 1) * self._batch]
        return Take(step, epoch, tuple(batch[rank::workers].tolist()))

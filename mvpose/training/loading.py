"""Read batches ahead of the training, in a thread or in several processes.

Each loader process reads the row groups that are its own, so that all of them together read and decode the table once
per epoch, and keep one window of groups in memory. A batch has rows of many groups, so loaders deliver parts of it; a
thread of the training process puts them together, in pinned memory if they go to a GPU.
"""

from __future__ import annotations

import itertools
import pickle
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Protocol, runtime_checkable

import cv2
import numpy as np
import torch
from jaxtyping import UInt8
from torch.utils.data import DataLoader, Dataset

from mvpose.training.batches import Batch, batch_of
from mvpose.training.order import Take

READ_AHEAD = 4
"""Batches that each loader process prefetches."""
MERGED_AHEAD = 2
"""Complete batches that wait for the training."""
Columns = dict[str, np.ndarray]
Part = tuple[tuple[int, ...], Columns]
"""Columns of the rows at some places of a batch."""
Packed = tuple[bytes, list[int], UInt8[torch.Tensor, " n"]]


@runtime_checkable
class Reader(Protocol):
    """Maps a take to the columns of the rows that are to be read. The columns of a row depend on the take alone."""

    def __getitem__(self, take: Take, /) -> Columns: ...


def read_by_threads(source: Reader, takes: Iterable[Take], threads: int, *, pinned: bool = False) -> Iterator[Batch]:
    """Batches in the order of the takes, read ahead."""
    with ThreadPoolExecutor(threads) as pool:
        reading: deque[Future[Columns]] = deque()
        try:
            for take in takes:
                reading.append(pool.submit(source.__getitem__, take))
                if len(reading) > threads:
                    yield _whole(reading.popleft().result(), pinned)
            while reading:
                yield _whole(reading.popleft().result(), pinned)
        finally:
            for future in reading:
                future.cancel()


def read_by_processes(
    source: Reader, parts: Callable[[int], list[Take]], steps: range, loaders: int, *, pinned: bool = False
) -> Iterator[Batch]:
    """The batch of each step, from the rows that the loaders read: `parts(step)` has a take for each of them.

    Threads would hold the trainer's interpreter lock.
    """
    blocks = [steps[i : i + loaders] for i in range(0, len(steps), loaders)]
    # As many steps at once as there are loaders: one message each way per step, however many loaders there are.
    chunks = (chunk for block in blocks for chunk in zip(*(parts(step) for step in block), strict=True))
    delivered = iter(
        DataLoader(
            _Chunks(source),
            batch_size=None,
            # The loader draws a seed for its processes; it must not draw from the global generator.
            generator=torch.Generator(),
            # Items go to the processes in turn, so that item i is read by process i modulo their number.
            sampler=chunks,
            num_workers=loaders,
            prefetch_factor=READ_AHEAD,
            # Forking a process whose libraries run threads sometimes hangs (observed). Spawning takes seconds.
            multiprocessing_context="spawn",
            collate_fn=_unchanged,
            worker_init_fn=_single_threaded,
        )
    )

    def merged() -> Iterator[Batch]:
        for _ in blocks:
            from_loaders = [_unpacked(*next(delivered)) for _ in range(loaders)]
            for of_step in zip(*from_loaders, strict=True):
                yield _merged([part for part in of_step if part is not None], pinned)

    return _ahead(merged(), MERGED_AHEAD)


class _Chunks(Dataset):
    """Maps takes of one loader to their columns, packed."""

    def __init__(self, source: Reader) -> None:
        self._source = source

    def __getitem__(self, takes: Sequence[Take]) -> Packed:
        return _packed([(take.places, self._source[take]) if take.places else None for take in takes])


def _packed(parts: list[Part | None]) -> Packed:
    """Arrays in one block of memory: each tensor that passes between processes costs a file descriptor and a call."""
    arrays: list[np.ndarray] = []

    def set_aside(buffer: pickle.PickleBuffer) -> None:
        arrays.append(np.frombuffer(buffer.raw(), np.uint8))

    header = pickle.dumps(parts, protocol=5, buffer_callback=set_aside)
    whole = np.concatenate(arrays) if arrays else np.empty(0, np.uint8)
    return header, [len(array) for array in arrays], torch.from_numpy(whole)


def _unpacked(header: bytes, sizes: list[int], whole: UInt8[torch.Tensor, " n"]) -> list[Part | None]:
    """What `_packed` was given; arrays are views of the block."""
    ends = list(itertools.accumulate(sizes))
    block = whole.numpy().data
    return pickle.loads(header, buffers=[block[end - size : end] for size, end in zip(sizes, ends, strict=True)])


def _whole(columns: Columns, pinned: bool) -> Batch:
    """The batch of a reader's columns."""
    tensors = {name: torch.from_numpy(array) for name, array in columns.items()}
    return batch_of({name: tensor.pin_memory() if pinned else tensor for name, tensor in tensors.items()})


def _merged(parts: Sequence[Part], pinned: bool) -> Batch:
    """The batch of the rows that each loader has read."""
    rows, like = sum(len(places) for places, _ in parts), parts[0][1]
    kinds = {name: torch.from_numpy(array).dtype for name, array in like.items()}
    whole = {
        name: torch.empty((rows, *array.shape[1:]), dtype=kinds[name], pin_memory=pinned)
        for name, array in like.items()
    }
    for places, columns in parts:
        for name, tensor in whole.items():
            tensor.numpy()[list(places)] = columns[name]
    return batch_of(whole)


def _ahead(batches: Iterator[Batch], count: int) -> Iterator[Batch]:
    """The same batches, `count` of them made in advance by a thread."""
    with ThreadPoolExecutor(1) as pool:
        coming = deque(pool.submit(next, batches, None) for _ in range(count))
        while (batch := coming.popleft().result()) is not None:
            coming.append(pool.submit(next, batches, None))
            yield batch


def _unchanged(item: object) -> object:
    return item


def _single_threaded(_: int) -> None:
    cv2.setNumThreads(1)

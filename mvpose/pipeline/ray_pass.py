"""The pass over the clips of a job on Ray: one lazy dataset of clips, one actor pool, and a task per capture."""

from __future__ import annotations

import json
from collections.abc import Generator, Iterator
from functools import partial
from typing import Any

import numpy as np
import ray
from ray.data import ActorPoolStrategy, TaskPoolStrategy, from_arrow
from ray.data._internal.execution.backpressure_policy import (  # no public name (checked in Ray 2.60)
    ENABLED_BACKPRESSURE_POLICIES,
    ENABLED_BACKPRESSURE_POLICIES_CONFIG_KEY,
    BackpressurePolicy,
)

from mvpose.pipeline.capacity import Need
from mvpose.pipeline.one_pass import Finishing, one_pass
from mvpose.pipeline.open_work import OpenWork
from mvpose.pipeline.worker import ClipStages, JobStages, Receipt, StageSpec, finished

WAITING_CLIPS = 1024
"""Clips that wait for a worker, at 6 kB each in the driver (measured)."""


def ray_pass(
    stages: JobStages, work: OpenWork, pool: Need, limits: tuple[int, int], finisher: Need, clips_at_once: int = 1
) -> Generator[Receipt]:
    """The pass with a pool of (minimum, maximum) `limits` workers; as many captures are finished at once at most.

    A worker does `clips_at_once`, each in a thread.
    """
    shared = ray.put(stages)
    # Attempts are counted by claims, so Ray itself may retry without end.
    options = {"num_cpus": finisher.resources["CPU"], "max_retries": -1, "label_selector": dict(finisher.labels)}
    finish = ray.remote(finished).options(**options)
    finishing = Finishing(partial(finish.remote, shared), _done, ray.get, at_once=limits[1])
    clips = _clips(stages.of_clips, work, pool, limits, clips_at_once)
    try:
        yield from one_pass(clips, work.clips_left, finishing)
    finally:
        clips.close()
        for each in finishing.running:
            ray.cancel(each)


def _done(running: list[ray.ObjectRef], wait: bool) -> list[ray.ObjectRef]:
    return ray.wait(running, num_returns=1 if wait else len(running), timeout=None if wait else 0)[0]


def _clips(
    specs: tuple[StageSpec, ...], work: OpenWork, need: Need, limits: tuple[int, int], at_once: int
) -> Generator[list[Receipt]]:
    """Receipts of the clips by clip, as they are done."""
    if not work.tables:
        return
    amounts = dict(need.resources)
    minimum, maximum = limits
    requested: dict[str, Any] = {
        "num_cpus": amounts.pop("CPU"), "num_gpus": amounts.pop("GPU"), "resources": amounts or None,
        "label_selector": dict(need.labels) or None,
    }  # fmt: skip
    # By default Ray queues clips at a worker in advance, where they wait behind a slow one while others are idle.
    pool = ActorPoolStrategy(
        min_size=min(minimum, work.clips),
        max_size=min(maximum, work.clips),
        max_tasks_in_flight_per_actor=at_once,
        max_concurrent_calls_per_actor=at_once,
        enable_true_multi_threading=at_once > 1,
    )
    rows: Any = _rows
    dataset = from_arrow(list(work.tables)).map_batches(
        rows, batch_size=None, num_cpus=0, compute=TaskPoolStrategy(size=1)
    )
    receipts = dataset.map_batches(ClipStages, fn_constructor_args=(specs,), batch_size=1, compute=pool, **requested)
    receipts.context.target_max_block_size = 1  # so that each row is a block, and each block a task
    receipts.context.set_config(ENABLED_BACKPRESSURE_POLICIES_CONFIG_KEY, [*ENABLED_BACKPRESSURE_POLICIES, ShortQueue])
    for row in receipts.iter_rows():
        yield json.loads(row["receipts"])


def _rows(batch: dict[str, np.ndarray]) -> Iterator[dict[str, np.ndarray]]:
    """The rows of a table one at a time. This task needs no CPU, so a pool that takes all of them does not hang it."""
    for i in range(len(batch["start"])):
        yield {name: column[i : i + 1] for name, column in batch.items()}


class ShortQueue(BackpressurePolicy):
    """Reads clips as workers take them. Ray bounds its queues by bytes alone, and these rows have a hundred each."""

    def max_task_output_bytes_to_read(self, op: Any) -> int | None:
        """0 while enough clips wait."""
        waiting = sum(self._topology[after].total_enqueued_input_blocks() for after in op.output_dependencies)
        return 0 if waiting >= WAITING_CLIPS else None

"""The part of a job that runs in a worker: claim a clip, compute it, commit it, return a receipt."""

from __future__ import annotations

import json
import logging
import math
import os
import re
import time
import traceback
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from multiprocessing.pool import ThreadPool
from threading import Lock
from typing import Any

import numpy as np
import pyarrow as pa

from mvpose.errors import (
    ClipTimeoutError,
    FailureReason,
    MvposeError,
    ResultsError,
    is_debugging,
    redacted,
    redacted_traceback,
)
from mvpose.records import CaptureTasks, Clip, ClipFailure, Kind, Task
from mvpose.run.store import ClipStore, Commit, TableFile

logger = logging.getLogger(__name__)
CLIPS_TO_KNOW = 3
SLOWER = 10.0
"""A clip of four people takes four times as long as a clip of an empty room (default detector)."""
MIN_S = 120.0
"""Stalled storage may take this long to recover."""


@dataclass
class Pace:
    """The slowest clip that a stage has done in one process."""

    clips: int = 0
    seconds: float = 0.0
    seconds_per_camera_frame: float = 0.0

    def took(self, seconds: float, camera_frames: int) -> None:
        """Record a finished clip; `camera_frames` is its frames summed over its cameras."""
        self.clips += 1
        self.seconds = max(self.seconds, seconds)
        self.seconds_per_camera_frame = max(self.seconds_per_camera_frame, seconds / max(1, camera_frames))

    def limit_s(self, camera_frames: int) -> float:
        """Seconds after which a clip counts as hung; infinite until `CLIPS_TO_KNOW` clips are done.

        A short clip may take as long as any earlier one, since part of the work does not grow with the frames.
        """
        if self.clips < CLIPS_TO_KNOW:
            return float("inf")
        return max(MIN_S, SLOWER * max(self.seconds, self.seconds_per_camera_frame * camera_frames))


@dataclass(frozen=True)
class Outcome:
    """Result of a stage for a clip, and the time spent (seconds by step)."""

    table: pa.Table | TableFile
    seconds: dict[str, float] = field(default_factory=dict)


class EarlierFailure(Exception):
    """A stage cannot start because an earlier stage failed on this clip; carries that failure."""

    def __init__(self, failure: ClipFailure) -> None:
        super().__init__(failure.detail)
        self.failure = failure


@dataclass(frozen=True)
class Fault:
    """Failure of a stage on a clip, with the traceback if the exception was unexpected."""

    failure: ClipFailure
    traceback: str = ""


Stage = Callable[[Task], Outcome]
Receipt = dict[str, Any]
"""What the driver learns of a task; plain values only."""

OUT_OF_MEMORY = re.compile(r"out of memory|failed to allocate|unable to allocate|bad_alloc", re.IGNORECASE)
"""PyTorch and CUDA, ONNX Runtime, NumPy and C++ raise different classes, with these messages."""
SAID_LENGTH, TRACEBACK_LENGTH = 500, 20_000
"""Maximum characters kept: a message may contain an array, a traceback thousands of recursive frames."""


@dataclass(frozen=True, kw_only=True)
class StageSpec:
    """How a worker creates its stage: `make(**arguments)` is called for its first task and loads the weights there."""

    kind: str
    make: Callable[..., Stage]
    arguments: dict[str, object]
    run_uri: str
    invocation: str
    """ID of this start of the job. Attempts are counted per start, so that killing a job uses up no attempts."""
    max_attempts: int = 3
    clip_timeout_s: float = math.inf
    """A task that takes longer fails, so that a hung decoder does not block the job."""
    clip_frames: int = 1
    """Frames that `clip_timeout_s` applies to; longer tasks, of whole captures, get proportionally more time."""
    cameras_of: Callable[[Task], int] | None = None
    """Number of cameras of a task. If given, a task also times out by the pace of the worker's earlier tasks."""
    replaceable: bool = False
    """Whether the worker may exit its process to be replaced: true on Ray, false in a plain loop."""

    def timeout_s(self, task: Task) -> float:
        """Time limit of a task, in seconds."""
        return self.clip_timeout_s * max(1.0, (task.clip.stop - task.clip.start) / self.clip_frames)


class StageUnmadeError(Exception):
    """A stage cannot be created; says why."""


class ClipWorker:
    """Runs one stage; safe to kill and retry at any point."""

    def __init__(self, spec: StageSpec) -> None:
        self.spec = spec
        self.store = ClipStore(spec.run_uri, spec.kind)
        self.pace = _PACES.setdefault((spec.invocation, spec.kind), Pace())
        self._making = Lock()
        self.spent = False
        """Whether this process may be in a bad state and should be replaced."""

    def stage(self) -> Stage:
        """The stage, created for the first task that needs it. StageUnmadeError if it cannot be created."""
        with self._making:
            return self._stage

    @cached_property
    def _stage(self) -> Stage:
        try:
            return self.spec.make(**self.spec.arguments)
        except MvposeError as error:
            _log_error(f"{self.spec.kind} cannot be created", error)
            raise StageUnmadeError(str(error)) from error

    def receipt(self, task: Task) -> Receipt:
        """What became of a task. Storage errors are passed in it, since Ray passes on only the text of an exception."""
        started = time.perf_counter()
        receipt: Receipt = {
            "stage": self.spec.kind, "capture_id": task.clip.capture_id, "frames": task.clip.stop - task.clip.start,
            "rows": 0, "failure": "", "failed_stage": "", "reason": "", "traceback": "", "attempts": 1, "seconds": {},
            "storage_error": "", "unmade": "", "earlier": False, "wall": 0.0,
        }  # fmt: skip
        try:
            done = self.store.committed(task.clip, task.fingerprint)
            earlier = done is not None and not self.store.is_claimed(task.clip, self.spec.invocation)
            commit = done or self._committed(task)
        except StageUnmadeError as error:
            return receipt | {"unmade": str(error)}
        except ResultsError as error:
            return receipt | {"storage_error": str(error)}
        if failure := commit.failure:
            receipt |= {"failure": failure.detail, "failed_stage": failure.stage, "reason": str(failure.reason)}
            receipt |= {"traceback": commit.traceback}
        return receipt | {
            "rows": commit.rows, "attempts": commit.attempt, "seconds": commit.seconds, "earlier": earlier,
            "wall": time.perf_counter() - started,
        }  # fmt: skip

    def run(self, task: Task) -> Commit:
        """The commit of a task: the existing one, or a new one."""
        return self.store.committed(task.clip, task.fingerprint) or self._committed(task)

    def tasks_left(self, plan: CaptureTasks) -> list[Task]:
        """The tasks of a capture that are not committed, or were tried in this start of the job."""
        done = self.store.commits_of(plan.capture_id)
        tried = self.store.claimed_of(plan.capture_id, self.spec.invocation) if done else set()
        return [t for t in plan.tasks(Kind(self.spec.kind)) if t.name not in done or t.clip.clip_id in tried]

    def exit_if_spent(self) -> None:
        """Exit a spent process on Ray. Everything is committed: its replacement returns the receipts of the commits."""
        if self.spent and self.spec.replaceable:
            os._exit(1)

    def _committed(self, task: Task) -> Commit:
        stage = self.stage()
        attempt = self.store.claim(task.clip, self.spec.invocation, self.spec.max_attempts)
        if not attempt:
            detail = f"its worker died {self.spec.max_attempts} times on this clip (out of memory, or a crash)."
            failure = ClipFailure(task.clip, self.spec.kind, FailureReason.WORKER_DIED, detail)
            return self.store.commit_failure(failure, task.fingerprint, self.spec.max_attempts)
        outcome = self._outcome(stage, task)
        if isinstance(outcome, Fault):
            return self.store.commit_failure(outcome.failure, task.fingerprint, attempt, outcome.traceback)
        return self.store.commit_table(task.clip, task.fingerprint, outcome.table, outcome.seconds, attempt)

    def _outcome(self, stage: Stage, task: Task) -> Outcome | Fault:
        """Run the stage on a task within its time limit; any exception but a storage error becomes a fault."""
        try:
            return self._in_time(stage, task)
        except EarlierFailure as earlier:
            return Fault(replace(earlier.failure, clip=task.clip))
        except ResultsError:
            # Not specific to the clip: a full disk or a damaged result folder stops the job.
            raise
        except MvposeError as error:
            _log_error(f"{self.spec.kind} of {task.clip.clip_id}", error)
            self.spent |= isinstance(error, ClipTimeoutError)
            return Fault(ClipFailure(task.clip, self.spec.kind, error.reason, str(error)))
        except Exception as error:  # noqa: BLE001 (a user's own detector may raise anything; only this clip fails)
            # A CUDA error persists in its process, and so may a shortage of memory.
            self.spent = True
            _log_error(f"{self.spec.kind} of {task.clip.clip_id}", error)
            return self._raised(task, error)

    def _in_time(self, stage: Stage, task: Task) -> Outcome:
        if self.spec.cameras_of is None:
            return within(self.spec.timeout_s(task), stage, task)
        camera_frames = self.spec.cameras_of(task) * (task.clip.stop - task.clip.start)
        limit_s = min(self.spec.timeout_s(task), self.pace.limit_s(camera_frames))
        started = time.monotonic()
        outcome = within(limit_s, stage, task)
        self.pace.took(time.monotonic() - started, camera_frames)
        return outcome

    def _raised(self, task: Task, error: Exception) -> Fault:
        """A failure that states the exception and its location, with its traceback."""
        # Redact before truncating: a truncated address would not be recognised.
        said = _printable(redacted(" ".join("".join(traceback.format_exception_only(error)).split())))[:SAID_LENGTH]
        place = traceback.extract_tb(error.__traceback__)[-1]
        trace = _printable(redacted("".join(traceback.format_exception(error))))[-TRACEBACK_LENGTH:]
        traceback.clear_frames(error.__traceback__)  # their locals may be what filled the memory
        kept = self.store.commit_name(task.clip, task.fingerprint)
        detail = (
            f"{said} ({os.path.basename(place.filename)}, line {place.lineno}, in {place.name}). Its traceback is in "
            f"{kept} of the run."
        )
        reason = FailureReason.EXCEPTION
        if isinstance(error, MemoryError) or OUT_OF_MEMORY.search(said):
            reason = FailureReason.OUT_OF_MEMORY
            detail += " Use fewer workers, smaller batches or shorter clips, then rerun with --retry-failed."
        return Fault(ClipFailure(task.clip, self.spec.kind, reason, detail), trace)


def _log_error(what: str, error: Exception) -> None:
    """Log the traceback when debugging; otherwise only the failure row refers to it."""
    if is_debugging():
        logger.debug("%s: %s", what, redacted_traceback(error))


def _printable(text: str) -> str:
    """Escape characters that are unsafe for UTF-8 files or terminals; line breaks stay."""
    return "".join(c if c.isprintable() or c == "\n" else c.encode("unicode_escape").decode() for c in text)


_PACES: dict[tuple[str, str], Pace] = {}
"""Keyed by job start and stage: a worker of a stage without a model handles a few clips, but its process many more."""

_IDLE: list[ThreadPool] = []
"""Idle threads. A new thread per task would get its own heap in the C library, where freed memory stays unused: 870
instead of 770 MiB after 14 clips of four cameras (measured)."""
os.register_at_fork(after_in_child=_IDLE.clear)


def within(seconds: float, stage: Stage, task: Task) -> Outcome:
    """Run a stage on a task; ClipTimeoutError if it takes longer than `seconds`.

    The stage runs in a separate daemon thread, since a hung decoder cannot be stopped: its thread is abandoned. Time is
    measured with the monotonic clock, so changes of the wall clock have no effect.
    """
    thread = _IDLE.pop() if _IDLE else ThreadPool(1)
    running = thread.apply_async(_without_exit, (stage, task))
    running.wait(None if math.isinf(seconds) else seconds)
    if not running.ready():
        thread.close()
        raise ClipTimeoutError(
            f"not done after {round(seconds, 1):g} s: its footage does not arrive, or its decoder hangs. If it is only "
            "slow, raise --clip-timeout-s, then rerun with --retry-failed."
        )
    _IDLE.append(thread)
    return running.get()


def _without_exit(stage: Stage, task: Task) -> Outcome:
    """Run a stage on a task. A plug-in that calls `sys.exit` would otherwise end the thread silently."""
    try:
        return stage(task)
    except SystemExit as error:
        raise RuntimeError(f"sys.exit({error.code!r}) was called") from error


@dataclass(frozen=True, kw_only=True)
class JobStages:
    """All stages of a job, in order."""

    of_clips: tuple[StageSpec, ...]
    """Run on each clip in one worker, which keeps their models."""
    of_captures: tuple[StageSpec, ...]
    """Run on each capture, in one process, once those of all its clips are done."""
    plan_of: Callable[[str], CaptureTasks]
    """The work on a capture by its ID, called in a worker."""

    def changed(self, change: Callable[[StageSpec], StageSpec]) -> JobStages:
        """The same stages with changed specifications."""
        return JobStages(
            of_clips=tuple(map(change, self.of_clips)),
            of_captures=tuple(map(change, self.of_captures)),
            plan_of=self.plan_of,
        )


class ClipStages:
    """Runs the stages of clips one after the other. Takes rows and returns receipts, as Ray Data requires."""

    def __init__(self, specs: Sequence[StageSpec]) -> None:
        self.workers = [ClipWorker(spec) for spec in specs]

    def __call__(self, batch: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        """The columns of one row of `OpenWork` to its receipts as JSON."""
        receipts = self.receipts({name: column[0] for name, column in batch.items()})
        for worker in self.workers:
            worker.exit_if_spent()
        return {"receipts": np.array([json.dumps(receipts)])}

    def receipts(self, row: Mapping[str, Any]) -> list[Receipt]:
        """One receipt per stage, up to the first that could not be run."""
        clip = Clip(str(row["capture_id"]), int(row["start"]), int(row["stop"]))
        tasks = [Task(clip, fingerprint) for fingerprint in str(row["fingerprints"]).split()]
        return list(_until_stopped(worker.receipt(task) for worker, task in zip(self.workers, tasks, strict=True)))


def finished(stages: JobStages, capture_id: str) -> list[Receipt]:
    """Run the stages of captures on one capture; receipts of what was not done before this start of the job.

    Each stage has at least one receipt.
    """
    receipts: list[Receipt] = []
    try:
        plan = stages.plan_of(capture_id)
    except ResultsError as error:
        return [{"unmade": "", "storage_error": str(error)}]
    for spec in stages.of_captures:
        worker = ClipWorker(spec)
        tasks = worker.tasks_left(plan) or plan.tasks(Kind(spec.kind))[-1:]
        receipts += _until_stopped(map(worker.receipt, tasks))
        if _stops(receipts[-1]):
            break
        worker.exit_if_spent()
    return receipts


def _until_stopped(receipts: Iterable[Receipt]) -> Iterator[Receipt]:
    for receipt in receipts:
        yield receipt
        if _stops(receipt):
            return


def _stops(receipt: Receipt) -> bool:
    return bool(receipt["unmade"] or receipt["storage_error"])

"""The part of a job that runs in a worker: claim a clip, compute it, commit it, hand back a receipt."""

from __future__ import annotations

import json
import math
import os
import re
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from multiprocessing.pool import ThreadPool

import numpy as np
import pyarrow as pa

from mvpose.archive.store import ClipStore, Commit, TableFile
from mvpose.errors import ClipTimeoutError, FailureReason, MvposeError, ResultsError
from mvpose.pipeline.pace import Pace
from mvpose.records import Clip, ClipFailure, Task
from mvpose.redaction import redacted


@dataclass(frozen=True)
class Outcome:
    """What a stage made of a clip, and where the time went (seconds by step)."""

    table: pa.Table | TableFile
    seconds: dict[str, float] = field(default_factory=dict)


class EarlierFailure(Exception):
    """A stage cannot start, since an earlier stage has failed on this clip: the failure is passed on."""

    def __init__(self, failure: ClipFailure) -> None:
        super().__init__(failure.detail)
        self.failure = failure


@dataclass(frozen=True)
class Fault:
    """A clip that a stage could not do, and the traceback of what it raised where no stage was to raise it."""

    failure: ClipFailure
    traceback: str = ""


Stage = Callable[[Task], Outcome]

OUT_OF_MEMORY = re.compile(r"out of memory|failed to allocate|unable to allocate|bad_alloc", re.IGNORECASE)
"""PyTorch and CUDA, ONNX Runtime, NumPy, C++: each has another class for it, and these words."""
SAID_LENGTH, TRACEBACK_LENGTH = 500, 20_000
"""Characters kept: a message may hold an array, a recursion thousands of frames."""


@dataclass(frozen=True, kw_only=True)
class StageSpec:
    """How a worker makes its stage: `make(**arguments)` is called once in each worker, where weights are loaded."""

    kind: str
    make: Callable[..., Stage]
    arguments: dict[str, object]
    run_uri: str
    invocation: str
    """Names this start of the job; attempts are counted within it, so that killing a job harms no clip."""
    max_attempts: int = 3
    clip_timeout_s: float = math.inf
    """A task that takes longer fails, so that a decoder that hangs holds nothing up."""
    clip_frames: int = 1
    """Frames to which `clip_timeout_s` belongs; a task of a whole capture has as many times more as it has clips."""
    cameras_of: Callable[[Task], int] | None = None
    """Cameras of a task's capture: with it a task fails earlier, by the pace of those that the worker has done."""
    keeps_weights: bool = False
    """Whether making the stage is dear, so that a pool of actors makes it once each; other stages run as tasks, in
    processes that Ray keeps."""
    replaceable: bool = False
    """Whether the worker may end its process, which is then replaced: so it is on Ray, and not in a plain loop."""

    def timeout_s(self, task: Task) -> float:
        """Seconds that a task may take."""
        return self.clip_timeout_s * max(1.0, (task.clip.stop - task.clip.start) / self.clip_frames)


class ClipWorker:
    """Runs one stage, safe to be killed and retried at any point. Rows in, receipts out, as Ray Data wants them."""

    def __init__(self, spec: StageSpec) -> None:
        self.spec = spec
        self.store = ClipStore(spec.run_uri, spec.kind)
        self.unmade = ""
        """Why there is no stage: it travels in receipts, as an error of the storage does."""
        try:
            self.stage = spec.make(**spec.arguments)
        except MvposeError as error:
            self.unmade = str(error)
        self.pace = _PACES.setdefault((spec.invocation, spec.kind), Pace())
        self.spent = False
        """Whether something is left in this process that had better end with it."""

    def __call__(self, batch: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Columns of `task_rows` to columns of receipts.

        An error of the storage travels in the receipt: Ray hands on the text of an exception, not the exception.
        """
        receipts = [self._receipt(task) for task in tasks_of(batch)]
        if self.spent and self.spec.replaceable:
            # All is committed: the worker that Ray starts in its place finds the commits and hands back the receipts.
            os._exit(1)
        return {name: np.array([receipt[name] for receipt in receipts]) for name in receipts[0]}

    def _receipt(self, task: Task) -> dict[str, str | int | float]:
        started = time.perf_counter()
        receipt = {
            "capture_id": task.clip.capture_id, "frames": task.clip.stop - task.clip.start, "rows": 0, "failure": "",
            "reason": "", "traceback": "", "attempts": 1, "seconds": "{}", "storage_error": "", "unmade": self.unmade,
            "wall": 0.0,
        }  # fmt: skip
        if self.unmade:
            return receipt
        try:
            commit = self.run(task)
        except ResultsError as error:
            return receipt | {"storage_error": str(error)}
        if commit.failure:
            receipt |= {"failure": commit.failure.detail, "reason": str(commit.failure.reason)}
            receipt |= {"traceback": commit.traceback}
        return receipt | {
            "rows": commit.rows, "attempts": commit.attempt, "seconds": json.dumps(commit.seconds),
            "wall": time.perf_counter() - started,
        }  # fmt: skip

    def run(self, task: Task) -> Commit:
        """The commit of a task: the one there is, or the one made now."""
        done = self.store.committed(task.clip, task.fingerprint)
        if done is not None:
            return done
        attempt = self.store.claim(task.clip, self.spec.invocation, self.spec.max_attempts)
        if not attempt:
            detail = f"its worker died {self.spec.max_attempts} times on this clip (out of memory, or a crash)."
            failure = ClipFailure(task.clip, self.spec.kind, FailureReason.WORKER_DIED, detail)
            return self.store.commit_failure(failure, task.fingerprint, self.spec.max_attempts)
        outcome = self._outcome(task)
        if isinstance(outcome, Fault):
            return self.store.commit_failure(outcome.failure, task.fingerprint, attempt, outcome.traceback)
        return self.store.commit_table(task.clip, task.fingerprint, outcome.table, outcome.seconds, attempt)

    def _outcome(self, task: Task) -> Outcome | Fault:
        """What the stage makes of a task, in its time; a fault for whatever it raises, but for the storage's errors."""
        try:
            return self._in_time(task)
        except EarlierFailure as earlier:
            return Fault(replace(earlier.failure, clip=task.clip))
        except ResultsError:
            # Not the clip's fault: a full disk or a damaged result folder stops the job.
            raise
        except MvposeError as error:
            self.spent |= isinstance(error, ClipTimeoutError)
            return Fault(ClipFailure(task.clip, self.spec.kind, error.reason, str(error)))
        except Exception as error:  # noqa: BLE001 (a user's own detector may raise anything: it costs one clip)
            # A CUDA error stays with the process that had it, and so does the memory that was short.
            self.spent = True
            return self._raised(task, error)

    def _in_time(self, task: Task) -> Outcome:
        if self.spec.cameras_of is None:
            return within(self.spec.timeout_s(task), self.stage, task)
        camera_frames = self.spec.cameras_of(task) * (task.clip.stop - task.clip.start)
        limit_s = min(self.spec.timeout_s(task), self.pace.limit_s(camera_frames))
        started = time.monotonic()
        outcome = within(limit_s, self.stage, task)
        self.pace.took(time.monotonic() - started, camera_frames)
        return outcome

    def _raised(self, task: Task, error: Exception) -> Fault:
        """A failure that names the exception and its place, with its traceback."""
        # Redacted before they are cut: half an address is not known as one.
        said = _printable(redacted(" ".join("".join(traceback.format_exception_only(error)).split())))[:SAID_LENGTH]
        place = traceback.extract_tb(error.__traceback__)[-1]
        trace = _printable(redacted("".join(traceback.format_exception(error))))[-TRACEBACK_LENGTH:]
        traceback.clear_frames(error.__traceback__)  # what they hold may be what the memory was too small for
        kept = self.store.commit_name(task.clip, task.fingerprint)
        detail = (
            f"{said} ({os.path.basename(place.filename)}, line {place.lineno}, in {place.name}). Its traceback is in "
            f"{kept} of the run."
        )
        reason = FailureReason.EXCEPTION
        if isinstance(error, MemoryError) or OUT_OF_MEMORY.search(said):
            reason = FailureReason.OUT_OF_MEMORY
            detail += " Use fewer workers, smaller batches or shorter clips, then run again with --retry-failed."
        return Fault(ClipFailure(task.clip, self.spec.kind, reason, detail), trace)


def _printable(text: str) -> str:
    """Lines of text with escapes for what neither UTF-8 nor a terminal is to be given."""
    return "".join(c if c.isprintable() or c == "\n" else c.encode("unicode_escape").decode() for c in text)


_PACES: dict[tuple[str, str], Pace] = {}
"""By start of the job and stage: a worker of a stage without a model lives for a few clips, its process for more."""

_IDLE: list[ThreadPool] = []
"""Threads without work. A new one for each task would take a heap of the C library's own, where memory that was freed
lies fallow: 870 in place of 770 MiB after 14 clips of four cameras (measured)."""
os.register_at_fork(after_in_child=_IDLE.clear)


def within(seconds: float, stage: Stage, task: Task) -> Outcome:
    """What a stage makes of a task; ClipTimeoutError once it has taken longer than `seconds`.

    It runs in a thread beside, since nothing can stop a decoder that hangs: that thread is left where it is, a daemon.
    Time is counted by the monotonic clock, whatever the clock on the wall does.
    """
    thread = _IDLE.pop() if _IDLE else ThreadPool(1)
    running = thread.apply_async(_without_exit, (stage, task))
    running.wait(None if math.isinf(seconds) else seconds)
    if not running.ready():
        thread.close()
        raise ClipTimeoutError(
            f"not done after {round(seconds, 1):g} s: its footage does not come, or its decoder hangs. If it is only "
            "slow, raise --clip-timeout-s; then run again with --retry-failed."
        )
    _IDLE.append(thread)
    return running.get()


def _without_exit(stage: Stage, task: Task) -> Outcome:
    """What a stage makes of a task. A plug-in that calls `sys.exit` would end the thread, and nobody would know."""
    try:
        return stage(task)
    except SystemExit as error:
        raise RuntimeError(f"sys.exit({error.code!r}) was called") from error


def run_batch(spec: StageSpec, batch: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """A batch through a worker that lives for this batch."""
    return ClipWorker(spec)(batch)


def task_rows(tasks: list[Task]) -> pa.Table:
    """Tasks as columns that Ray can see."""
    return pa.table(
        {
            "capture_id": [t.clip.capture_id for t in tasks],
            "start": [t.clip.start for t in tasks],
            "stop": [t.clip.stop for t in tasks],
            "fingerprint": [t.fingerprint for t in tasks],
        }
    )


def tasks_of(batch: dict[str, np.ndarray]) -> list[Task]:
    """The inverse of `task_rows`, from a batch of columns."""
    columns = (batch["capture_id"], batch["start"], batch["stop"], batch["fingerprint"])
    return [Task(Clip(str(c), int(a), int(b)), str(f)) for c, a, b, f in zip(*columns, strict=True)]

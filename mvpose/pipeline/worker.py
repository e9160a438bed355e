"""The part of a job that runs in a worker: claim a clip, compute it, commit it, hand back a receipt."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, field, replace

import numpy as np
import pyarrow as pa

from mvpose.archive.store import ClipStore, Commit
from mvpose.errors import FailureReason, MvposeError, ResultsError
from mvpose.records import Clip, ClipFailure, Task


@dataclass(frozen=True)
class Outcome:
    """What a stage made of a clip, and where the time went (seconds by step)."""

    table: pa.Table
    seconds: dict[str, float] = field(default_factory=dict)


class EarlierFailure(Exception):
    """A stage cannot start, since an earlier stage has failed on this clip: the failure is passed on."""

    def __init__(self, failure: ClipFailure) -> None:
        super().__init__(failure.detail)
        self.failure = failure


Stage = Callable[[Task], Outcome]


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
    keeps_weights: bool = False
    """Whether making the stage is dear, so that a pool of actors makes it once each; other stages run as tasks, in
    processes that Ray keeps."""


class ClipWorker:
    """Runs one stage, safe to be killed and retried at any point. Rows in, receipts out, as Ray Data wants them."""

    def __init__(self, spec: StageSpec) -> None:
        self.spec = spec
        self.store = ClipStore(spec.run_uri, spec.kind)
        self.stage = spec.make(**spec.arguments)

    def __call__(self, batch: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Columns of `task_rows` to columns of receipts.

        An error of the storage travels in the receipt: Ray hands on the text of an exception, not the exception.
        """
        receipts = [self._receipt(task) for task in tasks_of(batch)]
        return {name: np.array([receipt[name] for receipt in receipts]) for name in receipts[0]}

    def _receipt(self, task: Task) -> dict[str, str | int]:
        receipt = {"capture_id": task.clip.capture_id, "frames": task.clip.stop - task.clip.start}
        try:
            commit = self.run(task)
        except ResultsError as error:
            return receipt | {"rows": 0, "failure": "", "seconds": "{}", "storage_error": str(error)}
        failure = commit.failure.detail if commit.failure else ""
        return receipt | {
            "rows": commit.rows, "failure": failure, "seconds": json.dumps(commit.seconds), "storage_error": ""
        }  # fmt: skip

    def run(self, task: Task) -> Commit:
        """The commit of a task: the one there is, or the one made now."""
        done = self.store.committed(task.clip, task.fingerprint)
        if done is not None:
            return done
        if not self.store.claim(task.clip, self.spec.invocation, self.spec.max_attempts):
            detail = f"its worker died {self.spec.max_attempts} times on this clip (out of memory, or a crash)."
            failure = ClipFailure(task.clip, self.spec.kind, FailureReason.WORKER_DIED, detail)
            return self.store.commit_failure(failure, task.fingerprint)
        try:
            outcome = self.stage(task)
        except EarlierFailure as earlier:
            return self.store.commit_failure(replace(earlier.failure, clip=task.clip), task.fingerprint)
        except ResultsError:
            # Not the clip's fault: a full disk or a damaged result folder stops the job.
            raise
        except MvposeError as error:
            failure = ClipFailure(task.clip, self.spec.kind, error.reason, str(error))
            return self.store.commit_failure(failure, task.fingerprint)
        return self.store.commit_table(task.clip, task.fingerprint, outcome.table, outcome.seconds)


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

"""The part of a job that runs in a worker."""

import pyarrow as pa
import pytest

from mvpose.archive.store import ClipStore
from mvpose.errors import FailureReason, NoPersonError, ResultsError
from mvpose.pipeline.engine import Engine, EngineConfig
from mvpose.pipeline.worker import ClipWorker, Outcome, StageSpec, task_rows, tasks_of
from mvpose.records import Clip, ClipFailure, Task

TASK = Task(Clip("a", 0, 10), "f" * 16)


def frames_of(task: Task) -> Outcome:
    return Outcome(pa.table({"frame": list(range(task.clip.start, task.clip.stop))}), {"counting": 0.0})


def nobody(task: Task) -> Outcome:
    raise NoPersonError("nobody in clip")


def spec(tmp_path, stage, **changes) -> StageSpec:
    settings = {"kind": "poses", "make": lambda: stage, "arguments": {}, "run_uri": str(tmp_path), "invocation": "one"}
    return StageSpec(**(settings | changes))


def test_tasks_survive_their_rows():
    tasks = [TASK, Task(Clip("b/c", 5, 7), "0" * 16)]
    rows = task_rows(tasks)
    assert tasks_of({name: rows.column(name).to_numpy() for name in rows.column_names}) == tasks


def test_a_task_is_computed_once_and_its_commit_found_again(tmp_path):
    calls = []
    worker = ClipWorker(spec(tmp_path, lambda task: calls.append(task) or frames_of(task)))
    assert worker.run(TASK) == worker.run(TASK)
    assert calls == [TASK]
    assert worker.store.read(worker.run(TASK)).column("frame").to_pylist() == list(range(10))


def test_a_bad_clip_is_a_failure_row_with_its_reason_and_is_not_tried_again(tmp_path):
    worker = ClipWorker(spec(tmp_path, nobody))
    commit = worker.run(TASK)
    assert commit.failure == ClipFailure(TASK.clip, "poses", FailureReason.NO_PERSON, "nobody in clip")
    assert ClipWorker(spec(tmp_path, frames_of)).run(TASK) == commit


def test_a_clip_that_killed_its_worker_too_often_becomes_a_failure_row(tmp_path):
    store = ClipStore(str(tmp_path), "poses")
    for _ in range(2):
        assert store.claim(TASK.clip, "one", 2)
    commit = ClipWorker(spec(tmp_path, frames_of, max_attempts=2)).run(TASK)
    assert commit.failure is not None and commit.failure.reason == FailureReason.WORKER_DIED
    assert "died 2 times" in commit.failure.detail


def test_attempts_of_an_earlier_start_of_the_job_are_not_held_against_a_clip(tmp_path):
    store = ClipStore(str(tmp_path), "poses")
    for _ in range(3):
        store.claim(TASK.clip, "killed by its user", 3)
    assert ClipWorker(spec(tmp_path, frames_of)).run(TASK).failure is None


def test_storage_that_fails_stops_the_job_and_is_no_fault_of_the_clip(tmp_path):
    def full(task: Task) -> Outcome:
        raise ResultsError("disk full")

    with pytest.raises(ResultsError, match="disk full"):
        ClipWorker(spec(tmp_path, full)).run(TASK)
    assert ClipStore(str(tmp_path), "poses").committed(TASK.clip, TASK.fingerprint) is None


def test_a_defect_is_not_hidden_as_a_failed_clip(tmp_path):
    def defect(task: Task) -> Outcome:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        ClipWorker(spec(tmp_path, defect)).run(TASK)


def test_the_plain_loop_hands_back_a_receipt_for_every_task(tmp_path):
    tasks = [Task(Clip("a", i, i + 1), "f" * 16) for i in range(4)]
    engine = Engine(EngineConfig(local=True))
    receipts = list(engine.run(spec(tmp_path, lambda t: nobody(t) if t.clip.start == 2 else frames_of(t)), tasks))
    assert [r["rows"] for r in receipts] == [1, 1, 0, 1]
    assert [bool(r["failure"]) for r in receipts] == [False, False, True, False]

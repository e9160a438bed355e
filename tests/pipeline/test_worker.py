"""The part of a job that runs in a worker."""

import gc
import sys
import threading
import weakref
from dataclasses import replace

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mvpose.errors import FailureReason, NoPersonError, ResultsError, StageError
from mvpose.pipeline import worker as worker_module
from mvpose.pipeline.engine import Engine, EngineConfig
from mvpose.pipeline.open_work import OpenWork
from mvpose.pipeline.worker import ClipWorker, JobStages, Outcome, StageSpec
from mvpose.records import CaptureTasks, Clip, ClipFailure, Kind, Task
from mvpose.run.store import ClipStore

TASK = Task(Clip("a", 0, 10), "f" * 16)


def frames_of(task: Task) -> Outcome:
    return Outcome(pa.table({"frame": list(range(task.clip.start, task.clip.stop))}), {"counting": 0.0})


def nobody(task: Task) -> Outcome:
    raise NoPersonError("nobody in clip")


def spec(tmp_path, stage, **changes) -> StageSpec:
    settings = {"kind": "poses", "make": lambda: stage, "arguments": {}, "run_uri": str(tmp_path), "invocation": "one"}
    return StageSpec(**(settings | changes))


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


def of_a_plug_in(error: Exception):
    def stage(task: Task) -> Outcome:
        raise error

    return stage


def test_what_a_stage_raises_is_a_failure_with_its_type_place_and_message_and_its_traceback_is_kept(tmp_path):
    worker = ClipWorker(spec(tmp_path, of_a_plug_in(KeyError("no head\udcff\x1b[2J\n of clip 7"))))
    worker.run(TASK)
    commit = ClipStore(str(tmp_path), "poses").committed(TASK.clip, TASK.fingerprint)
    assert commit is not None and commit.failure is not None
    assert (commit.failure.stage, commit.failure.reason) == ("poses", FailureReason.EXCEPTION)
    assert commit.failure.detail.startswith("KeyError: 'no head\\udcff\\x1b[2J\\n of clip 7' (test_worker.py, line ")
    assert "in stage)" in commit.failure.detail and "\n" not in commit.failure.detail
    _, _, kept = commit.failure.detail.partition("Its traceback is in ")
    written = (tmp_path / kept.removesuffix(" of the run.")).read_text()
    assert "raise error" in written and "raise error" in commit.traceback.splitlines()[-2]
    assert worker.spent, "a process with a broken device would fail every clip after this one"


@pytest.mark.parametrize(
    "error",
    [
        MemoryError("std"),
        RuntimeError("CUDA out of memory. Tried to allocate 20.00 MiB."),
        RuntimeError("[ONNXRuntimeError] : 6 : Failed to allocate memory for requested buffer of size 1048576"),
    ],
)
def test_a_memory_that_is_too_small_is_named_whatever_library_says_so(tmp_path, error):
    commit = ClipWorker(spec(tmp_path, of_a_plug_in(error))).run(TASK)
    assert commit.failure is not None and commit.failure.reason == FailureReason.OUT_OF_MEMORY
    assert "smaller batches" in commit.failure.detail


def test_frames_of_a_clip_that_was_too_large_are_not_held(tmp_path):
    class Large:
        pass

    held = []

    def stage(task: Task) -> Outcome:
        large = Large()
        held.append(weakref.ref(large))
        raise MemoryError

    gc.disable()
    try:
        ClipWorker(spec(tmp_path, stage)).run(TASK)
        assert held[0]() is None
    finally:
        gc.enable()


def test_a_plug_in_that_ends_the_process_costs_its_clip_and_not_an_hour(tmp_path):
    commit = ClipWorker(spec(tmp_path, lambda task: sys.exit(3), clip_timeout_s=60.0)).run(TASK)
    assert commit.failure is not None and commit.failure.reason == FailureReason.EXCEPTION
    assert "sys.exit(3)" in commit.failure.detail


def test_an_interrupt_is_no_fault_of_the_clip(tmp_path, monkeypatch):
    def interrupted(seconds, stage, task):
        raise KeyboardInterrupt

    monkeypatch.setattr(worker_module, "within", interrupted)
    with pytest.raises(KeyboardInterrupt):
        ClipWorker(spec(tmp_path, frames_of)).run(TASK)
    assert ClipStore(str(tmp_path), "poses").committed(TASK.clip, TASK.fingerprint) is None


def test_a_clip_that_hangs_is_given_up_by_the_pace_of_those_before_it(tmp_path, monkeypatch):
    """The first time-out allows for any clip; after three clips the worker knows better."""
    monkeypatch.setattr(worker_module, "MIN_S", 0.2)
    hung = threading.Event()
    tasks = [Task(Clip("a", i, i + 1), "f" * 16) for i in range(4)]

    def stage(task: Task) -> Outcome:
        if task.clip.start == 3:
            hung.wait(30)
        return frames_of(task)

    settings = {"clip_timeout_s": 60.0, "invocation": tmp_path.name}
    worker = ClipWorker(spec(tmp_path, stage, cameras_of=lambda task: 4, **settings))
    failures = [worker.run(task).failure for task in tasks]
    hung.set()
    assert failures[:3] == [None] * 3 and failures[3] is not None
    assert failures[3].reason == FailureReason.TIMEOUT and "not done after" in failures[3].detail


def test_a_process_remembers_the_pace_of_a_stage_whose_workers_come_and_go(tmp_path):
    settings = {"cameras_of": lambda task: 4, "invocation": tmp_path.name}
    for i in range(3):
        worker = ClipWorker(spec(tmp_path, frames_of, **settings))
        worker.run(Task(Clip("a", i, i + 1), "f" * 16))
    assert worker.pace.clips == 3


@given(st.lists(st.tuples(st.floats(0, 1e4), st.integers(1, 10**6)), min_size=3), st.data())
def test_no_clip_is_given_up_sooner_than_ten_times_the_slowest_before_it_for_its_frames(done, data):
    known = worker_module.Pace()
    for seconds, camera_frames in done:
        known.took(seconds, camera_frames)
    seconds, camera_frames = data.draw(st.sampled_from(done))
    more = data.draw(st.integers(1, 50))
    limit = known.limit_s(camera_frames * more)
    assert limit >= 120 and limit >= 10 * seconds * more * (1 - 1e-9)
    assert known.limit_s(1) >= 10 * max(s for s, _ in done)


def run_all(tmp_path, stage, tasks: list[Task], kind: str = "poses", engine: Engine | None = None) -> list:
    engine = engine or Engine(EngineConfig(local=True))
    captures: dict[str, list[Task]] = {}
    for task in tasks:
        captures.setdefault(task.clip.capture_id, []).append(task)
    plans = {
        name: CaptureTasks(capture_id=name, clips=tuple(t.clip for t in own), keypoints="k" * 16, poses="f" * 16)
        for name, own in captures.items()
    }
    stages = JobStages(of_clips=(spec(tmp_path, stage, kind=kind),), of_captures=(), plan_of=plans.__getitem__)
    return list(engine.run(stages, OpenWork.of(str(tmp_path), plans.values(), [Kind(kind)])))


def test_the_plain_loop_hands_back_a_receipt_for_every_task(tmp_path):
    tasks = [Task(Clip("a", i, i + 1), "f" * 16) for i in range(4)]
    receipts = run_all(tmp_path, lambda t: nobody(t) if t.clip.start == 2 else frames_of(t), tasks)
    assert [r["rows"] for r in receipts] == [1, 1, 0, 1]
    assert [bool(r["failure"]) for r in receipts] == [False, False, True, False]


CAPTURES = [Task(Clip(f"c{i // 4}", i % 4, i % 4 + 1), "f" * 16) for i in range(24)]


def raising_at(*starts: int):
    """Whose message and line differ from clip to clip by numbers alone."""

    def stage(task: Task) -> Outcome:
        if task.clip.start in starts:
            raise ValueError(f"box {task.clip.start} of 0x{id(task):x} is empty")
        return frames_of(task)

    return stage


def test_a_stage_that_raises_alike_on_every_clip_stops_the_job_early_with_the_sentence(tmp_path):
    with pytest.raises(
        StageError, match=r"poses failed with the same error on the first 5 clips.*ValueError.*--retry-failed"
    ):
        run_all(tmp_path, raising_at(0, 1, 2, 3), CAPTURES)
    store = ClipStore(str(tmp_path), "poses")
    assert sum(store.committed(t.clip, t.fingerprint) is not None for t in CAPTURES) == 5


def test_one_clip_that_is_done_clears_the_stage_of_suspicion(tmp_path):
    receipts = run_all(tmp_path, raising_at(1, 2, 3), CAPTURES)
    assert sum(bool(r["failure"]) for r in receipts) == 18


def test_one_capture_of_an_odd_kind_does_not_stop_the_others(tmp_path):
    tasks = [Task(Clip("odd", i, i + 1), "f" * 16) for i in range(8)] + [Task(Clip("plain", 9, 10), "f" * 16)]
    receipts = run_all(tmp_path, raising_at(*range(8)), tasks)
    assert [bool(r["failure"]) for r in receipts] == [True] * 8 + [False]
    with pytest.raises(StageError):
        run_all(tmp_path, raising_at(*range(8)), tasks[:8], kind="tracks")


def test_failures_of_an_earlier_start_stop_nothing(tmp_path):
    """They are found again where a later stage of the clip is to do."""
    for task in CAPTURES[:8]:
        ClipWorker(spec(tmp_path, raising_at(0, 1, 2, 3), kind="keypoints")).run(replace(task, fingerprint="k" * 16))
    plans = [CaptureTasks(capture_id=c, clips=tuple(t.clip for t in CAPTURES[:4]), keypoints="k" * 16, poses="f" * 16)
             for c in ("c0", "c1")]  # fmt: skip
    plans = [replace(p, clips=tuple(replace(clip, capture_id=p.capture_id) for clip in p.clips)) for p in plans]
    both = spec(tmp_path, nobody, kind="keypoints", invocation="two"), spec(tmp_path, frames_of, kind="tracks")
    stages = JobStages(of_clips=both, of_captures=(), plan_of={p.capture_id: p for p in plans}.__getitem__)
    work = OpenWork.of(str(tmp_path), plans, [Kind.KEYPOINTS, Kind.TRACKS])
    receipts = list(Engine(EngineConfig(local=True)).run(stages, work))
    assert len(receipts) == 16 and sum(bool(r["traceback"]) for r in receipts) == 8


def test_clips_that_fail_each_in_its_own_way_stop_nothing(tmp_path):
    def stage(task: Task) -> Outcome:
        raise (ValueError if task.clip.start % 2 else KeyError)("odd")

    assert len(run_all(tmp_path, stage, CAPTURES)) == 24


def test_what_a_stage_foresees_stops_nothing_though_all_clips_have_it(tmp_path):
    assert len(run_all(tmp_path, nobody, CAPTURES)) == 24

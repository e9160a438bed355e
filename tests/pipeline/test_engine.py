"""Stages on Ray Data, with real workers that really die."""

import os
import signal

import pyarrow as pa
import pytest

from mvpose.archive.store import ClipStore
from mvpose.errors import ConfigError, FailureReason, ResultsError
from mvpose.pipeline.engine import Engine, EngineConfig
from mvpose.pipeline.worker import Outcome, StageSpec
from mvpose.records import Clip, Task

TASKS = [Task(Clip("a", i * 10, i * 10 + 10), "f" * 16) for i in range(6)]


class Stage:
    """Does what its clip number is told to do, first time or every time."""

    def __init__(self, marks: str, kill_once: int = -1, kill_always: int = -1, full: int = -1) -> None:
        self.marks, self.kill_once, self.kill_always, self.full = marks, kill_once, kill_always, full

    def __call__(self, task: Task) -> Outcome:
        number = task.clip.start // 10
        mark = os.path.join(self.marks, f"{number}")
        with open(mark, "a") as file:
            file.write("x")
        if number == self.kill_always or (number == self.kill_once and os.path.getsize(mark) == 1):
            os.kill(os.getpid(), signal.SIGKILL)
        if number == self.full:
            raise ResultsError("cannot write: No space left on device")
        return Outcome(pa.table({"frame": list(range(task.clip.start, task.clip.stop))}))


@pytest.fixture(scope="module")
def engine():
    engine = Engine(EngineConfig(workers=2, max_attempts=2))
    yield engine
    engine.close()


@pytest.fixture(params=[True, False], ids=["actors", "tasks"])
def keeps_weights(request) -> bool:
    return request.param


def spec(tmp_path, keeps_weights: bool = True, **behaviour) -> StageSpec:
    marks = tmp_path / "marks"
    marks.mkdir(exist_ok=True)
    return StageSpec(
        kind="poses", make=Stage, arguments={"marks": str(marks), **behaviour}, run_uri=str(tmp_path / "run"),
        invocation="one", max_attempts=2, keeps_weights=keeps_weights,
    )  # fmt: skip


def frames(tmp_path) -> list[int]:
    store = ClipStore(str(tmp_path / "run"), "poses")
    commits = [store.committed(t.clip, t.fingerprint) for t in TASKS]
    return [f for c in commits if c and not c.failure for f in store.read(c).column("frame").to_pylist()]


def test_a_worker_killed_once_loses_and_repeats_nothing(engine, tmp_path, keeps_weights):
    receipts = list(engine.run(spec(tmp_path, keeps_weights, kill_once=3), TASKS))
    assert len(receipts) == len(TASKS) and not any(r["failure"] for r in receipts)
    assert frames(tmp_path) == list(range(60))


def test_a_clip_that_always_kills_its_worker_is_given_up_and_the_others_are_done(engine, tmp_path, keeps_weights):
    list(engine.run(spec(tmp_path, keeps_weights, kill_always=1), TASKS))
    assert frames(tmp_path) == [f for f in range(60) if f // 10 != 1]
    commit = ClipStore(str(tmp_path / "run"), "poses").committed(TASKS[1].clip, TASKS[1].fingerprint)
    assert commit is not None and commit.failure is not None and commit.failure.reason == FailureReason.WORKER_DIED


def test_a_full_disk_ends_the_job_with_its_own_sentence(engine, tmp_path):
    with pytest.raises(ResultsError, match="No space left on device"):
        list(engine.run(spec(tmp_path, full=2), TASKS))


def test_more_workers_than_the_cluster_has_room_for_are_refused(engine):
    greedy = Engine(EngineConfig(workers=64))
    with pytest.raises(ConfigError, match="use fewer workers"):
        greedy.run(StageSpec(kind="poses", make=Stage, arguments={}, run_uri="", invocation=""), TASKS)

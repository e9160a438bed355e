"""Stages on Ray Data, with real workers that really die."""

import os
import resource
import signal
import threading
import time
import urllib.request

import numpy as np
import psutil
import pyarrow as pa
import pytest

from mvpose.errors import ConfigError, FailureReason, ResultsError, StageError, WeightsError
from mvpose.pipeline import engine as engine_module
from mvpose.pipeline.engine import Engine, EngineConfig, tasks_together
from mvpose.pipeline.prometheus import FIGURES
from mvpose.pipeline.worker import Outcome, StageSpec
from mvpose.records import Clip, Task
from mvpose.run.store import ClipStore

pytestmark = pytest.mark.fault

ALL = 1000
TASKS = [Task(Clip("a", i * 10, i * 10 + 10), "f" * 16) for i in range(6)]


class Stage:
    """Does what its clip number is told to do, first time or every time."""

    def __init__(self, marks: str, **behaviour: int) -> None:
        self.marks = marks
        names = ("kill_once", "kill_always", "full", "hang", "greedy", "refused_memory", "raises", "makes")
        for name in names:
            setattr(self, name, behaviour.get(name, -1))
        if self.makes == 0:
            raise WeightsError("weights are not at /weights: run `mvpose models fetch`")

    def __call__(self, task: Task) -> Outcome:
        number = task.clip.start // 10
        mark = os.path.join(self.marks, f"{number}")
        with open(mark, "a") as file:
            file.write("x")
        if number == self.kill_always or (number == self.kill_once and os.path.getsize(mark) == 1):
            os.kill(os.getpid(), signal.SIGKILL)
        if number == self.raises or self.raises == ALL:
            raise RuntimeError(f"CUDA error: an illegal memory access was encountered at clip {number}")
        if number == self.full:
            raise ResultsError("cannot write: No space left on device")
        if number == self.hang:
            with open(os.path.join(self.marks, "fifo")) as never_written:
                never_written.read()
        if number == self.greedy:
            self.grow_until_killed()
        if number == self.refused_memory:
            limit = psutil.Process().memory_info().vms + 2**28
            resource.setrlimit(resource.RLIMIT_AS, (limit, resource.getrlimit(resource.RLIMIT_AS)[1]))
            np.ones(2**30, np.uint8)
        return Outcome(pa.table({"frame": list(range(task.clip.start, task.clip.stop))}), {"counting": 0.1})

    def grow_until_killed(self) -> None:
        with open(os.path.join(self.marks, "greedy"), "w") as file:
            file.write(str(os.getpid()))
        held = [np.ones(2**26, np.uint8) for _ in range(8)]
        time.sleep(120)
        assert not held, "nobody killed a worker of 512 MiB"


@pytest.fixture
def engine(shared_ray) -> Engine:
    return Engine(EngineConfig(workers=2, max_attempts=2))


@pytest.fixture(params=[True, False], ids=["actors", "tasks"])
def keeps_weights(request) -> bool:
    return request.param


def spec(tmp_path, keeps_weights: bool = True, timeout_s: float = 100.0, **behaviour) -> StageSpec:
    marks = tmp_path / "marks"
    marks.mkdir(exist_ok=True)
    return StageSpec(
        kind="poses", make=Stage, arguments={"marks": str(marks), **behaviour}, run_uri=str(tmp_path / "run"),
        invocation="one", max_attempts=2, keeps_weights=keeps_weights, clip_timeout_s=timeout_s, clip_frames=10,
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
    assert reason(tmp_path, 1) == FailureReason.WORKER_DIED


def test_many_tasks_go_to_workers_in_portions_and_each_is_done_once_though_one_kills_its_worker(engine, tmp_path):
    many = [Task(Clip("a", i * 10, i * 10 + 10), "f" * 16) for i in range(130)]
    assert tasks_together(len(many), 2) == 8
    receipts = list(engine.run(spec(tmp_path, keeps_weights=False, kill_once=3), many))
    assert len(receipts) == 130 and not any(r["failure"] for r in receipts)
    store = ClipStore(str(tmp_path / "run"), "poses")
    assert all(store.committed(t.clip, t.fingerprint) for t in many)
    times = {number: os.path.getsize(tmp_path / "marks" / f"{number}") for number in range(130)}
    assert {number for number, n in times.items() if n > 1} == {3}


@pytest.mark.parametrize(
    ("tasks", "workers", "together"), [(1, 2, 1), (7, 2, 1), (24, 2, 3), (4096, 64, 8), (4096, 2, 32), (0, 1, 1)]
)
def test_a_worker_gets_as_many_portions_as_a_portion_has_tasks(tasks, workers, together):
    assert tasks_together(tasks, workers) == together


def reason(tmp_path, number: int) -> FailureReason | None:
    task = TASKS[number]
    commit = ClipStore(str(tmp_path / "run"), "poses").committed(task.clip, task.fingerprint)
    return commit.failure.reason if commit and commit.failure else None


def test_a_clip_that_hangs_is_given_up_after_its_time_and_its_worker_replaced(engine, tmp_path, keeps_weights):
    reported = spec(tmp_path, keeps_weights, timeout_s=3.0, hang=2)
    os.mkfifo(tmp_path / "marks" / "fifo")
    receipts = list(engine.run(reported, TASKS))
    assert [r["reason"] for r in receipts if r["failure"]] == ["timeout"] == [reason(tmp_path, 2)]
    assert frames(tmp_path) == [f for f in range(60) if f // 10 != 2]
    assert os.path.getsize(tmp_path / "marks" / "2") == 1, "a clip that hangs is not tried again"
    assert not waiting_for(tmp_path / "marks" / "fifo")


def waiting_for(fifo) -> bool:
    """Whether any process has the FIFO open for reading: a writer that does not wait is refused where none has."""
    for _ in range(100):
        try:
            os.close(os.open(fifo, os.O_WRONLY | os.O_NONBLOCK))
        except OSError:
            return False
        time.sleep(0.1)
    return True


def test_a_clip_that_the_memory_does_not_suffice_for_is_a_failure_row(engine, tmp_path):
    list(engine.run(spec(tmp_path, refused_memory=4), TASKS))
    assert reason(tmp_path, 4) == FailureReason.OUT_OF_MEMORY
    assert frames(tmp_path) == [f for f in range(60) if f // 10 != 4]


def test_a_clip_whose_worker_is_killed_for_its_memory_is_given_up_after_its_attempts(engine, tmp_path):
    reported = spec(tmp_path, greedy=0)
    killed: list[int] = []
    over = threading.Event()
    killer = threading.Thread(target=kill_above, args=(tmp_path / "marks" / "greedy", 2**29, killed, over))
    killer.start()
    try:
        list(engine.run(reported, TASKS))
    finally:
        over.set()
        killer.join()
    assert len(set(killed)) == reported.max_attempts
    assert reason(tmp_path, 0) == FailureReason.WORKER_DIED
    assert frames(tmp_path) == list(range(10, 60))


def kill_above(mark, limit: int, killed: list[int], over: threading.Event) -> None:
    """What the kernel does in a container: SIGKILL for the process named in `mark` once it holds `limit` bytes."""
    while not over.wait(0.1):
        if not mark.exists() or not (text := mark.read_text()):
            continue
        try:
            if psutil.Process(int(text)).memory_info().rss > limit:
                os.kill(int(text), signal.SIGKILL)
                killed.append(int(text))
        except (psutil.NoSuchProcess, ProcessLookupError):
            continue


def test_prometheus_reads_every_figure_of_a_job_at_the_port_of_its_ray(engine, shared_ray, tmp_path):
    list(engine.run(spec(tmp_path, kill_once=3, kill_always=1), TASKS))
    port, wanted = shared_ray.config.metrics_port, {name for figure in FIGURES for name in figure.exported}
    for _ in range(60):
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics") as answer:
            samples = [line for line in answer.read().decode().splitlines() if line.startswith("ray_mvpose_")]
        missing = wanted - {sample.partition("{")[0] for sample in samples}
        if not missing:
            break
        time.sleep(0.5)
    assert not missing
    died = [s for s in samples if s.startswith("ray_mvpose_clips_failed_total") and 'reason="worker_died"' in s]
    assert died and float(died[0].rpartition(" ")[2]) >= 1


def test_what_a_stage_raises_on_one_clip_is_a_failure_row_and_its_worker_is_replaced(engine, tmp_path, keeps_weights):
    receipts = list(engine.run(spec(tmp_path, keeps_weights, raises=3), TASKS))
    assert sorted(r["reason"] for r in receipts) == [""] * 5 + ["exception"]
    assert reason(tmp_path, 3) == FailureReason.EXCEPTION
    assert frames(tmp_path) == [f for f in range(60) if f // 10 != 3]
    assert os.path.getsize(tmp_path / "marks" / "3") == 1, "it is not tried again"


def test_a_stage_that_raises_alike_on_every_clip_stops_the_job(engine, tmp_path, keeps_weights, monkeypatch):
    monkeypatch.setattr(engine_module, "ENOUGH", 3)  # each clip that raises costs a worker
    many = [Task(Clip("ab"[i % 2], i * 10, i * 10 + 10), "f" * 16) for i in range(40)]
    with pytest.raises(StageError, match=r"failed with the same error on the first 3 clips.*RuntimeError: CUDA error"):
        list(engine.run(spec(tmp_path, keeps_weights, raises=ALL), many))
    assert len(os.listdir(tmp_path / "marks")) < len(many) or not keeps_weights


def test_a_stage_that_cannot_be_made_ends_the_job_with_its_own_sentence(engine, tmp_path, keeps_weights):
    with pytest.raises(StageError, match="mvpose models fetch"):
        list(engine.run(spec(tmp_path, keeps_weights, makes=0), TASKS))


def test_a_full_disk_ends_the_job_with_its_own_sentence(engine, tmp_path):
    with pytest.raises(ResultsError, match="No space left on device"):
        list(engine.run(spec(tmp_path, full=2), TASKS))


def test_more_workers_than_the_cluster_has_room_for_are_refused(engine):
    greedy = Engine(EngineConfig(workers=64))
    with pytest.raises(ConfigError, match="use fewer workers"):
        greedy.run(StageSpec(kind="poses", make=Stage, arguments={}, run_uri="", invocation=""), TASKS)

"""Stages on Ray, with real workers that really die."""

import contextlib
import os
import signal
import threading
import time
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import psutil
import pytest

from mvpose.errors import ConfigError, FailureReason, ResultsError, StageError
from mvpose.pipeline import engine as engine_module
from mvpose.pipeline import ray_pass as ray_pass_module
from mvpose.pipeline.engine import Engine, EngineConfig
from mvpose.pipeline.open_work import OpenWork
from mvpose.pipeline.prometheus import FIGURES
from mvpose.pipeline.ray_pass import ShortQueue
from mvpose.pipeline.worker import JobStages, StageSpec
from mvpose.records import Kind
from mvpose.run.store import ClipStore
from tests.pipeline.troubled_stage import ALL, HastySpec, TroubledStage, plan_of

pytestmark = pytest.mark.fault

TASKS = plan_of("of_8").tasks(Kind.POSES)


@pytest.fixture
def engine(shared_ray) -> Engine:
    """With one worker, which has to be replaced if anything is to go on."""
    return Engine(EngineConfig(workers=1, max_attempts=2))


@pytest.fixture(params=[True, False], ids=["clips", "captures"])
def of_clips(request) -> bool:
    """Whether the stage runs on clips in the pool, or on a whole capture in one task."""
    return request.param


def spec(tmp_path, **behaviour) -> StageSpec:
    marks = tmp_path / "marks"
    marks.mkdir(exist_ok=True)
    return HastySpec(
        kind="poses", make=TroubledStage, arguments={"marks": str(marks), **behaviour}, run_uri=str(tmp_path / "run"),
        invocation="one", max_attempts=2,
    )  # fmt: skip


def run(engine: Engine, stage: StageSpec, of_clips: bool = True, captures: tuple[str, ...] = ("of_8",)) -> list[dict]:
    if of_clips:
        stages = JobStages(of_clips=(stage,), of_captures=(), plan_of=plan_of)
        return list(engine.run(stages, OpenWork.of(stage.run_uri, map(plan_of, captures), [Kind.POSES])))
    stages = JobStages(of_clips=(), of_captures=(stage,), plan_of=plan_of)
    return list(engine.run(stages, OpenWork(dict.fromkeys(captures, 0), (), 0)))


def frames(tmp_path) -> list[int]:
    store = ClipStore(str(tmp_path / "run"), "poses")
    commits = [store.committed(t.clip, t.fingerprint) for t in TASKS]
    return [f for c in commits if c and not c.failure for f in store.read(c).column("frame").to_pylist()]


def frames_without(*clips: int) -> list[int]:
    return [f for f in range(80) if f // 10 not in clips]


@dataclass(frozen=True)
class Troubled:
    """A job of eight clips, five of which meet a fault of their own, on two workers."""

    folder: Path
    receipts: list[dict]
    killed: list[int]
    """Workers that the kernel's stand-in killed for their memory."""

    def tries(self, clip: int) -> int:
        return os.path.getsize(self.folder / "marks" / f"{clip}")


GREEDY, KILL_ALWAYS, KILL_ONCE, REFUSED_MEMORY, RAISES = 0, 1, 3, 4, 5


@pytest.fixture(scope="module")
def troubled(stopped_ray, s3_endpoint, tmp_path_factory) -> Callable[[bool], Troubled]:
    """The job with the stage on clips or on the whole capture: each is run once, by the first test that asks."""

    @cache
    def made(of_clips: bool) -> Troubled:
        folder = tmp_path_factory.mktemp("troubled")
        faults = {"kill_always": KILL_ALWAYS, "kill_once": KILL_ONCE, "raises": RAISES}
        if of_clips:
            faults |= {"greedy": GREEDY, "refused_memory": REFUSED_MEMORY}
        killed: list[int] = []
        over = threading.Event()
        killer = threading.Thread(target=kill_above, args=(folder / "marks" / "greedy", 2**29, killed, over))
        killer.start()
        try:
            receipts = run(Engine(EngineConfig(workers=2, max_attempts=2)), spec(folder, **faults), of_clips)
        finally:
            over.set()
            killer.join()
        return Troubled(folder, receipts, killed)

    return made


def test_a_fault_costs_its_clip_and_no_other(shared_ray, troubled, of_clips):
    job = troubled(of_clips)
    assert len(job.receipts) == len(TASKS) and sum(bool(r["failure"]) for r in job.receipts) == (4 if of_clips else 2)
    lost = (GREEDY, KILL_ALWAYS, REFUSED_MEMORY, RAISES) if of_clips else (KILL_ALWAYS, RAISES)
    assert frames(job.folder) == frames_without(*lost)


def test_a_worker_killed_once_loses_and_repeats_nothing(shared_ray, troubled, of_clips):
    job = troubled(of_clips)
    assert reason(job.folder, KILL_ONCE) is None and job.tries(KILL_ONCE) == 2
    assert set(range(30, 40)) <= set(frames(job.folder))


def test_a_clip_that_always_kills_its_worker_is_given_up(shared_ray, troubled, of_clips):
    job = troubled(of_clips)
    assert reason(job.folder, KILL_ALWAYS) == FailureReason.WORKER_DIED and job.tries(KILL_ALWAYS) == 2


def test_what_a_stage_raises_on_one_clip_is_a_failure_row(shared_ray, troubled, of_clips):
    job = troubled(of_clips)
    assert [r["reason"] for r in job.receipts].count("exception") == 1
    assert reason(job.folder, RAISES) == FailureReason.EXCEPTION
    assert job.tries(RAISES) == 1, "it is not tried again"


def test_a_clip_that_the_memory_does_not_suffice_for_is_a_failure_row(shared_ray, troubled):
    assert reason(troubled(True).folder, REFUSED_MEMORY) == FailureReason.OUT_OF_MEMORY


def test_a_clip_whose_worker_is_killed_for_its_memory_is_given_up_after_its_attempts(shared_ray, troubled):
    job = troubled(True)
    assert len(set(job.killed)) == 2
    assert reason(job.folder, GREEDY) == FailureReason.WORKER_DIED


def test_many_clips_are_read_as_workers_take_them_and_each_is_done_once(shared_ray, tmp_path, monkeypatch):
    """Fails without the short queue: the driver would hold a million clips of a large archive at once."""
    monkeypatch.setattr(ray_pass_module, "WAITING_CLIPS", 8)
    waiting, limit = [], ShortQueue.max_task_output_bytes_to_read

    def watched(policy: ShortQueue, op):
        waiting.append(sum(policy._topology[each].total_enqueued_input_blocks() for each in op.output_dependencies))
        return limit(policy, op)

    monkeypatch.setattr(ShortQueue, "max_task_output_bytes_to_read", watched)
    receipts = run(Engine(EngineConfig(workers=2)), spec(tmp_path, kill_once=3, slow=1), captures=("of_90",))
    assert len(receipts) == 90 and not any(r["failure"] for r in receipts)
    times = {number: os.path.getsize(tmp_path / "marks" / f"{number}") for number in range(90)}
    assert {number for number, n in times.items() if n > 1} == {3}
    assert 0 < max(waiting) <= 20


def test_a_worker_does_as_many_clips_at_once_as_the_settings_say_with_one_stage(shared_ray, tmp_path):
    # Each clip waits for another in the same process: with one at a time, this never ends.
    engine = Engine(EngineConfig(workers=1, clips_per_worker=2))
    receipts = run(engine, spec(tmp_path, meets=1))
    assert len(receipts) == 8 and not any(r["failure"] for r in receipts) and len(frames(tmp_path)) == 80


def reason(tmp_path, number: int) -> FailureReason | None:
    task = TASKS[number]
    commit = ClipStore(str(tmp_path / "run"), "poses").committed(task.clip, task.fingerprint)
    return commit.failure.reason if commit and commit.failure else None


def test_a_clip_that_hangs_is_given_up_after_its_time_and_its_worker_replaced(engine, tmp_path, of_clips):
    hanging = spec(tmp_path, hang=2)
    os.mkfifo(tmp_path / "marks" / "fifo")
    receipts = run(engine, hanging, of_clips)
    assert [r["reason"] for r in receipts if r["failure"]] == ["timeout"] == [reason(tmp_path, 2)]
    assert frames(tmp_path) == frames_without(2)
    assert os.path.getsize(tmp_path / "marks" / "2") == 1, "a clip that hangs is not tried again"
    wait_until_nobody_reads(tmp_path / "marks" / "fifo")


def wait_until_nobody_reads(fifo) -> None:
    """A writer that does not wait is refused where no process has the FIFO open for reading."""
    with contextlib.suppress(OSError):
        while True:
            os.close(os.open(fifo, os.O_WRONLY | os.O_NONBLOCK))
            time.sleep(0.1)


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


def test_prometheus_reads_every_figure_of_a_job_at_the_port_of_its_ray(shared_ray, troubled):
    troubled(True)
    port, wanted = shared_ray.config.metrics_port, {name for figure in FIGURES for name in figure.exported}
    missing = wanted
    while missing:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics") as answer:
            samples = [line for line in answer.read().decode().splitlines() if line.startswith("ray_mvpose_")]
        missing = wanted - {sample.partition("{")[0] for sample in samples}
        time.sleep(0.5)
    died = [s for s in samples if s.startswith("ray_mvpose_clips_failed_total") and 'reason="worker_died"' in s]
    assert died and float(died[0].rpartition(" ")[2]) >= 1


def test_a_stage_that_raises_alike_on_every_clip_stops_the_job(engine, tmp_path, of_clips, monkeypatch):
    monkeypatch.setattr(engine_module, "ENOUGH", 2)  # each clip that raises costs a worker
    # The first two are of one capture, which may be an unusual one.
    with pytest.raises(StageError, match=r"failed with the same error on the first 3 clips.*RuntimeError: CUDA error"):
        run(engine, spec(tmp_path, raises=ALL), of_clips, captures=("a_2", "b_40" if of_clips else "b_2"))
    assert len(os.listdir(tmp_path / "marks")) < 40 or not of_clips


def test_a_stage_that_cannot_be_made_ends_the_job_with_its_own_sentence(engine, tmp_path, of_clips):
    with pytest.raises(StageError, match="mvpose models fetch"):
        run(engine, spec(tmp_path, makes=0), of_clips)


def test_a_full_disk_ends_the_job_with_its_own_sentence(engine, tmp_path):
    with pytest.raises(ResultsError, match="No space left on device"):
        run(engine, spec(tmp_path, full=2))


def test_more_workers_than_the_cluster_has_room_for_are_refused(engine, tmp_path):
    greedy = Engine(EngineConfig(workers=64))
    with pytest.raises(ConfigError, match="use fewer workers"):
        run(greedy, spec(tmp_path))

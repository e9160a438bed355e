"""The parts in which a job is done: whole captures, each once, and figures over the whole of it."""

import pyarrow as pa
from hypothesis import given
from hypothesis import strategies as st

from mvpose.pipeline.waves import OpenWork, uncommitted, waves
from mvpose.records import CaptureTasks, Clip, Kind
from mvpose.run.store import ClipStore


def plan(capture_id: str, clips: int, filtered: str = "f" * 16) -> CaptureTasks:
    tiles = tuple(Clip(capture_id, 10 * i, 10 * i + 10) for i in range(clips))
    return CaptureTasks(capture_id=capture_id, clips=tiles, keypoints="k" * 16, poses="p" * 16, filtered=filtered)


@given(sizes=st.lists(st.integers(1, 12), max_size=20), maximum=st.integers(1, 30))
def test_waves_are_whole_captures_in_order_and_no_longer_than_they_must(sizes, maximum):
    plans = [plan(f"{i}", size) for i, size in enumerate(sizes)]
    made = list(waves(iter(plans), maximum))
    assert [p for wave in made for p in wave] == plans
    clips = [[len(p.clips) for p in wave] for wave in made]
    assert all(sum(wave[:-1]) < maximum for wave in clips) and all(sum(wave) >= maximum for wave in clips[:-1])


def test_waves_hold_no_more_of_a_plan_than_they_need():
    read = []

    def plans():
        for i in range(100):
            read.append(i)
            yield plan(f"{i}", 2)

    upcoming = waves(plans(), 6)
    next(upcoming)
    assert len(read) == 3


def made(run_uri: str, own: CaptureTasks, *kinds: Kind) -> None:
    for kind in kinds:
        for task in own.tasks(kind):
            ClipStore(run_uri, kind).commit_table(task.clip, task.fingerprint, pa.table({"x": [1]}), {})


def test_a_capture_is_open_until_its_last_results_are_there(tmp_path):
    uri, plans = str(tmp_path), [plan(f"{i}", i + 1) for i in range(5)]
    made(uri, plans[0], *Kind)
    made(uri, plans[1], Kind.QUALITY)
    made(uri, plans[2], Kind.FILTERED, Kind.POSES)
    made(uri, plans[3], Kind.QUALITY, Kind.FILTERED)
    open_work = OpenWork.of(uri, iter(plans))
    assert [p.capture_id for p in open_work.captures(iter(plans))] == ["1", "2", "4"]
    assert open_work.totals(Kind.KEYPOINTS) == {"clips": 2 + 3 + 5, "frames": 100}
    assert open_work.totals(Kind.QUALITY) == {"clips": 3, "frames": 100}
    unfiltered = OpenWork.of(uri, [plan("1", 2, filtered="")])
    assert list(unfiltered.captures([plan("1", 2, filtered="")])) == []


def test_of_open_captures_only_what_is_missing_is_to_do(tmp_path):
    store, own = ClipStore(str(tmp_path), Kind.POSES), plan("a", 3)
    task = own.tasks(Kind.POSES)[1]
    store.commit_table(task.clip, task.fingerprint, pa.table({"x": [1]}), {})
    tasks = [t for p in (own, plan("b", 1)) for t in p.tasks(Kind.POSES)]
    assert uncommitted(store, tasks) == [tasks[0], tasks[2], tasks[3]]

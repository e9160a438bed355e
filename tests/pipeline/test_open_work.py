"""What a job has still to do: its open captures, and those of their clips that the stages of clips are missing on."""

import pyarrow as pa

from mvpose.pipeline import open_work as open_work_module
from mvpose.pipeline.open_work import OpenWork, uncommitted
from mvpose.records import CaptureTasks, Clip, Kind
from mvpose.run.store import ClipStore


def plan(capture_id: str, clips: int, filtered: str = "f" * 16) -> CaptureTasks:
    tiles = tuple(Clip(capture_id, 10 * i, 10 * i + 10) for i in range(clips))
    return CaptureTasks(capture_id=capture_id, clips=tiles, keypoints="k" * 16, poses="p" * 16, filtered=filtered)


def made(run_uri: str, own: CaptureTasks, *kinds: Kind, clips: int | None = None) -> None:
    for kind in kinds:
        for task in own.tasks(kind)[:clips]:
            ClipStore(run_uri, kind).commit_table(task.clip, task.fingerprint, pa.table({"x": [1]}), {})


def test_a_capture_is_open_until_its_last_results_are_there(tmp_path):
    uri, plans = str(tmp_path), [plan(f"{i}", i + 1) for i in range(5)]
    made(uri, plans[0], *Kind)
    made(uri, plans[1], Kind.QUALITY)
    made(uri, plans[2], Kind.FILTERED, Kind.POSES)
    made(uri, plans[3], Kind.QUALITY, Kind.FILTERED)
    todo = OpenWork.of(uri, iter(plans), [Kind.KEYPOINTS])
    assert todo.clips_left == {"1": 2, "2": 3, "4": 5} and (todo.clips, todo.frames) == (10, 100)
    unfiltered = plan("1", 2, filtered="")
    assert OpenWork.of(uri, [unfiltered], [Kind.KEYPOINTS]).clips_left == {}


def test_of_an_open_capture_those_clips_are_to_do_that_lack_a_result_of_any_stage_of_clips(tmp_path):
    uri, own = str(tmp_path), plan("a", 3)
    made(uri, own, Kind.KEYPOINTS, clips=2)
    made(uri, own, Kind.TRACKS, clips=1)
    assert OpenWork.of(uri, [own], [Kind.KEYPOINTS]).clips_left == {"a": 1}
    todo = OpenWork.of(uri, [own], [Kind.KEYPOINTS, Kind.TRACKS])
    both = f"{'k' * 16} {'p' * 16}"
    assert [tuple(row.values()) for row in todo.tables[0].to_pylist()] == [("a", 10, 20, both), ("a", 20, 30, both)]
    made(uri, own, Kind.KEYPOINTS, Kind.TRACKS)
    done = OpenWork.of(uri, [own], [Kind.KEYPOINTS, Kind.TRACKS])
    assert done.clips_left == {"a": 0} and done.tables == () and done.frames == 0


def test_the_clips_are_in_the_order_of_the_plan_in_tables_of_limited_length(tmp_path, monkeypatch):
    monkeypatch.setattr(open_work_module, "ROWS_AT_ONCE", 4)
    plans = [plan(f"{i}", 3 + i) for i in range(3)]
    todo = OpenWork.of(str(tmp_path), plans, [Kind.KEYPOINTS])
    assert [table.num_rows for table in todo.tables] == [4, 4, 4]
    rows = [(row["capture_id"], row["start"]) for table in todo.tables for row in table.to_pylist()]
    assert rows == [(p.capture_id, clip.start) for p in plans for clip in p.clips]


def test_of_several_captures_the_tasks_without_a_commit_are_found(tmp_path):
    store, plans = ClipStore(str(tmp_path), Kind.POSES), [plan("a", 3), plan("b", 1)]
    tasks = [task for own in plans for task in own.tasks(Kind.POSES)]
    store.commit_table(tasks[1].clip, tasks[1].fingerprint, pa.table({"x": [1]}), {})
    assert list(uncommitted(str(tmp_path), Kind.POSES, iter(plans))) == [tasks[0], tasks[2], tasks[3]]

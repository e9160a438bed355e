"""The order of a pass: which capture is finished when, how many at once, and what its one task does."""

import os
from collections import Counter
from dataclasses import replace

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mvpose.errors import ResultsError, WeightsError
from mvpose.pipeline.one_pass import Finishing, one_pass, plain_loop
from mvpose.pipeline.open_work import OpenWork
from mvpose.pipeline.worker import ClipStages, ClipWorker, JobStages, Outcome, StageSpec, finished
from mvpose.records import Kind, Task
from tests.pipeline.test_open_work import made, plan


class Captures:
    """A cluster on which the finishing of a capture is done when the test says so."""

    def __init__(self, done_at_once: bool = True) -> None:
        self.started: list[str] = []
        self.most = 0
        self.done_at_once = done_at_once

    def finishing(self, at_once: int) -> Finishing:
        return Finishing(self.start, self.done, lambda capture: [{"capture_id": capture, "end": True}], at_once)

    def start(self, capture_id: str) -> str:
        self.started.append(capture_id)
        return capture_id

    def done(self, running: list[str], wait: bool) -> list[str]:
        self.most = max(self.most, len(running))
        return running[:1] if wait or self.done_at_once else []


@given(st.data())
def test_a_capture_is_finished_once_and_right_after_the_last_of_its_clips_in_whatever_order_they_come(data):
    left = data.draw(st.dictionaries(st.sampled_from("abcdef"), st.integers(0, 4)))
    clips = data.draw(st.permutations([capture for capture, n in left.items() for _ in range(n)]))
    captures = Captures()
    seen: Counter[str] = Counter()
    for receipt in one_pass(([{"capture_id": c}] for c in clips), left, captures.finishing(at_once=2)):
        if "end" in receipt:
            assert seen[receipt["capture_id"]] == left[receipt["capture_id"]]
            seen[receipt["capture_id"]] += 1
        else:
            seen[receipt["capture_id"]] += 1
            # Of all captures that are through, none waits for other clips.
            through = {c for c, n in left.items() if seen[c] >= n and c != receipt["capture_id"]}
            assert through <= set(captures.started)
    assert sorted(captures.started) == sorted(left) and all(seen[c] == n + 1 for c, n in left.items())
    nothing = [capture for capture, n in left.items() if n == 0]
    assert captures.started[: len(nothing)] == nothing, "what was detected by an earlier start comes first"


def test_at_most_so_many_captures_are_finished_at_once_and_clips_do_not_wait_for_them():
    captures, done = Captures(done_at_once=False), []
    left = {f"{i}": 1 for i in range(9)}

    def clips():
        for capture in left:
            yield [{"capture_id": capture}]
        done.append(len(captures.started))

    receipts = list(one_pass(clips(), left, captures.finishing(at_once=3)))
    assert done == [3] and captures.most == 3
    assert [r["capture_id"] for r in receipts if "end" in r] == list(left)


MADE: list[str] = []


def counting(name: str, fails: str = ""):
    """A stage that notes what it does, and raises a storage error on one clip."""
    MADE.append(name)

    def stage(task: Task) -> Outcome:
        MADE.append(f"{name} {task.clip.start}")
        if fails and task.clip.clip_id.endswith(fails):
            raise ResultsError("no space left")
        return Outcome(pa.table({"x": [1]}), {"counting": 0.5})

    return stage


def broken(name: str):
    raise WeightsError(f"no weights for {name}")


@pytest.fixture(autouse=True)
def nothing_made():
    MADE.clear()


def spec(tmp_path, kind: Kind, make=counting, **arguments: str) -> StageSpec:
    arguments = {"name": str(kind), **arguments}
    return StageSpec(kind=kind, make=make, arguments=dict(arguments), run_uri=str(tmp_path), invocation="one")


PLANS = {name: plan(name, clips) for name, clips in (("a", 2), ("b", 1))}


def stages(tmp_path, **arguments: str) -> JobStages:
    return JobStages(
        of_clips=(spec(tmp_path, Kind.KEYPOINTS), spec(tmp_path, Kind.TRACKS)),
        of_captures=(spec(tmp_path, Kind.IDENTITIES, **arguments), spec(tmp_path, Kind.POSES)),
        plan_of=PLANS.__getitem__,
    )


def test_the_plain_loop_does_one_capture_after_the_other_and_makes_each_stage_of_clips_once(tmp_path):
    work = OpenWork.of(str(tmp_path), PLANS.values(), [Kind.KEYPOINTS, Kind.TRACKS])
    receipts = list(plain_loop(stages(tmp_path), work))
    assert MADE == [
        "keypoints", "keypoints 0", "tracks", "tracks 0", "keypoints 10", "tracks 10",
        "identities", "identities 0", "poses", "poses 0", "poses 10",
        "keypoints 0", "tracks 0", "identities", "identities 0", "poses", "poses 0",
    ]  # fmt: skip
    assert [(r["capture_id"], r["stage"]) for r in receipts if r["stage"] == "poses"] == [
        ("a", "poses"), ("a", "poses"), ("b", "poses"),
    ]  # fmt: skip
    assert all(r["seconds"] == {"counting": 0.5} and not r["earlier"] for r in receipts)


def test_clips_that_lack_tracks_alone_are_tracked_without_a_detector(tmp_path):
    made(str(tmp_path), PLANS["a"], Kind.KEYPOINTS)
    work = OpenWork.of(str(tmp_path), [PLANS["a"]], [Kind.KEYPOINTS, Kind.TRACKS])
    receipts = list(plain_loop(stages(tmp_path), work))
    assert MADE[:3] == ["tracks", "tracks 0", "tracks 10"]
    assert [r["earlier"] for r in receipts if r["stage"] == "keypoints"] == [True, True]


def test_a_stage_that_cannot_be_made_keeps_the_ones_after_it_from_the_clip(tmp_path):
    specs = spec(tmp_path, Kind.KEYPOINTS, make=broken), spec(tmp_path, Kind.TRACKS)
    row = {"capture_id": "b", "start": 0, "stop": 10, "fingerprints": "k p"}
    (receipt,) = ClipStages(specs).receipts(row)
    assert receipt["unmade"] == "no weights for keypoints" and MADE == []


def test_a_task_of_a_capture_ends_with_the_storage_error_of_a_stage(tmp_path):
    receipts = finished(stages(tmp_path, fails="0000000-0000020"), "a")
    assert [(r["stage"], r["storage_error"]) for r in receipts] == [("identities", "no space left")]

    def gone(capture_id: str):
        raise ResultsError("replanned while this job ran")

    (receipt,) = finished(JobStages(of_clips=(), of_captures=(), plan_of=gone), "a")
    assert receipt["storage_error"] == "replanned while this job ran"


def test_a_task_that_is_tried_again_reports_what_it_did_before_and_not_what_earlier_starts_did(tmp_path):
    """Else the same error in every first capture, whose workers are replaced, would never stop a job."""
    own = PLANS["a"]
    tried, earlier = own.tasks(Kind.POSES)
    ClipWorker(spec(tmp_path, Kind.POSES)).receipt(tried)
    ClipWorker(replace(spec(tmp_path, Kind.POSES), invocation="before")).receipt(earlier)
    MADE.clear()
    receipts = finished(stages(tmp_path), "a")
    assert MADE == ["identities", "identities 0"]
    assert [(r["stage"], r["frames"], r["earlier"]) for r in receipts] == [
        ("identities", 20, False), ("poses", 10, False),
    ]  # fmt: skip
    assert receipts[1]["seconds"] == {"counting": 0.5}
    again = JobStages(of_clips=(), of_captures=(spec(tmp_path, Kind.FILTERED),), plan_of=PLANS.__getitem__)
    made(str(tmp_path), own, Kind.FILTERED)
    assert [r["earlier"] for r in finished(again, "a")] == [True], "each stage has a receipt: its capture is counted"


def test_a_spent_process_ends_after_its_stage_and_its_replacement_does_the_rest(tmp_path, monkeypatch):
    class Exited(Exception):
        """The process is gone."""

    def leave(code: int):
        raise Exited

    monkeypatch.setattr(os, "_exit", leave)
    raising = StageSpec(
        kind="identities", make=make_raising, arguments={}, run_uri=str(tmp_path), invocation="one", replaceable=True
    )
    both = JobStages(of_clips=(), of_captures=(raising, spec(tmp_path, Kind.POSES)), plan_of=PLANS.__getitem__)
    with pytest.raises(Exited):
        finished(both, "a")
    assert MADE == []
    receipts = finished(both, "a")
    assert [(r["stage"], r["reason"]) for r in receipts] == [("identities", "exception"), ("poses", ""), ("poses", "")]


def make_raising():
    def stage(task: Task) -> Outcome:
        raise RuntimeError("a defect")

    return stage

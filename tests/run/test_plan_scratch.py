"""A plan laid out in tables: in order, whole, and read in parts."""

import gc
import os
import random
from dataclasses import replace

import pytest

from mvpose import scenes
from mvpose.capture import Capture
from mvpose.config import digest
from mvpose.errors import FailureReason, ResultsError
from mvpose.footage.catalogue_table import Listed, Problem, listed, read_captures, read_catalogue
from mvpose.footage.rig_table import rig_digest
from mvpose.pipeline.plan import PlanSettings, plan_capture
from mvpose.reconstruction.clip import ReconstructionConfig
from mvpose.records import CaptureTasks, Video
from mvpose.run import plan_scratch, plan_table
from mvpose.run.plan_scratch import Planned, lay_out
from mvpose.run.plan_table import plan_digest, read_plan, read_plan_of
from mvpose.temporal.filter_settings import ButterworthFilter

RIG = scenes.ring4(num_frames=1).rig
SETTINGS = PlanSettings(
    clip_frames=10,
    detector="d",
    look=None,
    network="",
    monocular="",
    monocular_images=False,
    reconstruction=ReconstructionConfig(),
    people=None,
    adjustment=None,
    filtering=ButterworthFilter(),
)


def capture(capture_id: str, num_frames: int = 25) -> Capture:
    videos = tuple(
        Video(name, f"/a/{capture_id}/{name}.mp4", 30.0, num_frames + v, (640, 480), v, f"stamp{v}", 30.0)
        for v, name in enumerate(RIG.names)
    )
    return Capture(capture_id, RIG, videos)


def plan_of(reported: Listed) -> CaptureTasks:
    return plan_capture(reported, SETTINGS)


@pytest.fixture
def few_at_once(monkeypatch):
    for module, name, number in [(plan_scratch, "CAPTURES_AT_ONCE", 3), (plan_table, "CLIPS_AT_ONCE", 4)]:
        monkeypatch.setattr(module, name, number)


def names(number: int) -> list[str]:
    """Ids whose order is not that of their folders, shuffled."""
    ids = [f"{'ab-/'[i % 3]}{i:03d}/take{'é' if i % 5 else ''}" for i in range(number)]
    random.Random(0).shuffle(ids)
    return ids


def test_what_is_found_in_any_order_is_planned_in_the_order_of_ids(few_at_once):
    problems = [Problem(name, FailureReason.CALIBRATION, "none") for name in ("z", "b")]
    found = [problems[0], *map(capture, names(20)), "a note", problems[1], "an earlier note"]
    laid = lay_out(found, plan_of)
    assert [plan.capture_id for plan in laid.tasks()] == sorted(names(20))
    assert laid.problems == (problems[1], problems[0]) and laid.notes == ("a note", "an earlier note")
    written = read_catalogue(laid.catalogue)
    assert [c.capture_id for c in written.captures] == sorted(names(20))
    assert written.problems == list(laid.problems) and written.notes == list(laid.notes)
    assert (laid.totals.captures, laid.totals.clips, laid.totals.frames, laid.max_cameras) == (20, 60, 500, 4)


def test_captures_are_the_same_before_and_after(few_at_once):
    before = {c.capture_id: c for c in map(capture, names(7))}
    laid = lay_out(before.values(), plan_of)
    for after in read_captures(laid.catalogue):
        assert isinstance(after, Capture)
        assert after.videos == before[after.capture_id].videos and rig_digest(after.rig) == rig_digest(RIG)


def test_a_plan_needs_no_rig_to_know_a_capture(few_at_once):
    laid = lay_out([capture("one")], plan_of)
    (reported,) = listed(laid.catalogue)
    assert reported.num_frames == capture("one").num_frames == 25 and reported.rig_digest == rig_digest(RIG)
    assert reported.footage == tuple((name, v, f"stamp{v}", 25 + v, 640, 480, []) for v, name in enumerate(RIG.names))
    assert (reported.fps, reported.breaks, reported.assumed_unit) == (30.0, (), None)


def test_the_digest_is_that_of_all_tasks_and_problems_at_once(few_at_once):
    problems = [Problem("z", FailureReason.CALIBRATION, "none"), Problem("b", FailureReason.CALIBRATION, "none")]
    laid = lay_out([*map(capture, names(9)), *problems], plan_of)
    plans = list(laid.tasks())
    tasks = [(clip.clip_id, plan.keypoints, plan.poses, plan.filtered) for plan in plans for clip in plan.clips]
    expected = digest(tasks, sorted((p.capture_id, p.reason, p.detail) for p in problems))
    assert laid.totals.digest == plan_digest(plans, problems) == expected
    assert lay_out([*map(capture, reversed(names(9))), *reversed(problems)], plan_of).totals.digest == expected
    assert plan_digest(plans[1:], problems) != expected != plan_digest(plans, [])
    assert plan_digest([], []) == digest([], [])


def test_plans_are_read_as_they_were_made_in_parts_of_any_size(few_at_once, monkeypatch):
    found = [capture("long", 999), *map(capture, names(9))]
    laid = lay_out(found, plan_of)
    reported = sorted((plan_of(t) for t in listed(laid.catalogue)), key=lambda plan: plan.capture_id)
    for size in (1, 7, 10_000):
        monkeypatch.setattr(plan_table, "CLIPS_AT_ONCE", size)
        assert [vars(plan) for plan in laid.tasks()] == [vars(plan) for plan in reported]
    for plan in reported:
        assert vars(read_plan_of(laid.plan, plan.capture_id, laid.totals.digest)) == vars(plan)


def test_a_plan_of_another_digest_or_a_damaged_one_is_refused():
    laid = lay_out([capture("one")], plan_of)
    with pytest.raises(ResultsError, match="was replanned"):
        next(read_plan(laid.plan, "0" * 64))
    with pytest.raises(ResultsError, match="was replanned"):
        read_plan_of(laid.plan, "one", "0" * 64)
    os.truncate(laid.plan, 50)
    with pytest.raises(ResultsError, match=r"plan\.parquet cannot be read"):
        next(laid.tasks())


def test_the_scratch_folder_goes_with_the_plan_and_with_a_plan_that_fails(tmp_path, monkeypatch):
    monkeypatch.setattr(plan_scratch.tempfile, "tempdir", str(tmp_path))
    laid: Planned | None = lay_out([capture("one")], plan_of)
    assert os.listdir(tmp_path)
    laid = None
    gc.collect()
    assert laid is None and not os.listdir(tmp_path)

    def found():
        yield capture("one")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        lay_out(found(), plan_of)
    gc.collect()
    assert not os.listdir(tmp_path)


def test_an_archive_of_problems_alone_has_an_empty_plan():
    laid = lay_out([Problem("z", FailureReason.CALIBRATION, "none")], plan_of)
    assert list(laid.tasks()) == [] and laid.totals.clips == 0 and laid.max_cameras == 0
    assert read_catalogue(laid.catalogue).problems == list(laid.problems)


def test_a_capture_with_more_cameras_than_others_is_counted():
    two = capture("two")
    fewer = replace(two, rig=RIG.select(RIG.names[:2]), videos=two.videos[:2])
    assert lay_out([fewer], plan_of).max_cameras == 2
    assert lay_out([fewer, capture("four")], plan_of).max_cameras == 4

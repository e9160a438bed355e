"""People joined across clips, and the choice of whom to keep."""

import numpy as np
import pytest

from mvpose.reconstruction.identities import identify, tracklets_of
from mvpose.records import Poses3D
from mvpose.scenes import ring4, two_people_crossing
from mvpose.skeleton import HALPE26

FPS = 30.0


def clip(xyz: np.ndarray, views: list[int]) -> Poses3D:
    """Poses T P J 3 with so many views a person; NaN where nobody is."""
    found = np.isfinite(xyz[..., 0])
    num_views = np.where(found, np.array(views)[None, :, None], 0)
    used = np.arange(4) < num_views[..., None]
    return Poses3D(
        xyz=xyz.astype(np.float32),
        confidence=found.astype(np.float32),
        error_px=np.where(found, 1.0, np.nan).astype(np.float32),
        sigma_mm=np.where(found, 20.0, np.nan).astype(np.float32),
        num_views=num_views,
        views_used=used,
        track_id=np.arange(xyz.shape[1]),
        skeleton=HALPE26,
    )


def identified(xyz: np.ndarray, views: list[int], length: int, orders: list[list[int]], max_people: int, gap_s=1.0):
    """Who is who when every clip tells its people in an order of its own: (clip, track) -> person."""
    starts = range(0, len(xyz), length)
    clips = [
        tracklets_of(clip(xyz[s : s + length][:, order], [views[p] for p in order]), s)
        for s, order in zip(starts, orders, strict=True)
    ]
    return identify(clips, FPS, max_people, gap_s, len(xyz)).kept


ORDERS = [[0, 1], [1, 0], [1, 0]]


def test_two_people_keep_their_identity_across_clips_that_tell_them_in_any_order():
    people = identified(two_people_crossing(num_frames=90).joints, [4, 3], 30, ORDERS, max_people=2)
    assert people == {(0, 0): 0, (0, 1): 1, (30, 0): 1, (30, 1): 0, (60, 0): 1, (60, 1): 0}


def test_the_one_person_kept_is_the_same_in_every_clip():
    people = identified(two_people_crossing(num_frames=90).joints, [3, 4], 30, ORDERS, max_people=1)
    assert people == {(0, 1): 0, (30, 0): 0, (60, 0): 0}


def test_a_person_unseen_for_a_while_is_the_same_afterwards_and_not_after_a_longer_while():
    xyz = ring4(num_frames=60).joints.copy()
    xyz[25:40] = np.nan
    orders = [[0], [0]]
    assert len(set(identified(xyz, [4], 30, orders, max_people=3).values())) == 1
    assert len(set(identified(xyz, [4], 30, orders, max_people=3, gap_s=0.3).values())) == 2


def test_somebody_far_away_is_somebody_else():
    xyz = ring4(num_frames=60).joints.copy()
    xyz[30:] += np.array([3.0, 0.0, 0.0])
    assert len(set(identified(xyz, [4], 30, [[0], [0]], max_people=3).values())) == 2


@pytest.mark.parametrize("views", [[4, 2], [2, 4]])
def test_whom_more_cameras_see_is_kept_though_the_other_is_there_as_long(views):
    people = identified(two_people_crossing(num_frames=60).joints, views, 30, [[0, 1], [0, 1]], max_people=1)
    best = int(views[1] > views[0])
    assert people == {(0, best): 0, (30, best): 0}


def test_a_clip_without_anybody_breaks_nothing():
    xyz = ring4(num_frames=90).joints.copy()
    xyz[30:60] = np.nan
    assert set(identified(xyz, [4], 30, [[0], [0], [0]], max_people=1, gap_s=2.0)) == {(0, 0), (60, 0)}


def test_the_first_view_of_a_joint_is_no_support():
    xyz = two_people_crossing(num_frames=60).joints.copy()
    xyz[25:, 1] = np.nan
    # 2 views x 60 frames are more views than 4 x 25, and fewer of them beyond the first: 60 against 75.
    people = identified(xyz, [2, 4], 60, [[0, 1]], max_people=2)
    assert people == {(0, 0): 1, (0, 1): 0}


def test_where_nobody_was_seen_is_no_support_against():
    xyz = two_people_crossing(num_frames=60).joints.copy()
    xyz[30:, 1] = np.nan
    # 3 beyond the first x 30 frames against 1 x 60; frames without the person do not count against him.
    assert identified(xyz, [2, 4], 60, [[0, 1]], max_people=2)[0, 1] == 0


def two_at_the_same_time(*, second_frames: int, num_frames: int = 60, max_people: int | None = None, breaks=()):
    """One person all the time, and another for some frames."""
    xyz = two_people_crossing(num_frames=num_frames).joints.copy()
    xyz[second_frames:, 1] = np.nan
    clips = [tracklets_of(clip(xyz, [4, 2]), 0)]
    return identify(clips, FPS, max_people, 1.0, num_frames, breaks)


def test_who_is_left_out_is_counted():
    found = two_at_the_same_time(second_frames=50, max_people=1)
    assert (found.kept, found.left_out, found.left_out_frames) == ({(0, 0): 0}, 1, 50)
    assert two_at_the_same_time(second_frames=50).left_out == 0


def test_everybody_is_kept_who_is_seen_for_a_fifth_of_a_second():
    # At 30 frames/s. Two views that agree by chance do so for a few frames: without a limit each is a person.
    assert set(two_at_the_same_time(second_frames=6).kept.values()) == {0, 1}
    brief = two_at_the_same_time(second_frames=5)
    assert set(brief.kept.values()) == {0} and (brief.brief, brief.left_out) == (1, 0)


def test_in_an_instant_everybody_is_kept():
    assert len(two_at_the_same_time(second_frames=1, num_frames=1).kept) == 2

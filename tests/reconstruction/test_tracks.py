from dataclasses import replace

import numpy as np
import torch

from mvpose import scenes
from mvpose.reconstruction.association import Association
from mvpose.reconstruction.tracks import VELOCITY_GAIN, extended, link, started, strongest

FPS = 30.0


def seen_as(poses: np.ndarray, present: np.ndarray, support: float = 0.8, num_views: int = 4) -> Association:
    """Bodies of every frame in an order shuffled from frame to frame; poses (T P J 3), present (T P)."""
    rng = np.random.default_rng(0)
    order = rng.permuted(np.broadcast_to(np.arange(poses.shape[1]), present.shape), axis=1)
    bodies = np.take_along_axis(poses, order[..., None, None], axis=1)
    there = np.take_along_axis(present, order, axis=1)
    # The place tells who it is, so that a test can see what became of whom.
    places = np.where(there[..., None], order[..., None], -1).repeat(num_views, axis=-1)
    known = np.broadcast_to(there[..., None], bodies.shape[:3]).copy()
    return Association(
        torch.from_numpy(places),
        torch.from_numpy(np.where(places >= 0, support, 0.0)),
        torch.from_numpy(np.nan_to_num(bodies)),
        torch.from_numpy(known),
    )


def who(association: Association, track) -> set[int]:
    return {int(association.places[t, b, 0]) for t, b in zip(track.frames, track.bodies, strict=True)}


def test_people_keep_their_tracks_whatever_their_order_in_the_frames():
    poses = scenes.two_people_crossing().joints
    found = seen_as(poses, np.ones(poses.shape[:2], bool))
    tracks = link(found, FPS, 1.0)
    assert [len(t.frames) for t in tracks] == [90, 90]
    assert sorted(who(found, t).pop() for t in tracks) == [0, 1]
    assert all(len(who(found, t)) == 1 for t in tracks)


def test_two_who_are_both_lost_while_they_cross_are_told_apart_by_where_they_were_going():
    poses = scenes.two_people_crossing().joints
    present = np.ones(poses.shape[:2], bool)
    present[36:54] = False
    found = seen_as(poses, present)
    tracks = link(found, FPS, 1.0)
    assert len(tracks) == 2
    assert all(len(who(found, t)) == 1 for t in tracks)


def test_a_person_unseen_for_less_than_the_gap_is_the_same_and_for_more_another():
    poses = scenes.ring4(num_frames=90).joints
    present = np.ones(poses.shape[:2], bool)
    present[30:55] = False
    found = seen_as(poses, present)
    assert len(link(found, FPS, 1.0)) == 1
    assert len(link(found, FPS, 0.5)) == 2


def test_a_body_that_appears_across_the_room_is_somebody_else():
    poses = scenes.ring4(num_frames=40).joints.copy()
    poses[20:] += np.array([3.0, 0.0, 0.0])
    assert len(link(seen_as(poses, np.ones(poses.shape[:2], bool)), FPS, 1.0)) == 2


def test_joints_that_come_and_go_do_not_break_a_track():
    poses = scenes.ring4(num_frames=40).joints
    found = seen_as(poses, np.ones(poses.shape[:2], bool))
    known = torch.from_numpy(np.random.default_rng(1).uniform(size=found.known.shape) > 0.6)
    assert len(link(replace(found, known=known), FPS, 1.0)) == 1


def test_the_longest_and_best_supported_track_comes_first():
    poses = scenes.two_people_crossing().joints
    present = np.ones(poses.shape[:2], bool)
    present[:60, 0] = False
    found = seen_as(poses, present)
    tracks = link(found, FPS, 1.0)
    places = strongest(tracks, found, 1)
    assert places.shape == (90, 1, 4)
    assert (places == 1).all(), "the second person was there all the time"
    both = strongest(tracks, found, 5)
    assert both.shape[1] == 2
    assert (both[:60, 1] == -1).all() and (both[60:, 1] == 0).all()


def test_more_cameras_beat_more_frames():
    poses = scenes.two_people_crossing().joints
    present = np.ones(poses.shape[:2], bool)
    present[60:, 0] = False
    found = seen_as(poses, present)
    first = found.places == 0
    support = torch.where(first, 0.8, found.support / 4)
    places = strongest(link(found, FPS, 1.0), replace(found, support=support), 1)
    assert (places[:60] == 0).all() and (places[60:] == -1).all()


def test_a_velocity_is_worth_the_time_it_was_taken_over_and_not_the_times_it_was_seen():
    poses = np.zeros((31, 1, 26, 3)) + 0.02 * np.arange(31)[:, None, None, None]
    velocity = []
    for every in (1, 5):
        ends = started(0, 0, poses[0])
        for frame in range(every, 31, every):
            ends = extended(ends, frame, poses[frame])
        velocity.append(ends.velocity)
    np.testing.assert_allclose(velocity[0], 0.02, rtol=1e-3)
    np.testing.assert_allclose(velocity[1], velocity[0], rtol=1e-9)


def test_the_velocity_of_a_person_is_the_median_over_the_joints_that_both_poses_have():
    # Fails without the count of missing joints in `_medians`, or with the mean of all.
    rng = np.random.default_rng(0)
    first, second = rng.normal(size=(2, 9, 7, 3))
    second[rng.random((9, 7)) < 0.5] = np.nan
    second[0], second[1, 1:] = np.nan, np.nan
    ends = extended(started(0, 0, first), 1, second)
    expected = np.stack(
        [np.nanmedian(b - a, axis=0) if t else np.zeros(3) for t, (a, b) in enumerate(zip(first, second, strict=True))]
    )
    np.testing.assert_allclose(ends.velocity, VELOCITY_GAIN * expected)
    np.testing.assert_array_equal(ends.pose[0], first[0], "a person without joints stays where it was")

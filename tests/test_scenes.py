import numpy as np
import pytest
import torch

from mvpose import scenes
from mvpose.geometry.triangulation import triangulate
from mvpose.skeleton import BODY_JOINTS, HALPE26, SKELETONS, Skeleton

ALL = [
    scenes.ring4,
    scenes.ring31,
    scenes.narrow_baseline,
    scenes.occluded,
    scenes.outlier_view,
    scenes.dropped_frame,
    scenes.two_people_crossing,
]


@pytest.mark.parametrize("make", ALL)
def test_a_scene_is_the_same_every_time_and_another_with_another_seed(make):
    first, again, other = make(seed=3), make(seed=3), make(seed=4)
    np.testing.assert_array_equal(first.joints, again.joints)
    np.testing.assert_array_equal(first.keypoints().xy, again.keypoints().xy)
    assert not np.array_equal(first.keypoints().xy, other.keypoints().xy, equal_nan=True)


@pytest.mark.parametrize("skeleton", SKELETONS.values(), ids=lambda s: s.name)
def test_bones_keep_their_lengths_in_every_joint_set(skeleton):
    joints = scenes.ring4(skeleton=skeleton).joints
    a, b = np.array(skeleton.bone_indices).T
    length = np.linalg.norm(joints[:, :, a] - joints[:, :, b], axis=-1)
    np.testing.assert_allclose(length, length[:1].repeat(len(length), axis=0), atol=1e-12)


def test_the_person_moves_stands_on_the_floor_and_is_as_tall_as_people_are():
    scene = scenes.ring4()
    z = scene.joints[..., 2]
    assert -0.1 < z.min() < 0.1
    assert 1.5 < z.max() < 1.9
    knees = scene.joints[:, 0, HALPE26.index("left_knee")] - scene.joints[:, 0, HALPE26.index("left_hip")]
    swing = np.ptp(np.arctan2(np.linalg.norm(knees[:, :2], axis=-1), -knees[:, 2]))
    assert swing > 0.3, "legs swing, they do not glide"


def test_left_is_left_of_where_the_person_goes():
    scene = scenes.two_people_crossing()
    left, right = HALPE26.indices("left_shoulder", "right_shoulder")
    across = scene.joints[:, 0, left] - scene.joints[:, 0, right]
    assert (across[:, 1] > 0.3).all(), "the first person walks along +x"


@pytest.mark.parametrize("make", ALL)
def test_people_are_within_the_images_most_of_the_time(make):
    scene = make()
    _, seen = scene.rig.project(torch.from_numpy(scene.joints))
    pixels, _ = scene.rig.project(torch.from_numpy(scene.joints))
    assert (seen & scene.rig.inside(pixels)).double().mean() > 0.95


def test_exact_keypoints_triangulate_to_the_truth_through_the_lens():
    scene = scenes.ring4()
    keypoints = scene.keypoints(noise_px=0.0)
    ideal, _ = scene.rig.undistorted(torch.from_numpy(keypoints.xy[:, :, 0]).double())
    weights = torch.from_numpy(keypoints.confidence[:, :, 0]).double()
    found = triangulate(ideal.movedim(0, -2).nan_to_num(), scene.rig.projections, weights.movedim(0, -1))
    error = np.linalg.norm(found.points.numpy() - scene.joints[:, 0], axis=-1)
    assert error.max() < 1e-5, "float32 pixels: a hundredth of a millimetre"


def test_noise_has_the_stated_size_and_the_confidence_knows_of_it():
    scene = scenes.ring4(num_frames=200)
    exact, noisy = scene.keypoints(noise_px=0.0), scene.keypoints(noise_px=3.0)
    error = np.linalg.norm(noisy.xy - exact.xy, axis=-1)
    assert np.sqrt(np.nanmean(error**2) / 2) == pytest.approx(3.0, rel=0.1)
    sure = noisy.confidence > np.median(noisy.confidence)
    assert np.nanmean(error[sure]) < 0.8 * np.nanmean(error[~sure])


def test_places_of_people_are_shuffled_between_views_and_frames():
    scene = scenes.two_people_crossing()
    keypoints = scene.keypoints(noise_px=0.0)
    pixels, _ = scene.rig.project(torch.from_numpy(scene.joints))
    hip = HALPE26.index("hip")
    distance = np.linalg.norm(keypoints.xy[:, :, :1, hip] - pixels.numpy()[:, :, :, hip], axis=-1)
    first = distance.argmin(axis=-1)
    assert (first.mean(axis=1) > 0.3).all() and (first.mean(axis=1) < 0.7).all()


def test_a_place_without_a_person_has_score_zero_and_no_joints():
    keypoints = scenes.dropped_frame().keypoints()
    assert (keypoints.box_score[:, 30] == 0).all() and (keypoints.box_score[1, 10:20] == 0).all()
    assert np.isnan(keypoints.xy[:, 30]).all() and (keypoints.confidence[:, 30] == 0).all()
    np.testing.assert_array_equal(np.isnan(keypoints.xy).any(axis=-1), keypoints.confidence == 0)


def test_boxes_hold_the_joints():
    keypoints = scenes.ring4().keypoints()
    low, high = np.nanmin(keypoints.xy, axis=3), np.nanmax(keypoints.xy, axis=3)
    assert (keypoints.box[..., :2] <= low).all() and (keypoints.box[..., 2:] >= high).all()


def test_hidden_joints_are_guessed_badly_and_unsurely():
    scene = scenes.occluded()
    exact, _ = scene.rig.project(torch.from_numpy(scene.joints))
    keypoints = scene.keypoints(noise_px=2.0)
    error = np.linalg.norm(keypoints.xy - exact.numpy(), axis=-1)
    assert 0.25 < (~scene.seen).mean() < 0.4
    assert np.nanmedian(error[~scene.seen]) > 5 * np.nanmedian(error[scene.seen])
    assert (
        keypoints.confidence[~scene.seen].max()
        < 0.3
        < keypoints.confidence[scene.seen & (keypoints.confidence > 0)].min()
    )


def test_a_subset_of_the_joints_moves_as_the_whole_does():
    body = Skeleton("body12", BODY_JOINTS, ())
    np.testing.assert_array_equal(
        scenes.ring4(skeleton=body).joints, scenes.ring4().joints[:, :, HALPE26.indices(*BODY_JOINTS)]
    )


def test_a_joint_that_the_body_lacks_is_named():
    with pytest.raises(ValueError, match="tail"):
        scenes.ring4(skeleton=Skeleton("cat", ("nose", "tail"), ()))

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mvpose import scenes
from mvpose.reconstruction.association import Association, associate, detection_pairs
from mvpose.reconstruction.hypotheses import MAX_HYPOTHESES, PARTNERS
from mvpose.reconstruction.observations import observe
from mvpose.scenes import Scene

EXPECTED_ERROR, THRESHOLD_PX = 0.015, 45.0


def crowd(scene: Scene, offsets: list[tuple[float, float]]) -> Scene:
    """Copies of the first person of a scene, moved over the floor."""
    moved = [scene.joints[:, 0] + np.array([x, y, 0.0]) for x, y in offsets]
    joints = np.stack(moved, axis=1)
    shape = (len(scene.rig), *joints.shape[:3])
    return replace(scene, joints=joints, seen=np.ones(shape, bool), detected=np.ones(shape[:3], bool))


def people_of(scene: Scene, noise_px: float = 2.0) -> tuple[Association, np.ndarray]:
    """The association, and whom each place truly shows (V T P); -1 where nobody."""
    keypoints = scene.keypoints(noise_px=noise_px)
    projected, _ = scene.rig.project(torch.from_numpy(scene.joints))
    apart = np.linalg.norm(keypoints.xy[:, :, :, None] - projected.numpy()[:, :, None], axis=-1)
    with np.errstate(invalid="ignore"):
        mean = np.where(np.isnan(apart).all(axis=-1), np.inf, np.nan_to_num(apart, nan=0.0).sum(axis=-1))
    truth = np.where(keypoints.box_score > 0, mean.argmin(axis=-1), -1)
    return associate(observe(keypoints, scene.rig, 0.1), scene.rig, EXPECTED_ERROR, THRESHOLD_PX), truth


def bodies_as_truth(found: Association, truth: np.ndarray) -> list[list[set[int]]]:
    """By frame and body the true people among its members."""
    places = found.places.numpy()
    return [
        [{int(truth[v, t, p]) for v, p in enumerate(body) if p >= 0} for body in places[t] if (body >= 0).any()]
        for t in range(len(places))
    ]


@pytest.mark.parametrize("make", [scenes.ring4, scenes.ring31, scenes.narrow_baseline, scenes.two_people_crossing])
def test_every_view_of_every_person_is_a_member_of_one_body(make):
    scene = make(num_frames=6)
    found, truth = people_of(scene)
    everyone = [{p} for p in range(scene.joints.shape[1])]
    for bodies in bodies_as_truth(found, truth):
        assert sorted(bodies, key=min) == everyone
    assert (found.places >= 0).all()


def test_five_people_half_a_metre_apart_are_told_apart():
    scene = crowd(scenes.occluded(num_frames=4), [(0, 0), (0.5, 0), (0, 0.5), (-0.6, 0), (0, -0.6)])
    found, truth = people_of(scene)
    for bodies in bodies_as_truth(found, truth):
        assert sorted(bodies, key=min) == [{0}, {1}, {2}, {3}, {4}]


def test_people_of_the_same_posture_before_level_cameras_are_told_apart_by_a_third_view():
    # Cameras of one height see equal heights on equal epipolar lines: pairs of views alone would confuse these two.
    scene = crowd(scenes.ring4(num_frames=4), [(-0.7, 0.0), (0.7, 0.3)])
    found, truth = people_of(scene)
    for bodies in bodies_as_truth(found, truth):
        assert sorted(bodies, key=min) == [{0}, {1}]


def test_detections_that_are_no_person_are_nobodys_members():
    scene = scenes.ring4(num_frames=4)
    keypoints = scene.keypoints()
    rng = np.random.default_rng(0)
    clutter = {
        "xy": rng.uniform(0, 1000, keypoints.xy.shape).astype(np.float32),
        "confidence": np.full_like(keypoints.confidence, 0.6),
        "box": keypoints.box,
        "box_score": keypoints.box_score,
    }
    both = {n: np.concatenate([c, getattr(keypoints, n)], axis=2) for n, c in clutter.items()}
    seen = observe(replace(keypoints, **both), scene.rig, 0.1)
    found = associate(seen, scene.rig, EXPECTED_ERROR, THRESHOLD_PX)
    real = (found.places == 1).all(dim=-1)
    assert real.any(dim=1).all()
    assert not (found.places == 0).any()


def test_a_person_whom_one_view_sees_is_no_body():
    scene = scenes.ring4(num_frames=3)
    detected = np.zeros_like(scene.detected)
    detected[2] = True
    found, _ = people_of(replace(scene, detected=detected))
    assert not (found.places >= 0).any()


def test_support_is_the_confidence_of_what_agrees():
    scene = scenes.ring4(num_frames=3)
    found, _ = people_of(scene, noise_px=0.0)
    confidence = scene.keypoints(noise_px=0.0).confidence.mean(axis=-1)[:, :, 0].T
    np.testing.assert_allclose(found.support[:, 0].numpy(), confidence, atol=1e-3)


@settings(max_examples=5, deadline=None)
@given(seed=st.integers(0, 1000))
def test_a_view_gives_a_body_one_detection_and_a_detection_goes_to_one_body(seed):
    scene = crowd(scenes.ring4(num_frames=2, seed=seed), [(0, 0), (0.4, 0.2), (-0.3, 0.5)])
    found, _ = people_of(scene, noise_px=8.0)
    for t, v in np.ndindex(len(found.places), len(scene.rig)):
        members = [int(p) for p in found.places[t, :, v] if p >= 0]
        assert len(members) == len(set(members))
    counts = (found.places >= 0).sum(dim=-1)
    assert ((counts == 0) | (counts >= 2)).all()


@pytest.mark.parametrize("num_views", [2, 4, 9, 31])
def test_the_number_of_hypotheses_grows_linearly_with_views(num_views):
    origin = scenes.ring31(num_frames=1).rig.centres_world[:num_views]
    pairs = detection_pairs(origin, 3)
    assert len(pairs) <= num_views * PARTNERS * 9
    assert (pairs[:, 0] != pairs[:, 2]).all()
    assert set(pairs[:, [0, 2]].flatten().tolist()) == set(range(num_views))
    assert MAX_HYPOTHESES >= 9 * 6, "all pairs of four views with three people each are tried"

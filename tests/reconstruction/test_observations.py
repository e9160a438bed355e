from dataclasses import replace

import numpy as np
import torch

from mvpose import scenes
from mvpose.confidence import ConfidenceScale
from mvpose.reconstruction.observations import border_distance, observe


def test_rays_pass_through_the_joints_that_were_seen():
    scene = scenes.ring4(num_frames=2)
    seen = observe(scene.keypoints(noise_px=0.0), scene.rig, 0.0)
    offset = torch.from_numpy(scene.joints)[:, None] - seen.origin[:, None, None]
    apart = torch.linalg.cross(offset, seen.ray).norm(dim=-1)
    assert (seen.weight > 0).all()
    assert apart.max() < 1e-5
    assert ((offset * seen.ray).sum(dim=-1) > 0).all(), "rays go away from the camera"


def test_joints_less_sure_than_asked_for_have_no_weight_and_the_others_their_confidence():
    scene = scenes.occluded(num_frames=3)
    keypoints = scene.keypoints()
    seen = observe(keypoints, scene.rig, 0.3)
    confidence = torch.from_numpy(keypoints.confidence).double().movedim(0, 1)
    sure = torch.from_numpy(scene.seen).movedim(0, 1) & (confidence > 0)
    assert (~sure).any()
    torch.testing.assert_close(seen.weight, confidence * sure)


def test_a_person_found_twice_in_a_view_counts_once_the_surer_time():
    scene = scenes.two_people_crossing(num_frames=3)
    keypoints = scene.keypoints()
    again = {
        name: np.concatenate([getattr(keypoints, name), getattr(keypoints, name)[:, :, :1]], axis=2)
        for name in ("xy", "confidence", "box", "box_score")
    }
    again["xy"][:, :, 2] += 6.0
    again["confidence"][:, :, 2] *= 0.9
    seen = observe(replace(keypoints, **again), scene.rig, 0.0)
    assert (seen.weight[:, :, :2] > 0).any(dim=-1).all()
    assert (seen.weight[:, :, 2] == 0).all()


def test_a_place_of_minus_one_has_no_weight():
    scene = scenes.ring4(num_frames=2)
    seen = observe(scene.keypoints(), scene.rig, 0.0)
    places = torch.tensor([0, -1, 0, -1]).expand(2, 1, 4)
    pixels, weights = seen.of(places)
    assert pixels.shape == (2, 1, 26, 4, 2)
    assert (weights[..., [1, 3]] == 0).all() and (weights[..., [0, 2]] > 0).all()


def test_of_two_equally_sure_poses_of_a_person_exactly_one_stays():
    scene = scenes.ring4(num_frames=3)
    keypoints = scene.keypoints()
    twice = {
        name: np.concatenate([getattr(keypoints, name)] * 2, axis=2)
        for name in ("xy", "confidence", "box", "box_score")
    }
    seen = observe(replace(keypoints, **twice), scene.rig, 0.0)
    torch.testing.assert_close(seen.weight[:, :, 0], observe(keypoints, scene.rig, 0.0).weight[:, :, 0])
    assert (seen.weight[:, :, 1] == 0).all()


def test_two_people_a_fifth_of_their_height_apart_are_two():
    scene = scenes.ring4(num_frames=3)
    keypoints = scene.keypoints()
    twice = {
        name: np.concatenate([getattr(keypoints, name)] * 2, axis=2)
        for name in ("xy", "confidence", "box", "box_score")
    }
    height = keypoints.box[..., 3] - keypoints.box[..., 1]
    twice["xy"][:, :, 1:, :, 0] += 0.2 * height[..., None]
    seen = observe(replace(keypoints, **twice), scene.rig, 0.0)
    assert (seen.weight > 0).any(dim=-1).all()


def test_a_threshold_keeps_the_same_joints_whatever_the_scale_of_the_source():
    # Fails if the threshold is applied to the confidence as stated, or the weight is not the likelihood.
    scene = scenes.occluded(num_frames=3)
    keypoints = scene.keypoints()
    scale = ConfidenceScale(likelihood=((0.0, 0.0), (0.1, 0.3), (1.0, 1.0)))
    known, likelihood = np.array(scale.likelihood).T
    stated = np.interp(keypoints.confidence, likelihood, known)
    rescaled = observe(replace(keypoints, confidence=stated, scale=scale), scene.rig, 0.3)
    torch.testing.assert_close(rescaled.weight, observe(keypoints, scene.rig, 0.3).weight)
    assert (rescaled.weight == 0).any()


def test_a_joint_on_the_border_is_less_likely_and_one_that_is_well_inside_is_not():
    # Fails if distances are not relative to the person's size, or are measured from two sides of the image only.
    scene = scenes.ring4(num_frames=1)
    keypoints = scene.keypoints()
    width, height = scene.rig.size[0].tolist()
    size = float((keypoints.box[0, 0, 0, 2:] - keypoints.box[0, 0, 0, :2]).max())
    away = 0.11 * size
    places = [(0, height / 2), (width - 1, height / 2), (width / 2, 0), (width / 2, height - 1), (away, height / 2)]
    keypoints.xy[0, 0, 0, :5] = places
    scaled = replace(keypoints, scale=ConfidenceScale(border_odds=0.2))
    border = border_distance(scaled, scene.rig)[0, 0, 0, :5]
    np.testing.assert_allclose(border, [0.0, 0.0, 0.0, 0.0, 0.11], atol=1e-5)
    ratio = observe(scaled, scene.rig, 0.0).weight[0, 0, 0, :5] / observe(keypoints, scene.rig, 0.0).weight[0, 0, 0, :5]
    assert (ratio[:4] < 0.99).all() and ratio[4] == 1.0

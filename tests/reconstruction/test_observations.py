from dataclasses import replace

import numpy as np
import torch

from mvpose import scenes
from mvpose.reconstruction.observations import observe


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

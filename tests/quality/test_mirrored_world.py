"""A rig that is the mirror image of the real one is named as such, and the rest is judged with it flipped back."""

from dataclasses import replace

import numpy as np
import pytest

from mvpose import scenes
from mvpose.quality.findings import CheckKind, Finding, Status
from mvpose.quality.image_orientation import mirrored
from mvpose.quality.mirrored_world import flipped_positions, flipped_rig, mirrored_world
from mvpose.quality.preflight import PreflightConfig, preflight
from mvpose.quality.swapped_names import best_exchange
from mvpose.rendering.camera_rigs import random_rig
from tests.reconstruction.faults import of_views

CONFIG = PreflightConfig(runs=2, run_frames=30, max_shift=8)
FRAMES = 60


@pytest.fixture(scope="module")
def walk():
    """Cameras at different heights: flipped about their common height, those of a ring only move the origin."""
    rig = random_rig(np.random.default_rng(1), 4)
    return replace(scenes.ring4(num_frames=FRAMES), rig=rig).keypoints(), rig


def failed(keypoints, rig) -> list[Finding]:
    found = preflight(keypoints, np.arange(FRAMES), rig, scenes.FPS, CONFIG)
    return [f for f in found.findings if f.status != Status.PASS and f.check != CheckKind.EPIPOLAR]


@pytest.mark.parametrize("mirror", [flipped_rig, flipped_positions])
@pytest.mark.parametrize("axis", [0, 1, 2])
def test_a_left_handed_world_is_named_with_the_axis_and_nothing_else(walk, mirror, axis):
    """Fails without either kind of flip, and if the checks below are not of the rig flipped back."""
    keypoints, rig = walk
    (found,) = failed(keypoints, mirror(rig, axis))
    assert found.check == CheckKind.CALIBRATION and f"mirrored: with the {'xyz'[axis]} axis of" in found.reason


def test_a_square_of_cameras_in_a_left_handed_world_is_not_taken_for_two_with_exchanged_names():
    """Fails if exchanges are tried first: one explains 95 % of the joints here."""
    scene = scenes.ring4(num_frames=FRAMES)
    (found,) = failed(scene.keypoints(), flipped_rig(scene.rig, 0))
    assert found.check == CheckKind.CALIBRATION


def test_videos_that_are_all_mirrored_look_the_same_and_the_reason_says_so(walk):
    keypoints, rig = walk
    for view in range(len(rig)):
        keypoints = mirrored(keypoints, view, int(rig.size[view, 0]))
    found = failed(keypoints, rig)[0]
    assert found.check == CheckKind.CALIBRATION
    assert "x axis" in found.reason and "all videos are mirrored" in found.reason


@pytest.mark.parametrize("flip", [flipped_rig, flipped_positions])
def test_two_flips_are_none(walk, flip):
    twice = flip(flip(walk[1], 1), 1).camera_from_world
    assert np.allclose(twice.rotation, walk[1].camera_from_world.rotation)
    assert np.allclose(twice.translation, walk[1].camera_from_world.translation)


def test_a_rig_of_two_is_not_judged_as_lines_cross_by_chance(walk):
    """Fails without the limit of three cameras."""
    keypoints, rig = walk
    keypoints, pair = of_views(keypoints, [0, 1]), flipped_rig(rig.select(rig.names[:2]), 2)
    assert mirrored_world(keypoints, pair, best_exchange(keypoints, pair)) is None

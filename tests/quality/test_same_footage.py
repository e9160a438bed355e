"""One video under two cameras' names is found by its joints, whatever the calibration says."""

from dataclasses import replace

import numpy as np
import pytest

from mvpose import scenes
from mvpose.quality.findings import CheckKind, Status
from mvpose.quality.judgement import verdict_of
from mvpose.quality.preflight import PreflightConfig, preflight
from mvpose.quality.same_footage import same_footage
from tests.reconstruction.faults import of_views

CONFIG = PreflightConfig(runs=2, run_frames=30, max_shift=8)
FRAMES = 40


@pytest.fixture(scope="module")
def walk():
    scene = scenes.ring4(num_frames=FRAMES)
    return scene.keypoints(), scene.rig


def test_the_two_cameras_with_one_video_are_named_and_nothing_else_is_judged(walk):
    """Fails if the checks go on: then the camera with a calibration that is not its own is one that moved."""
    keypoints, rig = walk
    found = preflight(of_views(keypoints, [0, 1, 1, 3]), np.arange(FRAMES), rig, scenes.FPS, CONFIG)
    (finding,) = found.findings
    assert (finding.check, finding.status, finding.cameras) == (CheckKind.SAME_FOOTAGE, Status.FAIL, rig.names[1:3])
    assert verdict_of(found.findings).reason.startswith("same footage cam02, cam03")


def test_every_pair_of_three_copies_is_listed_and_a_rounding_of_the_detector_is_let_be(walk):
    """Fails if joints must be equal to the last bit."""
    keypoints = of_views(walk[0], [0, 2, 0, 0])
    noisy = replace(keypoints, xy=keypoints.xy + np.random.default_rng(0).normal(0, 0.05, keypoints.xy.shape))
    assert same_footage(noisy) == [(0, 2), (0, 3), (2, 3)]


def test_cameras_a_few_pixels_apart_and_views_with_hardly_anybody_are_not_the_same(walk):
    """The second fails if a handful of joints is enough, the first if a few pixels are."""
    keypoints = of_views(walk[0], [0, 0])
    keypoints.xy[1] += 2.0
    assert not same_footage(keypoints)
    brief = of_views(walk[0], [0, 0])
    brief.confidence[:, 2:] = 0.0
    assert not same_footage(brief)

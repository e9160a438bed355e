"""Clips without pixels: motion capture through random cameras, with the detector's errors."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from mvpose.datasets.detector_noise import measured_noise
from mvpose.datasets.sample import TEST, TRAIN
from mvpose.errors import ConfigError
from mvpose.rendering.keypoint_source import KeypointSource, MotionCapture, keypoint_clip
from mvpose.skeleton import RENDERED
from tests.rendering.conftest import assets  # noqa: F401

NOISELESS = replace(
    measured_noise(),
    **{
        name: np.zeros_like(getattr(measured_noise(), name)) for name in ("hidden", "bias", "swapped", "turned", "lost")
    },
    scale=np.full_like(measured_noise().scale, 1e-9),
)


@pytest.fixture(scope="module")
def source(assets) -> KeypointSource:  # noqa: F811
    return KeypointSource(assets=assets, views=3, frames=5, people=40, min_confidence=0.0)


def test_without_noise_the_joints_are_where_the_cameras_see_them(source):
    clip = keypoint_clip(source, TRAIN, 0, NOISELESS)
    pixels, before = clip.rig.project(torch.from_numpy(clip.joints))
    inside = (before & clip.rig.inside(pixels)).numpy()
    assert inside.mean() > 0.8 and np.array_equal(np.isfinite(clip.xy).all(axis=-1), inside)
    assert np.abs(clip.xy - pixels.numpy())[inside].max() < 1e-3
    assert 0 < np.linalg.norm(np.diff(clip.joints, axis=0), axis=-1).max() < 0.5
    soles = clip.joints[:, clip.skeleton.indices("left_ankle", "right_ankle"), 2].min()
    assert -0.05 < soles < 1.0


def test_a_clip_follows_from_seed_split_and_index(source):
    one, same = keypoint_clip(source, TRAIN, 3), keypoint_clip(source, TRAIN, 3)
    assert np.array_equal(one.xy, same.xy, equal_nan=True) and np.array_equal(one.joints, same.joints)
    for other in (
        keypoint_clip(source, TRAIN, 4),
        keypoint_clip(source, TEST, 3),
        keypoint_clip(replace(source, seed=1), TRAIN, 3),
    ):
        assert not np.array_equal(one.joints, other.joints)


def test_motion_capture_is_a_table_of_moving_people_without_images(source):
    motion = MotionCapture(clips=source, train=3, validation=0, test=1, shard_clips=2)
    assert motion.shards() == ["train/00000", "train/00001", "test/00000"]
    samples = [sample for shard in motion.shards() for sample in motion.read(shard)]
    assert [(s.split, s.frame) for s in samples] == [(TRAIN, f) for _ in range(3) for f in range(5)] + [
        (TEST, f) for f in range(5)
    ]
    clip = keypoint_clip(source, TRAIN, 1, NOISELESS)
    kept = RENDERED.indices(*clip.skeleton.joints)
    assert np.allclose([s.xyz[kept] for s in samples[5:10]], clip.joints)
    assert samples[5].subject == clip.subject and samples[5].action == clip.action
    assert samples[5].rig.names == clip.rig.names and all(i.crop is None and not i.uri for i in samples[5].images)
    assert not {s.action for s in samples if s.split == TRAIN} & {s.action for s in samples if s.split == TEST}


def test_settings_that_make_no_clip_are_refused(assets):  # noqa: F811
    for wrong in ({"frames": 0}, {"fps": 0.0}, {"views": 0}):
        with pytest.raises(ConfigError, match="at least 1 frame and view"):
            KeypointSource(assets=assets, **wrong)

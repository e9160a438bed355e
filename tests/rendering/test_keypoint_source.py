"""Clips without pixels: motion capture through random cameras, with the detector's errors."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from mvpose.datasets.detector_noise import measured_noise
from mvpose.datasets.sample import TEST, TRAIN
from mvpose.errors import ConfigError
from mvpose.metrics.joint_errors import mpjpe
from mvpose.models.single_view.lifting import ResidualLifter, TemporalLifter
from mvpose.rendering.keypoint_source import KeypointSource, in_cameras, keypoint_clip, lifting_samples
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


def test_the_samples_of_lifting_are_reported_on_the_plane_of_each_camera(source):
    clips = [keypoint_clip(source, TRAIN, index, NOISELESS) for index in range(2)]
    samples = lifting_samples(clips)
    assert samples.points.shape == (6, 5, 20, 2) and samples.seen is not None
    xyz = torch.from_numpy(np.concatenate([in_cameras(clip.rig, clip.joints) for clip in clips]))
    plane = (xyz[..., :2] / xyz[..., 2:]).float()
    assert (samples.points - plane)[samples.seen].abs().max() < 1e-5
    hip = clips[0].skeleton.index("hip")
    assert torch.allclose(samples.poses, (xyz - xyz[:, :, [hip]]).float(), atol=1e-6)


def test_what_the_detector_misses_is_nan_and_not_seen_and_leaves_no_whole_frame(source):
    clips = [keypoint_clip(replace(source, min_confidence=0.6), TRAIN, index) for index in range(3)]
    samples = lifting_samples(clips)
    seen = samples.seen
    assert seen is not None and 0.02 < (~seen).float().mean() < 0.6
    assert samples.points[~seen].isnan().all() and samples.points[seen].isfinite().all()
    points, poses = samples.whole_frames()
    assert len(points) == len(poses) == int(seen.all(dim=-1).sum()) and points.isfinite().all()


def test_both_lifters_train_on_it(source):
    torch.manual_seed(0)
    samples = lifting_samples([keypoint_clip(replace(source, rig="ring8"), TRAIN, index) for index in range(8)])
    points, poses = samples.whole_frames()
    lifter = ResidualLifter(20, width=64, dropout=0.0)
    lifter.fit_units(points, poses)
    mean = mpjpe(poses.mean(dim=0).expand_as(poses), poses).mean()
    assert _trained(lifter, lambda: lifter(points), poses, 60) < 0.7 * mean
    temporal = TemporalLifter(20, 5, width=24, blocks=1, heads=2, dropout=0.0)
    temporal.fit_units(samples.points, samples.poses)
    assert _trained(temporal, lambda: temporal(samples.points, samples.seen), samples.poses, 60) < 0.9 * mean


def _trained(lifter, answer, poses, steps) -> float:
    optimiser = torch.optim.Adam(lifter.parameters(), lr=1e-2)
    for _ in range(steps):
        optimiser.zero_grad()
        (answer() - poses).square().mean().backward()
        optimiser.step()
    with torch.no_grad():
        return float(mpjpe(answer(), poses).mean())


def test_settings_that_make_no_clip_are_refused(assets):  # noqa: F811
    for wrong in ({"frames": 0}, {"fps": 0.0}, {"views": 0}):
        with pytest.raises(ConfigError, match="at least 1 frame and view"):
            KeypointSource(assets=assets, **wrong)

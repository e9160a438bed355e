"""Laws of the filters, each on the runs that it promises them for."""

from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.interpolate import make_smoothing_spline
from scipy.linalg import solve_banded

from mvpose.config import structure, without_other_kinds
from mvpose.errors import ConfigError
from mvpose.reconstruction.view_errors import poses_at
from mvpose.records import Poses3D
from mvpose.scenes import ring4
from mvpose.skeleton import COCO17, HALPE26, Skeleton
from mvpose.temporal import filters
from mvpose.temporal.filter_settings import (
    ButterworthFilter,
    Filtering,
    GapFilter,
    KalmanFilter,
    MedianFilter,
    OneEuroFilter,
)
from mvpose.temporal.filters import blocks, bone_lengths, filtered, filtered_block
from mvpose.temporal.kalman import kalman
from mvpose.temporal.smoothing import butterworth, gcv_spline, hampel_outliers, median, one_euro

FPS = 60.0
SMOOTHERS = {
    "butterworth": lambda x: butterworth(x, 0.2, 4),
    "kalman_velocity": lambda x: kalman(x, 0.2, 1),
    "kalman_acceleration": lambda x: kalman(x, 0.2, 2),
    "spline": gcv_spline,
    "median": lambda x: median(x, 3),
    "one_euro": lambda x: one_euro(x, FPS, 1.0, 5.0, 1.0),
}
ZERO_LAG = [name for name in SMOOTHERS if name != "one_euro"]
LINEAR = ["butterworth", "kalman_velocity", "kalman_acceleration", "median"]
runs = st.integers(0, 2**32 - 1).map(lambda seed: np.random.default_rng(seed).normal(size=(80, 2, 3)).cumsum(axis=0))


def filter_named(name: str, **values) -> Filtering:
    """A filter of a kind, with those of the values that the kind has."""
    return structure(without_other_kinds({"smoothing": name, **values}, Filtering), Filtering, "test")


def poses_of(xyz: np.ndarray) -> Poses3D:
    there = np.isfinite(xyz).all(axis=-1)
    return Poses3D(
        xyz=xyz,
        confidence=there * 0.9,
        error_px=np.where(there, 2.0, np.nan),
        sigma_mm=np.where(there, 15.0, np.nan),
        num_views=there * 4,
        views_used=np.repeat(there[..., None], 4, axis=-1),
        track_id=np.arange(xyz.shape[1]),
        skeleton=COCO17,
    )


def walking(num_frames: int = 120, noise_m: float = 0.0) -> np.ndarray:
    joints = ring4(num_frames=num_frames, skeleton=COCO17).joints
    return joints + noise_m * np.random.default_rng(1).normal(size=joints.shape)


@pytest.mark.parametrize("name", SMOOTHERS)
def test_a_constant_stays_constant(name):
    still = np.broadcast_to([1.5, -2.0, 0.7], (60, 3, 3)).copy()
    assert np.allclose(SMOOTHERS[name](still), still, atol=1e-9)


@pytest.mark.parametrize("name", ZERO_LAG)
def test_linear_motion_is_unchanged_to_its_ends(name):
    line = np.array([0.1, 2.0, 3.0]) + np.arange(60)[:, None, None] * np.array([0.02, -0.03, 0.005])
    assert np.allclose(SMOOTHERS[name](line), line, atol=1e-6)


def test_motion_of_constant_acceleration_is_unchanged_by_the_acceleration_model_alone():
    parabola = (np.arange(60.0) ** 2)[:, None, None] * np.array([1e-3, -2e-3, 5e-4])
    assert np.allclose(kalman(parabola, 0.2, 2), parabola, atol=1e-6)
    assert np.abs(kalman(parabola, 0.2, 1) - parabola).max() > 1e-3


@pytest.mark.parametrize("name", ZERO_LAG)
@given(run=runs)
@settings(max_examples=10, deadline=None)
def test_a_filter_without_lag_gives_the_same_curve_backwards(name, run):
    forwards, backwards = SMOOTHERS[name](run), SMOOTHERS[name](run[::-1])[::-1]
    # The Kalman smoother starts from an unknown state of variance 1e8, the others are symmetric to rounding.
    assert np.allclose(forwards, backwards, atol=1e-5 if name.startswith("kalman") else 1e-7)


@given(run=runs)
@settings(max_examples=5, deadline=None)
def test_one_euro_lags_and_so_differs_backwards(run):
    smooth = SMOOTHERS["one_euro"]
    assert np.abs(smooth(run) - smooth(run[::-1])[::-1]).max() > 1e-3


@pytest.mark.parametrize("name", [*LINEAR, "spline"])
@given(run=runs, scale=st.sampled_from([1e-3, 0.5, 1000.0]))
@settings(max_examples=10, deadline=None)
def test_scaling_the_world_scales_the_curve(name, run, scale):
    assert np.allclose(SMOOTHERS[name](scale * run), scale * SMOOTHERS[name](run), atol=1e-6 * scale)


@pytest.mark.parametrize("name", [name for name in SMOOTHERS if name != "median"])
@given(run=runs)
@settings(max_examples=5, deadline=None)
def test_turning_the_world_turns_the_curve(name, run):
    turn, _ = np.linalg.qr(np.random.default_rng(5).normal(size=(3, 3)))
    assert np.allclose(SMOOTHERS[name](run @ turn), SMOOTHERS[name](run) @ turn, atol=1e-7)


@pytest.mark.parametrize("name", ["butterworth", "kalman_velocity", "kalman_acceleration"])
@pytest.mark.parametrize("cutoff_hz", [2.0, 6.0, 12.0])
def test_the_cut_off_passes_three_decibel_less_after_both_passes(name, cutoff_hz):
    assert _amplitude(name, cutoff_hz, cutoff_hz) == pytest.approx(np.sqrt(0.5), abs=2e-3)


@pytest.mark.parametrize("order", [2, 4, 8])
def test_butterworth_has_its_textbook_response_over_all_frequencies(order):
    for hertz in (1.0, 4.0, 9.0, 15.0):
        raised = np.tan(np.pi * 6.0 / FPS) * (np.sqrt(2) - 1) ** (-1 / order)
        expected = 1 / (1 + (np.tan(np.pi * hertz / FPS) / raised) ** order)
        assert _amplitude("butterworth", hertz, 6.0, order) == pytest.approx(expected, abs=2e-3)


def _amplitude(name: str, hertz: float, cutoff_hz: float, order: int = 4) -> float:
    """What is left of a wave in the middle of a long run."""
    wave = np.sin(2 * np.pi * hertz / FPS * np.arange(1200))[:, None, None] * np.ones((1, 1, 3))
    config = filter_named(name, cutoff_hz=cutoff_hz, butterworth_order=order)
    joints = np.repeat(wave[:, None], 17, axis=2)
    smooth = filtered(poses_of(joints), FPS, config).poses.xyz[:, 0, 0, 0]
    middle = slice(300, 900)
    return float((smooth[middle] @ wave[middle, 0, 0]) / (wave[middle, 0, 0] @ wave[middle, 0, 0]))


def test_the_kalman_smoother_is_the_penalised_least_squares_curve():
    """Slow twin: with constant velocity it is the cubic smoothing spline through the frames."""
    run = np.random.default_rng(2).normal(size=(50, 1, 3)).cumsum(axis=0)
    omega = np.pi * 0.2
    ratio = (2 * np.sin(omega / 2)) ** 4 / ((2 + np.cos(omega)) / 3) / (np.sqrt(2) - 1)
    frames = np.arange(50.0)
    spline = make_smoothing_spline(frames, run[:, 0], lam=1 / ratio)(frames)
    assert np.allclose(kalman(run, 0.2, 1)[:, 0], spline, atol=1e-5)
    second = np.diff(np.eye(50), n=2, axis=0)
    gram = np.zeros((3, 48))
    gram[0, 1:] = gram[2, :-1] = 1 / 6
    gram[1] = 2 / 3
    dense = np.linalg.solve(np.eye(50) + second.T @ solve_banded((1, 1), gram, second) / ratio, run[:, 0])
    assert np.allclose(spline, dense, atol=1e-8)


@pytest.mark.parametrize(("seed", "noise"), [(1, 0.02), (2, 0.1), (3, 0.3)])
def test_the_spline_is_scipys_at_the_smoothness_of_the_exact_cross_validation(seed, noise):
    """Slow twin: the whole influence matrix and its trace, on a grid. scipy's own search stops short at noise 0.3."""
    frames = np.arange(150.0)
    wave = np.sin(frames / 9) + frames / 60 + noise * np.random.default_rng(seed).normal(size=150)

    def score(smoothness: float) -> float:
        influence = make_smoothing_spline(frames, np.eye(150), lam=smoothness)(frames)
        left = np.eye(150) - influence
        return ((left @ wave) ** 2).sum() / np.trace(left) ** 2

    best = min(10 ** np.arange(-1.0, 5.0, 0.1), key=score)
    theirs = make_smoothing_spline(frames, wave, lam=best)(frames)
    ours = gcv_spline(np.repeat(wave[:, None, None], 3, axis=2))[:, 0, 0]
    assert np.abs(ours - theirs).max() < 0.05 * noise


def test_the_spline_brings_the_curve_nearer_to_the_truth():
    frames = np.arange(150.0)
    truth = np.stack([np.sin(frames / 9), np.cos(frames / 14), frames / 60], axis=-1)[:, None]
    noisy = truth + 0.1 * np.random.default_rng(2).normal(size=truth.shape)
    assert np.sqrt(((gcv_spline(noisy) - truth) ** 2).mean()) < 0.04


def test_every_smoother_brings_noisy_walking_nearer_to_the_truth():
    truth = walking(noise_m=0.0)
    noisy = walking(noise_m=0.01)
    for name in SMOOTHERS:
        config = filter_named(name, cutoff_hz=5.0, one_euro_beta=20.0)
        error = np.abs(filtered(poses_of(noisy), 30.0, config).poses.xyz - truth).mean()
        assert error < np.abs(noisy - truth).mean() * (1.0 if name != "one_euro" else 1.5), name


def test_hampel_names_the_spike_and_nothing_else():
    run = walking(noise_m=0.002)[:, 0]
    run[40, 3] += [0.0, 0.3, 0.0]
    outliers = hampel_outliers(run, 3, 6.0)
    assert outliers[40, 3]
    assert outliers.sum() <= 3


def test_a_removed_outlier_is_filled_and_both_is_said():
    xyz = walking()
    spoilt = xyz.copy()
    spoilt[50, 0, 9] += 0.5
    result = filtered(poses_of(spoilt), 30.0, GapFilter(hampel_threshold=6.0))
    assert result.removed[50, 0, 9] and result.filled[50, 0, 9]
    assert np.linalg.norm(result.poses.xyz[50, 0, 9] - xyz[50, 0, 9]) < 0.01
    assert result.poses.num_views[50, 0, 9] == 0 and not result.poses.views_used[50, 0, 9].any()
    kept = filtered(poses_of(spoilt), 30.0, GapFilter(hampel_threshold=6.0, gap_frames=0))
    assert np.isnan(kept.poses.xyz[50, 0, 9]).all() and kept.poses.confidence[50, 0, 9] == 0
    for after in (result.poses, kept.poses):
        assert np.isnan(after.error_px[50, 0, 9]) and after.num_views[50, 0, 9] == 0
        assert np.isnan(after.sigma_mm[50, 0, 9])
        assert not after.views_used[50, 0, 9].any()
        assert np.isfinite(np.delete(after.error_px, 50, axis=0)).all()
        assert (np.delete(after.sigma_mm, 50, axis=0) == 15.0).all()
    assert result.raw.xyz[50, 0, 9] == pytest.approx(spoilt[50, 0, 9])


@pytest.mark.parametrize(("before", "after"), [(0.9, 0.4), (0.3, 0.8)])
def test_a_filled_value_is_as_sure_as_the_less_sure_of_the_two_beside_its_gap(before, after):
    xyz = walking()
    xyz[40:45, 0, 5] = np.nan
    poses = poses_of(xyz)
    sure = np.where(np.isfinite(xyz[..., 0]), 0.6, 0.0)
    sure[39, 0, 5], sure[45, 0, 5] = before, after
    sure[38, 0, 5] = sure[46, 0, 5] = 0.1
    result = filtered(replace(poses, confidence=sure), 30.0, ButterworthFilter())
    assert result.filled[40:45, 0, 5].all() and result.filled.sum() == 5
    assert (result.poses.confidence[40:45, 0, 5] == min(before, after)).all()
    rest = ~result.filled
    assert np.array_equal(result.poses.confidence[rest], sure[rest])


@pytest.mark.parametrize("name", ["none", *SMOOTHERS])
def test_nan_stays_nan_and_runs_do_not_mix(name):
    xyz = walking()
    xyz[40:65, 0, 5] = np.nan
    config = filter_named(name, gap_frames=20)
    result = filtered(poses_of(xyz), 30.0, config)
    assert np.isnan(result.poses.xyz[40:65, 0, 5]).all() and not result.filled.any()
    jumped = xyz.copy()
    jumped[65:, 0, 5] += 10.0
    after = filtered(poses_of(jumped), 30.0, config).poses.xyz
    assert np.allclose(after[:40], result.poses.xyz[:40], equal_nan=True)
    assert np.array_equal(np.isnan(after), np.isnan(xyz))


def test_a_run_too_short_for_the_filter_is_passed_through_and_said():
    xyz = walking(noise_m=0.01)
    xyz[:60, 0, 5] = np.nan
    xyz[63:, 0, 5] = np.nan
    result = filtered(poses_of(xyz), 30.0, ButterworthFilter())
    assert np.array_equal(result.poses.xyz[60:63, 0, 5], xyz[60:63, 0, 5])
    assert not result.smoothed[60:63, 0, 5].any()
    assert result.smoothed[:, 0, 6].all()


def test_a_cut_off_above_half_the_frame_rate_is_refused():
    with pytest.raises(ConfigError, match="15 Hz"):
        filtered(poses_of(walking()), 30.0, ButterworthFilter(cutoff_hz=15.0))


@pytest.mark.parametrize(
    ("kind", "wrong"),
    [
        (MedianFilter, {"window_frames": 4}),
        (ButterworthFilter, {"butterworth_order": 3}),
        (KalmanFilter, {"cutoff_hz": 0.0}),
        (OneEuroFilter, {"one_euro_beta": -1.0}),
        (GapFilter, {"gap_frames": -1}),
    ],
)
def test_settings_out_of_range_are_refused(kind, wrong):
    with pytest.raises(ConfigError):
        kind(**wrong)


def test_float32_poses_come_back_as_float32_with_their_shapes():
    poses = poses_of(walking())
    small = replace(poses, xyz=poses.xyz.astype(np.float32), confidence=poses.confidence.astype(np.float32))
    after = filtered(small, 30.0, ButterworthFilter(constant_bones="limbs")).poses
    assert after.xyz.dtype == after.confidence.dtype == np.float32
    assert np.abs(after.xyz - filtered(poses, 30.0, ButterworthFilter(constant_bones="limbs")).poses.xyz).max() < 1e-5


def test_nobody_is_filtered_to_nobody():
    empty = poses_of(np.empty((30, 0, 17, 3)))
    assert filtered(empty, 30.0, ButterworthFilter(constant_bones="all")).poses.xyz.shape == (30, 0, 17, 3)


def test_bones_are_constant_after_filtering_where_their_ends_are_known():
    joints = ring4(num_frames=60, skeleton=HALPE26).joints
    noisy = joints + 0.01 * np.random.default_rng(3).normal(size=joints.shape)
    noisy[10, 0, HALPE26.index("left_knee")] = np.nan
    poses = replace(poses_of(noisy), skeleton=HALPE26)
    result = filtered(poses, 30.0, GapFilter(gap_frames=0, constant_bones="all")).poses.xyz[:, 0]
    for a, b in HALPE26.bone_indices:
        length = np.linalg.norm(result[:, a] - result[:, b], axis=-1)
        assert np.nanstd(length) < 1e-7
    assert np.isnan(result[10, HALPE26.index("left_knee")]).all()


def capture(num_frames: int, seed: int) -> Poses3D:
    """Two people in smooth motion with noise, spikes, single frames, short and long gaps; one comes late and goes."""
    rng = np.random.default_rng(seed)
    joints = 3
    time = np.arange(num_frames)[:, None, None, None] / 30.0
    phase, speed = rng.uniform(0, 6, (2, 1, 2, joints, 3))
    xyz = 2.0 * np.sin(0.3 * speed * time + phase) + rng.normal(0, 0.01, (num_frames, 2, joints, 3))
    xyz[rng.random(xyz.shape[:3]) < 0.002] += 0.5
    gone = rng.random(xyz.shape[:3]) < 0.01
    for _ in range(num_frames // 40):
        start, length = rng.integers(0, num_frames), int(rng.choice([2, 5, 19, 20, 21, 25, 60]))
        person, joint = rng.integers(0, 2), rng.integers(0, joints)
        gone[start : start + length, person, joint] = True
        if rng.random() < 0.3:  # an island of one frame between gaps
            gone[start + length + 1 : start + length + 1 + int(rng.integers(1, 20)), person, joint] = True
    gone[: num_frames // 3, 1] = True
    gone[5 * num_frames // 6 :, 1] = True
    xyz[gone] = np.nan
    skeleton = Skeleton("three", ("a", "b", "c"), (("a", "b"), ("b", "c")))
    return replace(poses_of(xyz), skeleton=skeleton)


@pytest.mark.parametrize("hampel", [0.0, 5.0])
@pytest.mark.parametrize("name", ["none", *SMOOTHERS])
@pytest.mark.parametrize(
    "slow", [{}, {"gap_frames": 2, "cutoff_hz": 1.0, "one_euro_cutoff_hz": 0.5, "one_euro_beta": 0.1}]
)
def test_block_by_block_is_as_all_at_once(monkeypatch, name, hampel, slow):
    """The second settings forget slowly, and leave no room for it in the frames that are looked at for gaps."""
    monkeypatch.setattr(filters, "BLOCK_FRAMES", 150)
    poses, config = capture(1500, seed=0), filter_named(name, hampel_threshold=hampel, **slow)
    parts = blocks(1500, 30.0, config)
    assert len(parts) >= 2 or name == "spline"
    assert [(b.start, b.stop) for b in parts] == [*pairwise([0, *(b.stop for b in parts)])] and parts[-1].stop == 1500
    whole = filtered(poses, 30.0, config)
    assert whole.filled.any() and (whole.smoothed.any() or name == "none") and whole.removed.any() == (hampel > 0)
    for b in parts:
        block = filtered_block(poses_at(poses, slice(b.first, b.last)), b, 30.0, config, {})
        own = slice(b.start, b.stop)
        np.testing.assert_allclose(block.poses.xyz, whole.poses.xyz[own], rtol=0, atol=1e-9)
        for flag in ("filled", "smoothed", "removed"):
            np.testing.assert_array_equal(getattr(block, flag), getattr(whole, flag)[own])
        np.testing.assert_array_equal(block.poses.confidence, whole.poses.confidence[own])
        np.testing.assert_array_equal(block.poses.num_views, whole.poses.num_views[own])
        np.testing.assert_array_equal(block.raw.xyz, poses.xyz[own])


def test_bones_of_constant_length_are_those_of_the_whole_capture_in_every_block(monkeypatch):
    monkeypatch.setattr(filters, "BLOCK_FRAMES", 150)
    poses, config = capture(900, 3), ButterworthFilter(constant_bones="all")
    parts = blocks(900, 30.0, config)
    lengths = bone_lengths((poses_at(poses, slice(b.start, b.stop)) for b in parts), config)
    whole = filtered(poses, 30.0, config).poses.xyz
    for b in parts:
        block = filtered_block(poses_at(poses, slice(b.first, b.last)), b, 30.0, config, lengths)
        np.testing.assert_allclose(block.poses.xyz, whole[b.start : b.stop], rtol=0, atol=1e-8)


def test_a_block_s_look_about_it_does_not_grow_with_the_capture():
    short, long = (blocks(frames, 30.0, ButterworthFilter()) for frames in (1800, 108_000))
    assert len(short) == 1 and len(long) == 60
    assert max(b.last - b.first for b in long) < 1.2 * filters.BLOCK_FRAMES

"""The drawn errors are the measured ones, and the fit finds again what was drawn."""

from dataclasses import fields, replace

import numpy as np
import pytest

from mvpose.datasets.detector_noise import (
    BACK,
    FAR,
    FRONT,
    LEVELS,
    NEAR,
    DetectorNoise,
    aspects,
    draw_detections,
    measured_noise,
    t_radius,
    view_angle,
)
from mvpose.datasets.noise_measurement import DetectedJoints, fitted, fitted_t
from mvpose.skeleton import COCO17, Skeleton

NOISE = measured_noise()
SIDES = Skeleton(
    "sides", ("left_hip", "right_hip", "left_shoulder", "right_shoulder", "left_wrist", "right_wrist", "tail"), ()
)
SIDE_PX = 200.0


def people(count: int, angle: float, skeleton: Skeleton = SIDES) -> tuple[np.ndarray, np.ndarray]:
    """Joints in the camera's axes and their pixels: a person 4 m away, with the camera at `angle` about it."""
    left = np.array([np.cos(angle), 0.0, -np.sin(angle)])
    xyz = np.tile([0.0, 0.0, 4.0], (count, len(skeleton.joints), 1))
    for joint, (out, down) in {"hip": (0.15, 0.0), "shoulder": (0.2, -0.5), "wrist": (0.4, 0.2)}.items():
        for sign, side in ((1, "left"), (-1, "right")):
            xyz[:, skeleton.index(f"{side}_{joint}")] += sign * out * left + [0.0, down, 0.0]
    pixels = xyz[..., :2] / xyz[..., 2:] * SIDE_PX * 4.0 / 0.7
    return xyz, pixels


def drawn(noise: DetectorNoise, angle: float, count: int = 6000, seed: int = 0, minimum: float = 0.0):
    xyz, pixels = people(count, angle)
    inside = np.ones(pixels.shape[:2], bool)
    return pixels, draw_detections(noise, pixels, xyz, inside, SIDES, np.random.default_rng(seed), minimum)


def only(**changed) -> DetectorNoise:
    """The measured noise, with nobody hidden, swapped, turned or lost but where it is told."""
    calm = {name: np.zeros_like(getattr(NOISE, name)) for name in ("hidden", "swapped", "turned", "lost")}
    return replace(NOISE, **calm | changed)


@pytest.mark.parametrize(
    ("angle", "left", "right"),
    [(0.1, FRONT, FRONT), (3.0, BACK, BACK), (-3.0, BACK, BACK), (1.5, NEAR, FAR), (-1.5, FAR, NEAR)],
)
def test_the_camera_s_place_about_the_torso_says_which_side_is_near(angle, left, right):
    xyz, _ = people(1, angle)
    assert view_angle(xyz, SIDES)[0] == pytest.approx(angle)
    aspect, sign = aspects(np.array([angle]), SIDES)
    assert aspect[0, :2].tolist() == [left, right] and sign[0, :2].tolist() == [1, -1]


def test_a_middle_joint_seen_from_either_side_is_the_same_in_a_mirror():
    aspect, sign = aspects(np.array([1.5, -1.5]), SIDES)
    assert aspect[:, -1].tolist() == [NEAR, NEAR] and sign[:, -1].tolist() == [1, -1]


@pytest.mark.parametrize(("angle", "aspect"), [(0.0, FRONT), (np.pi, BACK), (np.pi / 2, NEAR), (-np.pi / 2, FAR)])
def test_offsets_and_confidence_of_a_seen_joint_are_the_measured_ones(angle, aspect):
    pixels, found = drawn(only(), angle)
    wrist, part = SIDES.index("left_wrist"), NOISE.parts.index("left_wrist")
    side = (pixels[0].max(axis=0) - pixels[0].min(axis=0)).max()
    offset = (found.xy - pixels)[:, wrist] / side
    assert np.median(offset, axis=0) == pytest.approx(NOISE.bias[part, aspect, 0], abs=6e-4)
    error = np.linalg.norm(offset - NOISE.bias[part, aspect, 0], axis=-1)
    shape = [np.full(3, values[part, aspect, 0]) for values in (NOISE.scale, NOISE.tail)]
    expected = t_radius(np.array([0.5, 0.9, 0.98]), *shape)
    assert np.quantile(error, (0.5, 0.9, 0.98)) == pytest.approx(expected, rel=0.12)
    reported = np.quantile(found.confidence[:, wrist], LEVELS[1:-1])
    assert reported == pytest.approx(NOISE.confidence[part, aspect, 0, 1:-1], abs=0.02)
    ranks = [values.argsort().argsort() for values in (error, found.confidence[:, wrist])]
    # Spearman's correlation of a Gaussian copula: 6 / pi asin(link / 2).
    assert np.corrcoef(*ranks)[0, 1] == pytest.approx(6 / np.pi * np.arcsin(NOISE.link[0] / 2), abs=0.04)


def test_the_right_side_errs_as_the_left_one_does_in_a_mirror():
    bias = np.zeros_like(NOISE.bias)
    bias[..., 0] = 0.05
    pixels, found = drawn(only(bias=bias), 0.0)
    across = np.median((found.xy - pixels)[..., 0], axis=0)
    assert (across[[0, 2, 4]] > 5).all() and across[[1, 3, 5]] == pytest.approx(-across[[0, 2, 4]], rel=0.1)


def test_hidden_joints_err_more_and_are_as_frequent_as_measured():
    assert (NOISE.scale[..., 1] * NOISE.tail[..., 1] ** -0.5).mean() > (NOISE.scale[..., 0]).mean()
    part = NOISE.parts.index("left_wrist")
    confidence = np.zeros_like(NOISE.confidence)
    confidence[:, :, 0] = 0.9
    _, found = drawn(only(hidden=NOISE.hidden, confidence=confidence), 0.0)
    assert (found.confidence[:, 4] < 0.5).mean() == pytest.approx(NOISE.hidden[part, FRONT], abs=0.02)


def test_a_swapped_pair_changes_places_and_a_turned_person_changes_all():
    swapped = np.zeros_like(NOISE.swapped)
    swapped[NOISE.parts.index("left_wrist")] = 0.3
    pixels, found = drawn(only(swapped=swapped), 0.0)
    nearer_to_other = np.linalg.norm(found.xy - pixels[:, SIDES.mirror], axis=-1) < np.linalg.norm(
        found.xy - pixels, axis=-1
    )
    assert nearer_to_other[:, 4].mean() == pytest.approx(0.3, abs=0.03)
    assert (nearer_to_other[:, 4] == nearer_to_other[:, 5]).mean() > 0.95
    assert nearer_to_other[:, :4].mean() < 0.02
    pixels, found = drawn(only(turned=np.ones(3)), 0.0)
    assert (np.linalg.norm(found.xy - pixels[:, SIDES.mirror], axis=-1) < 40)[:, :6].mean() > 0.95


def test_what_is_missed_is_nan_with_confidence_0_and_never_a_point_at_the_corner():
    pixels, found = drawn(NOISE, 0.0, minimum=0.3)
    missed = found.confidence == 0
    assert 0.01 < missed[:, :6].mean() < 0.3
    assert missed[:, 6].all()  # the detector knows no tail
    assert np.isnan(found.xy[missed]).all() and np.isfinite(found.xy[~missed]).all()
    assert (found.confidence[~missed] >= 0.3).all()
    _, lost = drawn(only(lost=np.ones((3, 3))), 0.0, 10)
    assert np.isnan(lost.xy).all() and not lost.confidence.any()
    xyz, pixels = people(10, 0.0)
    outside = np.arange(7)[None].repeat(10, 0) != 2
    cut = draw_detections(only(), pixels, xyz, outside, SIDES, np.random.default_rng(0), 0.0)
    assert np.isnan(cut.xy[:, 2]).all() and np.isfinite(cut.xy[:, 3]).all()


def test_the_same_generator_draws_the_same_errors():
    _, one = drawn(NOISE, 0.3, 20, seed=5)
    _, same = drawn(NOISE, 0.3, 20, seed=5)
    _, other = drawn(NOISE, 0.3, 20, seed=6)
    assert np.array_equal(one.xy, same.xy, equal_nan=True) and np.array_equal(one.confidence, same.confidence)
    assert not np.array_equal(one.xy, other.xy, equal_nan=True)


@pytest.mark.parametrize(("scale", "tail"), [(0.01, 1.5), (0.03, 3.0), (0.02, 8.0)])
def test_the_fit_of_a_t_finds_its_scale_and_tail(scale, tail):
    share = (np.arange(4000) + 0.5) / 4000
    found = fitted_t(t_radius(share, np.full(4000, scale), np.full(4000, tail)))
    assert found == pytest.approx((scale, tail), rel=0.05)


def test_the_fit_finds_the_noise_that_was_drawn():
    known = {name: np.zeros_like(getattr(NOISE, name)) for name in ("swapped", "turned", "lost")}
    known["turned"][:] = 0.1
    pixels, found = drawn(replace(NOISE, **known, hidden=np.zeros_like(NOISE.hidden)), 0.0)
    turned = np.linalg.norm(found.xy[:, 4] - pixels[:, 5], axis=-1) < 60
    straight = np.where(turned[:, None, None], found.xy[:, SIDES.mirror], found.xy)
    left = np.array([joint.startswith("left") for joint in SIDES.joints])
    count = len(pixels)
    seen = np.ones((count, 7), bool)
    refitted = fitted(
        DetectedJoints(
            skeleton=SIDES,
            truth=pixels,
            found=straight,
            confidence=found.confidence,
            visible=seen,
            inside=seen & (np.arange(7) < 6),
            side=np.full(count, np.ptp(pixels[0], axis=0).max()),
            angle=np.zeros(count),
            swapped=turned[:, None] & left,
            apart=np.broadcast_to(left, (count, 7)).copy(),
        ),
        "drawn",
    )
    assert refitted.turned[0] == pytest.approx(0.1, abs=0.02) and refitted.swapped[:3].max() == 0
    for joint in ("left_wrist", "left_shoulder"):
        mine, theirs = refitted.parts.index(joint), NOISE.parts.index(joint)
        assert refitted.scale[mine, 0, 0] == pytest.approx(NOISE.scale[theirs, 0, 0], rel=0.15)
        assert refitted.bias[mine, 0, 0] == pytest.approx(NOISE.bias[theirs, 0, 0], abs=2e-3)


def test_the_noise_of_the_package_says_what_it_was_fitted_to_and_survives_its_file():
    assert "rtmpose_s_halpe26" in NOISE.source and "1500 views" in NOISE.source
    back = DetectorNoise.from_json(NOISE.to_json())
    assert all(np.array_equal(getattr(back, f.name), getattr(NOISE, f.name)) for f in fields(NOISE))
    assert {part for part in NOISE.parts if part.startswith("left_")} <= set(COCO17.joints)
    assert (np.diff(NOISE.confidence, axis=-1) >= 0).all() and (NOISE.link < 0).all()

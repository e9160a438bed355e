"""The measurement, on detectors that are told what to say."""

from dataclasses import replace

import numpy as np
import pytest

from mvpose.datasets.detector_noise import aspects, of_person
from mvpose.datasets.noise_measurement import fitted, sightings
from mvpose.errors import ConfigError
from mvpose.skeleton import BODY_JOINTS, COCO17
from tests.benchmarks.test_detector_recall import Told, reported, sample


def test_a_known_shift_is_measured_in_sides_of_the_box_and_a_stranger_is_nobody():
    of = sample()
    side = (of.box[:, 2:] - of.box[:, :2]).max(axis=1)
    seen = sightings([of], reported(of, 0.0, 0.05 * side[1], 0.6 * side[2]))
    off = (seen.found - seen.truth)[..., 0] / seen.side[:, None]
    assert off[:2] == pytest.approx(np.repeat([[0.0], [0.05]], off.shape[1], axis=1), abs=1e-4)
    assert np.isnan(seen.found[2]).all() and not seen.confidence[2].any()
    assert seen.confidence[:2] == pytest.approx(0.85)


def test_swapped_arms_and_a_turned_person_are_distinguished_and_put_right():
    of = sample()
    detector = reported(of, 0.0, 0.0, 0.0)
    mirror = list(COCO17.mirror)
    arm = COCO17.indices("left_wrist", "right_wrist")
    detector.people[0].xy[1, arm] = detector.people[0].xy[1, arm[::-1]]
    detector.people[1].xy[1] = detector.people[1].xy[1, mirror]
    seen = sightings([of], detector)
    assert seen.found == pytest.approx(seen.truth, abs=1e-3)
    wrist = seen.skeleton.index("left_wrist")
    assert seen.swapped[0, wrist] == seen.apart[0, wrist] and seen.swapped[0].sum() <= 1
    assert np.array_equal(seen.swapped[1], seen.apart[1]) and seen.apart[1].sum() >= 3
    assert not seen.swapped[2].any()
    person = of_person(aspects(seen.angle, seen.skeleton)[0][:, seen.skeleton.index("left_hip")])
    assert fitted(seen, "told").turned[person[1]] == pytest.approx(1 / (person == person[1]).sum())


def test_samples_without_crops_none_at_all_and_a_detector_that_finds_nobody_are_errors():
    of = sample()
    bare = replace(of, images=tuple(replace(p, crop=None) for p in of.images))
    with pytest.raises(ConfigError, match=r"no crops: convert with --crops\.side 256"):
        sightings([bare], Told([]))
    with pytest.raises(ConfigError, match="there are no samples"):
        sightings([], Told([]))
    away = reported(of, 900.0, 900.0, 900.0)
    with pytest.raises(ConfigError, match="finds no person in 3 views"):
        fitted(sightings([of], away), "told")
    assert set(BODY_JOINTS) <= set(sightings([of], reported(of, 0.0, 0.0, 0.0)).skeleton.joints)

"""Which cameras stand in for a smaller rig."""

import itertools
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
import torch

from mvpose.datasets.sample import Labels, Sample, SampleImage, SampleScene, scene_samples
from mvpose.evaluation.network import chosen_cameras, view_counts
from mvpose.scenes import ring4
from mvpose.skeleton import HALPE26


@pytest.fixture(scope="module")
def samples() -> list[Sample]:
    scene = ring4(num_frames=400)
    rig = scene.rig.to(torch.float64)
    whole = SampleScene(capture_id="a", subject="s", action="walk", split="test", rig=rig, skeleton=HALPE26)
    labels = Labels(frame=np.arange(400), position=np.arange(400), xyz=scene.joints[:, 0])
    return list(scene_samples(whole, labels, lambda f: dict.fromkeys(rig.names, SampleImage())))


def test_the_choice_is_the_same_in_every_run_and_whatever_other_cameras_there_are(samples):
    sample = samples[0]
    assert chosen_cameras(sample, 2) == chosen_cameras(sample, 2)
    three = chosen_cameras(sample, 3)
    assert chosen_cameras(sample.select(three), 2) == chosen_cameras(sample, 2)
    reordered = sample.select(sample.rig.names[::-1])
    assert set(chosen_cameras(reordered, 2)) == set(chosen_cameras(sample, 2))


def test_smaller_sets_lie_in_larger_ones_in_the_order_of_the_rig(samples):
    for sample in samples[:50]:
        sets = [chosen_cameras(sample, k) for k in (4, 3, 2, 1)]
        assert [len(s) for s in sets] == [4, 3, 2, 1] and sets[0] == sample.rig.names
        assert all(set(b) < set(a) for a, b in itertools.pairwise(sets))
        assert all(list(s) == sorted(s, key=sample.rig.names.index) for s in sets)


def test_over_many_samples_every_pair_comes_as_often(samples):
    pairs = Counter(chosen_cameras(sample, 2) for sample in samples)
    assert len(pairs) == 6 and min(pairs.values()) > 40


def test_people_and_seeds_differ(samples):
    others = [replace(s, person=1) for s in samples[:40]]
    assert any(chosen_cameras(a, 2) != chosen_cameras(b, 2) for a, b in zip(samples[:40], others, strict=True))
    assert any(chosen_cameras(s, 2) != chosen_cameras(s, 2, seed=1) for s in samples[:40])


@pytest.mark.parametrize(
    ("cameras", "wanted", "counts"),
    [
        (8, (), [8, 4, 3, 2]),
        (3, (), [3, 2]),
        (4, (), [4, 3, 2]),
        (31, (2, 28, 4), [28, 4, 2]),
        (3, (4, 2), [2]),
        (1, (), [1]),
    ],
)
def test_counts_of_views_that_a_rig_is_scored_with(cameras, wanted, counts):
    assert view_counts(cameras, wanted) == counts

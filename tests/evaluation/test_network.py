"""A network asked by several numbers of views."""

import numpy as np
import pytest
import torch

from mvpose.evaluation.network import NetworkConfig, chosen_cameras, needed_views, network_answers
from mvpose.models.saved import load_model
from mvpose.training.batches import CropView, sample_arrays, stacked
from tests.evaluation.small import SIDE, small_method, some_samples, write_model


@pytest.fixture(scope="module")
def samples():
    return some_samples(frames=3, captures=("a",))


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return load_model(write_model(str(tmp_path_factory.mktemp("model")), "baseline"))


def test_each_number_of_views_is_answered_as_by_those_cameras_alone(model, samples):
    answers = network_answers(model, samples, (), NetworkConfig(batch_size=2))
    assert [len(a.cameras[0]) for a in answers] == [4, 3, 2]
    assert [a.max_views.tolist() for a in answers] == [[True] * 3, [False] * 3, [False] * 3]
    for found in answers:
        for i, sample in enumerate(samples):
            names = chosen_cameras(sample, len(found.cameras[i]))
            assert found.cameras[i] == names
            view = CropView(skeleton=sample.skeleton, size=(SIDE, SIDE), views=len(names))
            batch = stacked([sample_arrays(sample.select(names), view, np.random.default_rng(0))])
            with torch.no_grad():
                alone = model.network(*(torch.from_numpy(batch[n]) for n in ("crops", "projections", "present")))
            expected = torch.where(alone.valid[..., None], alone.joints, torch.nan)[0].numpy()
            np.testing.assert_allclose(found.joints[i], expected, atol=1e-3)
            assert found.samples[i].images == () and found.samples[i].frame == sample.frame


def test_a_network_that_concatenates_is_asked_for_its_own_number_of_views_alone(samples, tmp_path):
    assert needed_views(small_method("fusion", views=3)) == 3
    assert needed_views(small_method("canonical_fusion", fusion="pooling")) is None
    assert needed_views(small_method("algebraic")) is None
    model = load_model(write_model(str(tmp_path), "fusion", views=3))
    answers = network_answers(model, samples, (4, 3, 2), NetworkConfig())
    assert [len(a.cameras[0]) for a in answers] == [3] and answers[0].max_views.all()
    assert network_answers(model, samples, (4, 2), NetworkConfig()) == []


def test_samples_by_fewer_cameras_are_not_asked_for_more(model, samples):
    mixed = [samples[0], samples[1].select(samples[1].rig.names[:2]), samples[2].select(samples[2].rig.names[1:])]
    answers = {len(a.cameras[0]): a for a in network_answers(model, mixed, (), NetworkConfig())}
    assert {n: [s.frame for s in a.samples] for n, a in answers.items()} == {4: [0], 3: [0, 2], 2: [0, 1, 2]}
    assert {n: a.max_views.tolist() for n, a in answers.items()} == {
        4: [True],
        3: [False, True],
        2: [False, True, False],
    }

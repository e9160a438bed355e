"""A network asked by several numbers of views."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from mvpose.errors import ConfigError
from mvpose.evaluation.network import NetworkConfig, _hidden, chosen_cameras, network_answers
from mvpose.models.input_rule import MARGIN
from mvpose.models.network_settings import CrossViewConfig, CrossViewMethod
from mvpose.models.saved import load_model
from mvpose.training.batches import CropView, sample_arrays, stacked
from tests.evaluation.small import some_samples, write_model


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
            view = CropView(skeleton=sample.skeleton, crop=model.rule.crop, views=len(names))
            batch = stacked([sample_arrays(sample.select(names), view, np.random.default_rng(0))])
            with torch.no_grad():
                alone = model.network(*(torch.from_numpy(batch[n]) for n in ("crops", "projections", "present")))
            expected = torch.where(alone.valid[..., None], alone.joints, torch.nan)[0].numpy()
            np.testing.assert_allclose(found.joints[i], expected, atol=1e-3)
            assert found.samples[i].images == () and found.samples[i].frame == sample.frame


def test_joints_that_are_in_the_image_and_not_visible_have_a_rate_of_their_own(model, samples, monkeypatch):
    """Fails if visible joints count, joints outside the image, or joints of another camera of a subset."""
    hidden = samples[0].skeleton.indices("left_wrist", "right_knee")
    visible = samples[0].visible.copy()
    assert visible.all()
    camera = samples[0].rig.names.index(chosen_cameras(samples[0], 2)[1])
    visible[camera, hidden] = False
    far = samples[0].xyz.copy()
    far[hidden[1]] = 100.0
    cases = [replace(samples[0], visible=visible), samples[1], replace(samples[0], visible=visible, xyz=far)]
    seen = []

    def counted(points, truth, mask, size):
        seen.append(mask)
        return np.full(len(mask), np.nan)

    monkeypatch.setattr("mvpose.evaluation.network.detection_rate", counted)
    (answers,) = network_answers(model, cases, (2,), NetworkConfig())
    everything, occluded = seen
    assert occluded.sum(axis=(1, 2)).tolist() == [2, 0, 1] and (everything | ~occluded).all()
    assert occluded[0, 1, hidden].all() and occluded[2, 1].nonzero()[0].tolist() == hidden[:1]
    assert np.isnan(answers.jdr_occluded).all()
    beyond = _hidden(cases[2], samples[0].skeleton)
    assert beyond[camera].nonzero()[0].tolist() == hidden[:1] and beyond.sum() == 1


def test_a_network_that_concatenates_is_asked_for_its_own_number_of_views_alone(samples, tmp_path):
    model = load_model(write_model(str(tmp_path), "fusion", views=3))
    answers = network_answers(model, samples, (4, 3, 2), NetworkConfig())
    assert [len(a.cameras[0]) for a in answers] == [3] and answers[0].max_views.all()
    assert [len(a.cameras[0]) for a in network_answers(model, samples, (), NetworkConfig())] == [3]
    with pytest.raises(ConfigError, match="takes exactly 3 views, but 4 are given"):
        network_answers(model, samples, (4, 2), NetworkConfig())
    two = [sample.select(sample.rig.names[:2]) for sample in samples]
    with pytest.raises(ConfigError, match="takes exactly 3 views, but 2 are given"):
        network_answers(model, two, (), NetworkConfig())


def test_a_dense_layer_is_not_given_cameras_drawn_from_a_larger_rig(model, samples):
    """Fails if any cameras are taken for those of the training."""
    dense = replace(model, config=CrossViewMethod(cross_view=CrossViewConfig(views=3)))
    with pytest.raises(ConfigError, match="belongs to 3 cameras, but a has 4"):
        network_answers(dense, samples, (), NetworkConfig())
    for views, fusion in ((4, "dense"), (3, "rays")):
        own = replace(model, config=CrossViewMethod(cross_view=CrossViewConfig(views=views, fusion=fusion)))
        assert network_answers(own, samples[:1], (4,), NetworkConfig())


def test_the_margin_that_a_network_was_trained_with_is_that_of_its_crops(samples, tmp_path):
    seen = []
    model = load_model(write_model(str(tmp_path), "baseline", margin=2.2))
    model.network.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0].numpy()))
    network_answers(model, samples[:1], (4,), NetworkConfig())
    wide, usual = (
        sample_arrays(
            samples[0],
            CropView(skeleton=samples[0].skeleton, crop=replace(model.rule.crop, margin=margin)),
            np.random.default_rng(0),
        )["crops"]
        for margin in (2.2, MARGIN)
    )
    np.testing.assert_array_equal(seen[0][0], wide)
    assert (wide != usual).any()


def test_samples_by_fewer_cameras_are_not_asked_for_more(model, samples):
    mixed = [samples[0], samples[1].select(samples[1].rig.names[:2]), samples[2].select(samples[2].rig.names[1:])]
    answers = {len(a.cameras[0]): a for a in network_answers(model, mixed, (), NetworkConfig())}
    assert {n: [s.frame for s in a.samples] for n, a in answers.items()} == {4: [0], 3: [0, 2], 2: [0, 1, 2]}
    assert {n: a.max_views.tolist() for n, a in answers.items()} == {
        4: [True],
        3: [False, True],
        2: [False, True, False],
    }

"""Networks that take one image in the training loop, from settings to a model that is evaluated."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from mvpose.datasets.sample_table import read_samples
from mvpose.errors import ConfigError
from mvpose.evaluation.network import network_answers
from mvpose.models.backbone_settings import ResNetBackbone
from mvpose.models.method import build_method
from mvpose.models.network_settings import AlgebraicMethod, MonocularConfig, MonocularMethod, NetworkConfig
from mvpose.models.objective import consistency_term
from mvpose.models.objective_settings import ObjectiveConfig, WarmUp
from mvpose.models.saved import load_model
from mvpose.models.single_view.epipolar_pose import from_volume, to_volume
from mvpose.skeleton import HUMAN36M17
from mvpose.training.feed import Feed
from mvpose.training.initial_weights import build_initial
from mvpose.training.loop import NetworkWithLoss, Process, validate
from mvpose.training.optimisation import OptimisationConfig
from mvpose.training.training_config import ComputeConfig, SamplesConfig, TrainConfig
from mvpose.training.training_run import train

METHOD = MonocularMethod(
    size=(64, 64),
    backbone=ResNetBackbone(depth=18, width=4),
    monocular=MonocularConfig(head="two_and_half_d", width=8),
)
UNIT = replace(METHOD, monocular=MonocularConfig(head="integral", depth=4, width=8, refinement=16))
REFINED = replace(METHOD, monocular=replace(METHOD.monocular, refinement=16, dropout=0.0))
NOW = WarmUp(start=0.0, full=0.0)
TINY = TrainConfig(
    method=METHOD,
    objective=ObjectiveConfig(points=0.0, joints=0.0, volume_points=1.0, span=0.1, warm_up=NOW),
    samples=SamplesConfig(views=4, min_views=1),
    optimisation=OptimisationConfig(batch=4, steps=6, rate=1e-3, average=0.9),
    validate_every=3,
    compute=ComputeConfig(local=True, loaders=0),
)


@pytest.fixture(scope="module")
def trained(table, tmp_path_factory) -> str:
    """Folder of a trained network."""
    output = str(tmp_path_factory.mktemp("monocular") / "run")
    figures = train(replace(TINY, data=table), output)
    assert math.isfinite(figures["validation/mpjpe_m"])
    return f"{output}/model"


def _batch(config: TrainConfig):
    return next(Feed.open(config).batches(0))


def test_every_view_of_a_sample_is_answered_alone(table):
    batch = _batch(replace(TINY, data=table))
    batch.present[1, 2] = False
    alone = batch.each_view()
    assert alone.crops.shape == (16, 1, *batch.crops.shape[2:]) and len(alone.truth.joints) == 16
    assert alone.present[:, 0].tolist() == batch.present.flatten().tolist()
    network = build_method(METHOD).eval()
    with torch.no_grad():
        all_views = network(alone.crops, alone.projections, alone.present)
        one = network(batch.crops[:, 3:], batch.projections[:, 3:], batch.present[:, 3:])
    assert torch.allclose(all_views.joints[3::4], one.joints, atol=1e-4)
    assert torch.equal(alone.truth.joints_2d[3::4, 0], batch.truth.joints_2d[:, 3])
    assert torch.equal(alone.truth.inside[3::4, 0], batch.truth.inside[:, 3])
    assert torch.equal(alone.truth.joints[3::4], batch.truth.joints)


def test_validation_compares_poses_relative_to_their_roots(table):
    config = replace(TINY, data=table)
    network = build_method(METHOD)
    network.log_span.bias.data += 1.0
    figures = validate(network, Feed.open(config).validation_batches(), config, Process())
    errors = []
    with torch.no_grad():
        for batch in (b.each_view() for b in Feed.open(config).validation_batches()):
            found = network.eval()(batch.crops, batch.projections, batch.present).joints
            apart = found - found[:, :1] - batch.truth.joints + batch.truth.joints[:, :1]
            errors.append(apart.norm(dim=-1)[batch.truth.known & batch.present])
    assert figures["validation/mpjpe_m"] == pytest.approx(float(torch.cat(errors).mean()), rel=1e-4)


def test_a_trained_network_is_evaluated_with_one_view_of_each_sample(trained, table):
    model = load_model(trained)
    assert model.rule.accepted_views == "one view"
    samples = list(read_samples(table))[:6]
    (answers,) = network_answers(model, samples, (), NetworkConfig(batch_size=4))
    assert [len(c) for c in answers.cameras] == [1] * 6 and len(set(answers.cameras)) > 1
    assert np.isfinite(answers.joints).all()


def test_a_refinement_unit_starts_from_a_trained_network_and_leaves_it_as_it_was(trained, table, tmp_path):
    goal = ObjectiveConfig(points=0.0, joints=1.0, coarse=1.0, warm_up=NOW)
    config = replace(TINY, data=table, method=REFINED, initial=trained, objective=goal)
    train(config, str(tmp_path / "refined"))
    before, after = load_model(trained), load_model(str(tmp_path / "refined" / "model"))
    state = after.network.state_dict()
    assert all(torch.equal(value, state[name]) for name, value in before.network.state_dict().items())
    assert any(name.startswith("unit.") for name in state)
    again = build_initial(replace(config, initial=str(tmp_path / "refined" / "model")))
    assert torch.equal(again.state_dict()["unit.again.weight"], state["unit.again.weight"])
    wider = replace(METHOD, monocular=replace(REFINED.monocular, width=16))
    with pytest.raises(ConfigError, match="another method"):
        build_initial(replace(config, method=wider))


def test_consistency_between_views_enters_the_loss_as_the_warm_up_says(table):
    goal = ObjectiveConfig(points=1.0, joints=0.0, consistency=10.0, warm_up=WarmUp(start=0.2, full=0.4))
    method = replace(METHOD, monocular=MonocularConfig(head="integral", depth=4, width=8))
    config = replace(TINY, data=table, method=method, objective=goal)
    config.check()
    judged, batch = NetworkWithLoss(build_method(method), config), _batch(config)
    # The first answers of a network put all joints into one point, which has no size to compare.
    torch.nn.init.normal_(judged.network.decoder.maps.final_layer.weight, std=3.0)
    assert set(judged(batch, 0.1)) == {"points", "flatness"}
    before, between, after = (judged(batch, progress) for progress in (0.1, 0.3, 0.4))
    assert torch.isclose(between["flatness"] / before["flatness"], torch.tensor(0.5), atol=0.02)
    assert before["flatness"] > 0 and after["flatness"] == 0
    half, whole = between["consistency"], after["consistency"]
    assert whole > 0 and torch.isclose(half / whole, torch.tensor(0.5), atol=0.02)


def test_consistency_does_not_touch_the_estimated_span(table):
    """Fails if a gradient reaches the span, be it of rounding errors alone: Adam makes full steps of it."""
    goal = ObjectiveConfig(points=1.0, joints=0.0, consistency=10.0, warm_up=NOW)
    config = replace(TINY, data=table, method=replace(UNIT, monocular=replace(UNIT.monocular, refinement=0)))
    judged, batch = NetworkWithLoss(build_method(config.method), replace(config, objective=goal)), _batch(config)
    torch.nn.init.normal_(judged.network.decoder.maps.final_layer.weight, std=3.0)
    sum(judged(batch, 1.0).values()).backward()
    grads = {name: parameter.grad for name, parameter in judged.network.named_parameters()}
    assert grads["log_span.weight"] is None and grads["log_span.bias"] is None
    assert grads["decoder.maps.final_layer.weight"].abs().max() > 0


@pytest.mark.parametrize("span", [0.0, 0.1])
def test_validation_forgives_a_size_that_nothing_teaches_and_no_other(table, span):
    """Fails if the best weights of a training without 3D truth are chosen by a size that is left to chance."""
    config = replace(TINY, data=table, objective=replace(TINY.objective, span=span))
    network = build_method(METHOD)
    before = validate(network, Feed.open(config).validation_batches(), config, Process())
    network.log_span.bias.data += 1.0
    after = validate(network, Feed.open(config).validation_batches(), config, Process())
    assert (after["validation/mpjpe_m"] == pytest.approx(before["validation/mpjpe_m"], rel=1e-3)) == (span == 0.0)


def test_a_refinement_unit_lowers_the_error_of_what_it_refines(trained, table):
    """Fails if the unit's answer is not the network's answer, if its root is lost, or if it does not learn."""
    goal = ObjectiveConfig(points=0.0, joints=1.0, coarse=1.0, warm_up=NOW)
    config = replace(TINY, data=table, method=REFINED, initial=trained, objective=goal)
    judged, batch = NetworkWithLoss(build_initial(config).train(), config), _batch(config)
    alone = batch.each_view()
    truth = alone.truth.joints - alone.truth.joints[:, :1]

    def error(network) -> float:
        with torch.no_grad():
            found = network.eval()(alone.crops, alone.projections, alone.present).joints
        network.train()
        return float((found - found[:, :1] - truth).norm(dim=-1).mean())

    optimiser = torch.optim.Adam([p for p in judged.parameters() if p.requires_grad], lr=1e-2)
    for _ in range(40):
        optimiser.zero_grad()
        sum(judged(batch, 1.0).values()).backward()
        optimiser.step()
    assert error(judged.network) < 0.7 * error(load_model(trained).network)
    with torch.no_grad():
        answer = judged.network.eval()(alone.crops, alone.projections, alone.present, keep_maps=True)
    assert not torch.equal(answer.joints, answer.coarse.joints), "the answer is that of the second stage"


def test_consistency_lowers_the_error_of_depths_without_3d_truth(table):
    """Depths that are wrong, of joints that were found anywhere in the image. Fails if the views do not correct each
    other, if a view corrects itself, or if joints are taken from where they were found and not from their labels."""
    config = replace(TINY, data=table)
    alone = _batch(config).each_view()
    with torch.no_grad():
        answer = build_method(METHOD).eval()(alone.crops, alone.projections, alone.present, keep_maps=True)
    kept, root = answer.camera_pose, (0,)
    true = kept.camera_from_world.apply(alone.truth.joints)
    volume = to_volume(true, kept.intrinsics, METHOD.size, root)
    noise = 0.15 * torch.randn(volume.shape[:2], generator=torch.Generator().manual_seed(0))
    noise[:, 0] = 0.0
    off = noise.clone().requires_grad_()
    anywhere = torch.where(alone.truth.inside[:, 0, :, None], volume[..., :2].roll(1, dims=1), volume[..., :2])
    blind = replace(alone.truth, joints=torch.full_like(alone.truth.joints, torch.nan))

    def points() -> torch.Tensor:
        return torch.cat([anywhere, volume[..., 2:] + off[..., None]], dim=-1)

    def error() -> float:
        labelled = torch.cat([volume[..., :2], points()[..., 2:]], dim=-1)
        pose = from_volume(labelled, kept.intrinsics, METHOD.size, true[:, 0, 2])
        return float((pose - true).norm(dim=-1).mean().detach())

    start, optimiser = error(), torch.optim.Adam([off], lr=1e-2)
    for _ in range(150):
        optimiser.zero_grad()
        found = replace(answer, valid=alone.truth.known, camera_pose=replace(kept, volume_points=points()))
        consistency_term(found, blind, 4, METHOD.size, HUMAN36M17.bone_indices, 0).backward()
        optimiser.step()
    assert start > 0.1 and error() < 0.4 * start


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"method": AlgebraicMethod()}, "need method.method monocular"),
        ({"method": REFINED}, "name it in `initial`"),
        ({"samples": SamplesConfig(views=1), "objective": replace(TINY.objective, consistency=1.0)}, "compares views"),
        ({"objective": replace(TINY.objective, root=(1,))}, "differ"),
        ({"objective": replace(TINY.objective, consistency=1.0)}, "bounded depth"),
        ({"method": UNIT, "initial": "x", "objective": replace(TINY.objective, consistency=1.0)}, "keeps as it is"),
    ],
)
def test_settings_that_contradict_each_other_are_refused(changes, message):
    with pytest.raises(ConfigError, match=message):
        replace(TINY, **changes).check()

"""Weights that lie elsewhere: in a store, or in the registry under a name that may move."""

from dataclasses import replace

import pytest
import torch

from mvpose.commands.train import Train
from mvpose.commands.train import run as train_command
from mvpose.errors import ConfigError, WeightsError
from mvpose.models.input_rule import MARGIN, input_rule
from mvpose.models.method import build_method
from mvpose.models.saved import load_model, save_model
from mvpose.storage.commits import write_whole
from mvpose.storage.locations import read_bytes
from mvpose.tracking.registry import register
from mvpose.training.feed import Feed
from mvpose.training.initial_weights import build_initial, with_placed_weights
from mvpose.training.training_run import begin_training, train
from tests.tracking.conftest import config as tracking  # noqa: F401
from tests.tracking.conftest import empty_store  # noqa: F401
from tests.training.test_training_run import TINY, tiny


def started_from(uri: str):
    return replace(TINY.method, backbone=replace(TINY.method.backbone, weights=uri))


def saved(folder: str, seed: int) -> torch.nn.Module:
    """A Baseline of the sizes of the tiny training, on disk."""
    torch.manual_seed(seed)
    method = replace(TINY.method, method="baseline")
    network = build_method(method)
    save_model(folder, network, input_rule(method, MARGIN), method, {})
    return network


def same_backbone_and_head(network: torch.nn.Module, source: torch.nn.Module) -> bool:
    parts = {name: t for name, t in source.state_dict().items() if name.startswith(("backbone.", "head."))}
    return len(parts) > 100 and all(torch.equal(network.state_dict()[name], t) for name, t in parts.items())


def test_weights_in_a_store_are_fetched(tmp_path, s3):
    source = saved(str(tmp_path / "model"), 1)
    write_whole(f"{s3}/start.safetensors", read_bytes(str(tmp_path / "model" / "weights.safetensors")))
    assert same_backbone_and_head(build_initial(replace(TINY, method=started_from(f"{s3}/start.safetensors"))), source)
    with pytest.raises(WeightsError, match=r"s3://.*absent\.pth"):
        build_initial(replace(TINY, method=started_from(f"{s3}/absent.pth")))


@pytest.mark.usefixtures("weights")
def test_a_version_of_the_registry_is_kept_with_the_training_and_another_is_another_training(
    table,
    tracking,  # noqa: F811
    tmp_path,
):
    sources = []
    output = str(tmp_path / "run")
    started = tiny(table)
    for seed in (1, 2):
        sources.append(saved(str(tmp_path / f"model{seed}"), seed))
        register(tracking, str(tmp_path / f"model{seed}"), "net")
        asked = replace(started, method=started_from("models:/net@challenger"))
        trained = with_placed_weights(asked, tracking, output)
        assert same_backbone_and_head(build_initial(trained), sources[-1])
        if seed == 1:
            begin_training(trained, Feed.open(trained), output)
            continue
        with pytest.raises(ConfigError, match=r"method\.backbone\.weights: was .*initial/"):
            begin_training(trained, Feed.open(trained), output)
    placed = with_placed_weights(replace(started, method=started_from("models:/net/1")), tracking, output)
    begin_training(placed, Feed.open(started), output)


@pytest.mark.usefixtures("weights")
def test_mvpose_train_starts_from_a_version(table, tracking, tmp_path, capsys):  # noqa: F811
    """At a rate of nothing the network that comes out is the one that went in."""
    source = saved(str(tmp_path / "model"), 1)
    register(tracking, str(tmp_path / "model"), "net")
    output = str(tmp_path / "run")
    optimisation = replace(TINY.optimisation, rate=1e-30, average=0.0)
    settings = vars(tiny(table, method=started_from("models:/net/1"), optimisation=optimisation))
    assert train_command(Train(**settings, output=output, tracking=tracking)) == 0
    assert "Starting from the weights of models:/net/1." in capsys.readouterr().out
    trained, before = load_model(f"{output}/model").network.state_dict(), source.state_dict()
    learned = [name for name, _ in source.named_parameters()]
    assert all(torch.allclose(trained[name], before[name], atol=1e-6) for name in learned)


@pytest.mark.parametrize("where", ["initial", "backbone"])
def test_a_network_has_also_seen_what_the_one_it_starts_from_has_seen(table, tmp_path, where):
    """Fails if the lineage names the last training alone, or claims to be whole where the earlier one does not say."""
    uris = []
    earlier = {"dataset": "drawn", "recordings": ["run"], "people": [], "poses": ["0" * 12]}
    for lineage in (
        {"trained_on": [earlier], "validated_on": []},
        {},
    ):
        folder = str(tmp_path / f"model{len(uris)}")
        save_model(folder, build_method(TINY.method), input_rule(TINY.method, MARGIN), TINY.method, lineage)
        uris.append(folder if where == "initial" else f"{folder}/weights.safetensors")
    lineages = []
    for uri in uris:
        changes = {"initial": uri} if where == "initial" else {"method": started_from(uri)}
        output = str(tmp_path / f"run{len(lineages)}")
        train(tiny(table, optimisation=replace(TINY.optimisation, steps=1), **changes), output)
        lineages.append(load_model(f"{output}/model").lineage)
    known, unknown = lineages
    assert known["trained_on"][0].pop("poses")[0] == "0" * 12 and len(known["validated_on"][0].pop("poses")) == 8
    assert known["trained_on"] == [{"dataset": "drawn", "recordings": ["run", "walk"], "people": ["s"]}]
    assert known["validated_on"] == [{"dataset": "drawn", "recordings": ["walk"], "people": ["s"]}]
    assert "trained_on" not in unknown and "validated_on" not in unknown


def test_a_training_starts_from_a_whole_network_and_refuses_one_of_another_method(table, tracking, tmp_path):  # noqa: F811
    """Fails if the layers behind the backbone are not those of the initial network."""
    torch.manual_seed(3)
    before = build_method(TINY.method)
    save_model(str(tmp_path / "model"), before, input_rule(TINY.method, MARGIN), TINY.method, {})
    optimisation = replace(TINY.optimisation, rate=1e-30, average=0.0)
    config = tiny(table, initial=str(tmp_path / "model"), optimisation=optimisation)
    output = str(tmp_path / "run")
    assert train_command(Train(**vars(config), output=output, tracking=tracking)) == 0
    trained = load_model(f"{output}/model").network.state_dict()
    assert all(torch.allclose(trained[name], value, atol=1e-6) for name, value in before.named_parameters())
    other = replace(config, method=replace(TINY.method, method="baseline"))
    with pytest.raises(ConfigError, match=r"another method \(method: was 'canonical_fusion'"):
        build_initial(other)

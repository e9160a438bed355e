import json
import os
from dataclasses import asdict, replace

import pytest
import torch

from mvpose.config import structure, without_other_kinds
from mvpose.errors import ConfigError, WeightsError
from mvpose.models.algebraic import AlgebraicConfig, RansacTriangulation
from mvpose.models.backbone_settings import ResNetBackbone
from mvpose.models.fusion.canonical_fusion import FusionConfig
from mvpose.models.fusion.cross_view_fusion import CrossViewFusion
from mvpose.models.input_rule import MARGIN, InputRule, input_rule
from mvpose.models.method import build_method
from mvpose.models.network_settings import (
    AlgebraicMethod,
    CrossViewConfig,
    CrossViewMethod,
    FusionMethod,
    Method,
    MethodConfig,
)
from mvpose.models.pictorial_step import PictorialStep, bone_name
from mvpose.models.saved import load_model, save_model
from mvpose.models.volumes.volumetric import VolumetricConfig
from mvpose.skeleton import SKELETONS

ALGEBRAIC = AlgebraicConfig(head_width=8, confidence_widths=(8, 8))
METHODS = ["baseline", "fusion", "canonical_fusion", "ransac", "algebraic", "volumetric", "cross_view_fusion"]


ALL_METHODS = {
    "skeleton": "coco17",
    "size": (128, 128),
    "backbone": {"depth": 18, "width": 8},
    "fusion": {"views": 2, "points": 8, "head_width": 8},
    "ransac": {"rounds": 10},
    "cross_view": {"views": 2, "head_width": 8, "solver": "dlt"},
    "algebraic": asdict(ALGEBRAIC),
    "volumetric": asdict(VolumetricConfig(voxels=8, channels=4, widths=(4, 8), root=(11, 12), algebraic=ALGEBRAIC)),
}


def small(method: str) -> Method:
    return structure(without_other_kinds({"method": method, **ALL_METHODS}, Method), Method, "test")


def rule(method: MethodConfig) -> InputRule:
    """Of a training with a margin that nothing takes by default."""
    return input_rule(method, 1.25)


def views(seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    projections = torch.eye(3, 4).expand(1, 2, 3, 4).clone()
    projections[..., 0, 3] = torch.tensor([-0.5, 0.5])
    projections[..., 2, 3] = 3.0
    projections[:, :, :2] *= 100.0
    projections[:, :, :2] += 64 * projections[:, :, 2:]
    return torch.rand((1, 2, 3, 128, 128), generator=generator), projections


@pytest.mark.parametrize("method", METHODS)
def test_a_saved_model_answers_as_the_one_that_was_saved(method: str, tmp_path) -> None:
    torch.manual_seed(0)
    network = build_method(small(method)).eval()
    digest = save_model(str(tmp_path), network, rule(small(method)), small(method), {"data": "abc"})
    found = load_model(str(tmp_path))
    assert (found.sha256, found.config, found.lineage) == (digest, small(method), {"data": "abc"})
    assert found.rule == rule(small(method)) and found.rule.crop.margin == 1.25
    with torch.no_grad():
        torch.testing.assert_close(found.network(*views()).joints, network(*views()).joints, rtol=0, atol=0)


@pytest.mark.parametrize(
    ("method", "parts"), [("algebraic", ["algebraic"]), ("volumetric", ["volumetric", "algebraic"])]
)
def test_a_model_of_earlier_versions_keeps_the_floor_of_the_weights_that_it_was_trained_with(
    method, parts, tmp_path
) -> None:
    """Fails if a model that does not state its floor gets the present default, or one that does loses it."""
    config = small(method)
    save_model(str(tmp_path), build_method(config), rule(config), config, {})

    def floor() -> float:
        inner = load_model(str(tmp_path)).config
        for part in parts:
            inner = getattr(inner, part)
        return inner.floor

    assert floor() == 1e-5
    described = json.loads((tmp_path / "model.json").read_text())
    inner = described["config"]
    for part in parts:
        inner = inner[part]
    del inner["floor"]
    (tmp_path / "model.json").write_text(json.dumps(described))
    assert floor() == 0.02


LENGTHS = {bone_name(bone): 0.1 * (i + 1) for i, bone in enumerate(SKELETONS["human36m17"].bones)}


def test_a_model_whose_own_3d_step_is_rpsm_comes_with_it_and_its_training_s_limb_lengths(tmp_path) -> None:
    """Fails if the search is forgotten on loading, has other lengths, or stays on top of another step."""
    torch.manual_seed(0)
    config = replace(
        small("cross_view_fusion"), skeleton="human36m17", cross_view=CrossViewConfig(views=2, head_width=8)
    )
    network = build_method(config).eval()
    save_model(str(tmp_path), network, rule(config), config, {"limb_lengths_m": LENGTHS})
    found = load_model(str(tmp_path))
    assert isinstance(found.network, PictorialStep) and found.network.config.rounds == 10
    assert found.network.lengths.tolist() == pytest.approx(list(LENGTHS.values()))
    assert isinstance(found.solved_by("psm").network.method, CrossViewFusion)
    with torch.no_grad():
        bare = found.solved_by("dlt").network(*views())
        torch.testing.assert_close(bare.joints, network(*views()).joints, rtol=0, atol=0)
    save_model(str(tmp_path), network, rule(config), config, {})
    with pytest.raises(ConfigError, match="needs the mean limb lengths"):
        load_model(str(tmp_path))


def test_ransac_loads_the_weights_of_a_trained_baseline() -> None:
    baseline = build_method(small("baseline"))
    ransac = build_method(small("ransac"))
    assert isinstance(ransac, RansacTriangulation)
    ransac.network.load_state_dict(baseline.state_dict())


def test_altered_weights_are_refused(tmp_path) -> None:
    save_model(str(tmp_path), build_method(small("baseline")), rule(small("baseline")), small("baseline"), {})
    path = tmp_path / "weights.safetensors"
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    with pytest.raises(WeightsError, match="altered"):
        load_model(str(tmp_path))


def test_a_description_of_another_network_is_refused(tmp_path) -> None:
    save_model(str(tmp_path), build_method(small("baseline")), rule(small("baseline")), small("baseline"), {})
    described = json.loads((tmp_path / "model.json").read_text())
    described["config"]["fusion"]["head_width"] = 16
    (tmp_path / "model.json").write_text(json.dumps(described))
    with pytest.raises(WeightsError, match="does not fit"):
        load_model(str(tmp_path))


def written(tmp_path, **changes) -> str:
    """A Baseline on disk whose description was changed; None drops an entry."""
    config = small("baseline")
    save_model(str(tmp_path), build_method(config), rule(config), config, {"settings": {"samples.margin": 1.25}})
    described = json.loads((tmp_path / "model.json").read_text()) | changes
    (tmp_path / "model.json").write_text(json.dumps({k: v for k, v in described.items() if v is not None}))
    return str(tmp_path)


def test_format_1_is_read_with_the_margin_among_the_settings_of_its_training(tmp_path) -> None:
    old = load_model(written(tmp_path, format_version=1, input=None)).rule
    assert old == rule(small("baseline")) and old.crop.margin != MARGIN


def test_format_1_without_the_margin_is_refused_and_training_again_is_named(tmp_path) -> None:
    with pytest.raises(WeightsError, match="does not state the crop margin of the training: train it again"):
        load_model(written(tmp_path, format_version=1, input=None, lineage={}))


def test_a_later_format_is_refused(tmp_path) -> None:
    with pytest.raises(WeightsError, match="has format 3; this mvpose reads 1 and 2"):
        load_model(written(tmp_path, format_version=3))


@pytest.mark.parametrize(
    "changes",
    [
        {"pixel_mean": (0.5, 0.5, 0.5)},
        {"skeleton": "halpe26"},
        {"min_views": 2, "max_views": 2},
        {"crop": {"about": "joints", "size": (64, 64), "margin": 1.25}},
    ],
)
def test_an_input_that_the_network_does_not_take_is_refused(changes: dict, tmp_path) -> None:
    stated = asdict(rule(small("baseline"))) | changes
    with pytest.raises(WeightsError, match=r"the network takes .*: train it again"):
        load_model(written(tmp_path, input=stated))


def test_a_network_that_concatenates_accepts_its_own_number_of_views_and_others_two_or_more() -> None:
    three = FusionConfig(views=3)
    for method in (FusionMethod(method="fusion", fusion=three), FusionMethod(fusion=three)):
        assert [n for n in range(6) if input_rule(method, 1.4).accepts(n)] == [3]
    dense = CrossViewMethod(cross_view=CrossViewConfig(views=3))
    assert [n for n in range(6) if input_rule(dense, 1.4).accepts(n)] == [3]
    pooling = FusionConfig(views=3, fusion="pooling")
    rays = CrossViewMethod(cross_view=CrossViewConfig(views=3, fusion="rays"))
    for method in (AlgebraicMethod(), FusionMethod(fusion=pooling), rays):
        assert [n for n in range(6) if input_rule(method, 1.4).accepts(n)] == [2, 3, 4, 5]


def test_a_folder_without_a_model_and_one_without_weights_are_named(tmp_path) -> None:
    with pytest.raises(WeightsError, match="no model in"):
        load_model(str(tmp_path))
    save_model(str(tmp_path), build_method(small("baseline")), rule(small("baseline")), small("baseline"), {})
    os.remove(tmp_path / "weights.safetensors")
    with pytest.raises(WeightsError, match=r"no weights\.safetensors"):
        load_model(str(tmp_path))


def test_a_frozen_backbone_is_frozen_when_it_is_built() -> None:
    config = FusionMethod(backbone=ResNetBackbone(depth=18, width=8, frozen=True), fusion=FusionConfig(points=8))
    network = build_method(config)
    assert not any(p.requires_grad for n, p in network.named_parameters() if n.startswith("backbone."))
    assert any(p.requires_grad for p in network.parameters())


def test_a_model_of_before_with_the_settings_of_all_methods_is_read(tmp_path) -> None:
    save_model(str(tmp_path), build_method(small("algebraic")), rule(small("algebraic")), small("algebraic"), {})
    path = tmp_path / "model.json"
    description = json.loads(path.read_text())
    assert "fusion" not in description["config"]
    description["config"] |= json.loads(json.dumps(ALL_METHODS))
    path.write_text(json.dumps(description))
    assert load_model(str(tmp_path)).config == small("algebraic")
    description["config"]["algebraics"] = {}
    path.write_text(json.dumps(description))
    with pytest.raises(ConfigError, match="algebraics"):
        load_model(str(tmp_path))


@pytest.mark.parametrize("wrong", [{"skeleton": "octopus"}, {"size": (250, 256)}])
def test_a_setting_that_no_network_has_is_an_error(wrong: dict) -> None:
    with pytest.raises(ConfigError):
        MethodConfig(**wrong)

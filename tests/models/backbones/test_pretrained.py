"""Files of other people's weights, written in their real layouts and read back into our networks."""

from collections import OrderedDict
from dataclasses import replace

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from mvpose.config import structure, without_other_kinds
from mvpose.errors import ConfigError, WeightsError
from mvpose.models.backbone_settings import ResNetBackbone
from mvpose.models.backbones.pretrained import load_pretrained, read_state_dict
from mvpose.models.backbones.simple_baselines import HeatmapHead, ResNet
from mvpose.models.method import build_method
from mvpose.models.multiview import PIXEL_DEVIATION, PIXEL_MEAN
from mvpose.models.network_settings import AlgebraicMethod, FusionMethod, Method
from mvpose.skeleton import COCO17, HUMAN36M17, MPII16

BLOCKS = {18: (2, 2, 2, 2), 50: (3, 4, 6, 3)}


def published_layout(depth: int, joints: int, width: int = 64, deconvolutions: int = 256) -> OrderedDict:
    """Names and shapes of a pose_resnet file as its authors' code writes them, told here apart from our network.

    As by PyTorch 0.4.0: no `num_batches_tracked`.
    """
    state: OrderedDict[str, torch.Tensor] = OrderedDict()
    expansion = 4 if depth >= 50 else 1

    def norm(name: str, channels: int) -> None:
        state[f"{name}.weight"] = torch.rand(channels) + 0.5
        state[f"{name}.bias"] = torch.randn(channels)
        state[f"{name}.running_mean"] = torch.randn(channels)
        state[f"{name}.running_var"] = torch.rand(channels) + 0.5

    def convolution(name: str, *shape: int) -> None:
        state[f"{name}.weight"] = torch.randn(*shape) / 10

    convolution("conv1", width, 3, 7, 7)
    norm("bn1", width)
    channels = width
    for stage, blocks in enumerate(BLOCKS[depth]):
        planes = width << stage
        for block in range(blocks):
            name = f"layer{stage + 1}.{block}"
            if expansion == 4:
                sizes = ((planes, channels, 1), (planes, planes, 3), (4 * planes, planes, 1))
            else:
                sizes = ((planes, channels, 3), (planes, planes, 3))
            for i, (out, into, kernel) in enumerate(sizes, start=1):
                convolution(f"{name}.conv{i}", out, into, kernel, kernel)
                norm(f"{name}.bn{i}", out)
            if block == 0 and (stage or expansion == 4):
                convolution(f"{name}.downsample.0", expansion * planes, channels, 1, 1)
                norm(f"{name}.downsample.1", expansion * planes)
            channels = expansion * planes
    for i in (0, 3, 6):
        convolution(f"deconv_layers.{i}", channels if i == 0 else deconvolutions, deconvolutions, 4, 4)
        norm(f"deconv_layers.{i + 1}", deconvolutions)
    convolution("final_layer", joints, deconvolutions, 1, 1)
    state["final_layer.bias"] = torch.randn(joints)
    return state


def method(path: str, name: str = "baseline", skeleton: str = "coco17", **backbone) -> Method:
    values = {
        "method": name,
        "skeleton": skeleton,
        "size": (64, 64),
        "backbone": {"weights": path, "depth": 18, "width": 8, **backbone},
        "fusion": {"points": 4, "head_width": 16},
    }
    return structure(without_other_kinds(values, Method), Method, "test")


def small(joints: int = 17) -> OrderedDict:
    return published_layout(18, joints, width=8, deconvolutions=16)


def backbone_and_head(network: nn.Module) -> tuple[ResNet, HeatmapHead]:
    (backbone,) = (m for m in network.modules() if isinstance(m, ResNet))
    (head,) = (m for m in network.modules() if isinstance(m, HeatmapHead))
    return backbone, head


def tensors(network: nn.Module) -> dict[str, torch.Tensor]:
    """Of backbone and head, by the public names."""
    backbone, head = backbone_and_head(network)
    return {**backbone.state_dict(), **head.state_dict()}


def test_a_published_pose_resnet_50_fills_a_network_whole(tmp_path):
    """The real sizes, in the real container: an ordered dictionary in the format of PyTorch before 1.6."""
    path = str(tmp_path / "pose_resnet_50_256x192.pth.tar")
    state = published_layout(50, 17)
    torch.save(state, path, _use_new_zipfile_serialization=False)
    config = FusionMethod(method="baseline", skeleton="coco17", backbone=ResNetBackbone(weights=path))
    found = tensors(build_method(config))
    assert {name for name in found if not name.endswith("num_batches_tracked")} == set(state)
    assert all(torch.equal(found[name], tensor) for name, tensor in state.items())


@pytest.mark.parametrize("layout", ["bare", "module", "checkpoint", "safetensors"])
@pytest.mark.parametrize("name", ["baseline", "fusion", "canonical_fusion", "ransac", "algebraic"])
def test_every_layout_fills_every_method_that_has_maps(tmp_path, layout, name):
    state = small()
    path = str(tmp_path / f"weights.{'safetensors' if layout == 'safetensors' else 'pth'}")
    wrapped = {f"module.{key}": tensor for key, tensor in state.items()}
    contents = {
        "bare": state,
        "module": wrapped,
        "checkpoint": {"epoch": 140, "model": "pose_resnet", "state_dict": wrapped, "perf": 0.7, "optimizer": {}},
    }
    save_file(state, path) if layout == "safetensors" else torch.save(contents[layout], path)
    config = method(path, name)
    if isinstance(config, AlgebraicMethod):
        config = replace(config, algebraic=replace(config.algebraic, head_width=16, confidence_widths=(8, 8)))
    found = tensors(build_method(config))
    assert all(torch.equal(found[name], tensor) for name, tensor in state.items())
    other = tensors(build_method(config, pretrained=False))
    assert not torch.equal(other["final_layer.bias"], state["final_layer.bias"])


@pytest.mark.parametrize("ending", ["safetensors", "pth"])
def test_a_torchvision_file_fills_the_backbone_alone_and_its_classifier_is_left_out(tmp_path, ending):
    state = {name: tensor for name, tensor in small().items() if not name.startswith(("deconv", "final"))}
    state |= {"fc.weight": torch.zeros(10, 64), "fc.bias": torch.zeros(10)}
    path = str(tmp_path / f"weights.{ending}")
    save_file(state, path) if ending == "safetensors" else torch.save(state, path)
    torch.manual_seed(3)
    untouched = backbone_and_head(build_method(method("")))[1].state_dict()
    torch.manual_seed(3)
    backbone, head = backbone_and_head(build_method(method(path)))
    assert torch.equal(backbone.conv1.weight, state["conv1.weight"])
    assert all(torch.equal(tensor, untouched[name]) for name, tensor in head.state_dict().items())


def test_maps_of_other_joints_go_to_the_joints_of_the_same_name(tmp_path):
    path = str(tmp_path / "mpii.pth")
    state = small(16)
    torch.save(state, path)
    torch.manual_seed(3)
    fresh = backbone_and_head(build_method(method("", skeleton="human36m17")))[1].final_layer.weight
    torch.manual_seed(3)
    head = backbone_and_head(build_method(method(path, skeleton="human36m17", joints="mpii16")))[1]
    for i, joint in enumerate(HUMAN36M17.joints):
        known = joint in MPII16.joints
        expected = state["final_layer.weight"][MPII16.index(joint)] if known else fresh[i]
        assert torch.equal(head.final_layer.weight[i], expected), joint
    assert {j for j in HUMAN36M17.joints if j not in MPII16.joints} == {"spine", "nose"}


def test_weights_for_bgr_images_give_the_same_from_rgb(tmp_path):
    """The published networks see blue first, as OpenCV reads it, normalised by the constants of red first."""
    torch.manual_seed(0)
    source, head = ResNet(18, width=8).eval(), HeatmapHead(64, 17, width=16)
    source.load_state_dict({**source.state_dict(), "bn1.running_mean": torch.rand(8)})
    path = str(tmp_path / "bgr.pth")
    torch.save({**source.state_dict(), **head.state_dict()}, path)
    ours = ResNet(18, width=8).eval()
    load_pretrained(ours, HeatmapHead(64, 17, width=16), path, COCO17, colours="bgr")
    mean, deviation = (torch.tensor(values)[:, None, None] for values in (PIXEL_MEAN, PIXEL_DEVIATION))
    rgb = torch.rand(2, 3, 64, 64)
    with torch.no_grad():
        theirs = source.bn1(source.conv1((rgb.flip(1) - mean) / deviation))[..., 2:-2, 2:-2]
        same = ours.bn1(ours.conv1((rgb - mean) / deviation))[..., 2:-2, 2:-2]
    torch.testing.assert_close(same, theirs, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("name", ["baseline", "ransac"])
def test_a_network_of_mvpose_hands_on_its_backbone_and_head(tmp_path, name):
    source = build_method(method("", name))
    path = str(tmp_path / "weights.safetensors")
    save_file(source.state_dict(), path)
    for before, after in zip(
        backbone_and_head(source), backbone_and_head(build_method(method(path, "canonical_fusion"))), strict=True
    ):
        assert all(torch.equal(t, after.state_dict()[n]) for n, t in before.state_dict().items())


def test_what_does_not_fit_is_reported_by_name_shape_and_remedy(tmp_path):
    def refusal(state: dict, **settings) -> str:
        path = str(tmp_path / "weights.pth")
        torch.save(state, path)
        with pytest.raises(WeightsError) as caught:
            build_method(method(path, **settings))
        return str(caught.value)

    reported = refusal(small(16))
    assert (
        "final_layer.weight is (16, 16, 1, 1), not (17, 16, 1, 1)" in reported and "method.backbone.joints" in reported
    )
    assert "2 with another shape" in reported and "missing" not in reported
    assert "maps of 16 joints; coco17 has 17" in refusal(small(16), joints="coco17")
    deeper = refusal(small(), depth=34)
    assert "ResNet-34 (method.backbone.depth)" in deeper and "layer1.2.conv1.weight" in deeper
    assert "80 missing in the file (" in deeper and "and 75 more" in deeper
    without = {name: tensor for name, tensor in small().items() if name != "deconv_layers.4.bias"}
    assert "1 missing in the file (deconv_layers.4.bias)" in refusal(without)
    assert "1 not in the network (attention.weight)" in refusal({**small(), "attention.weight": torch.ones(1)})


class Malicious:
    def __reduce__(self):
        return print, ("code ran",)


def test_pickled_code_missing_files_and_texts_are_refused(tmp_path, capsys):
    torch.save({"a": Malicious()}, tmp_path / "code.pth")
    (tmp_path / "text.pth").write_text("hello")
    (tmp_path / "text.safetensors").write_text("hello")
    torch.save({"a": {"b": torch.zeros(1)}}, tmp_path / "nested.pth")
    for name in ("code.pth", "text.pth", "text.safetensors", "nested.pth", "absent.pth"):
        with pytest.raises(WeightsError, match=name):
            read_state_dict(str(tmp_path / name))
    assert "code ran" not in capsys.readouterr().out


def test_unknown_joints_are_refused():
    with pytest.raises(ConfigError, match=r"octopus.*mpii16"):
        method("", joints="octopus")

import onnxruntime
import pytest
import torch

from mvpose.errors import ConfigError
from mvpose.geometry.triangulation import DltMethod
from mvpose.models.algebraic import AlgebraicConfig, AlgebraicTriangulation
from mvpose.models.backbone_settings import ResNetBackbone
from mvpose.models.backbones.simple_baselines import HeatmapHead, ResNet
from mvpose.models.fusion.canonical_fusion import CanonicalFusion, Fusion, FusionConfig
from mvpose.models.input_rule import InputRule
from mvpose.models.method import build_method
from mvpose.models.multiview import Decoding
from mvpose.models.network_settings import CropRule, FusionMethod, TokenMethod
from mvpose.models.onnx_export import INPUTS, OUTPUTS, export_model, export_onnx
from mvpose.models.saved import SavedModel
from mvpose.models.volumes.volumetric import VolumetricConfig, VolumetricTriangulation

DECODING = Decoding(solver=DltMethod.NORMAL)
ALGEBRAIC = AlgebraicConfig(head_width=16, confidence_widths=(16, 8), decoding=DECODING)
SMALL = FusionConfig(points=4, head_width=16, decoding=DECODING)
POOLING = FusionConfig(points=4, head_width=16, decoding=DECODING, fusion="pooling")
METHODS = {
    "pooling": lambda: CanonicalFusion(ResNet(18, width=8), 3, POOLING),
    "fusion": lambda: Fusion(ResNet(18, width=8), 3, SMALL),
    "algebraic": lambda: AlgebraicTriangulation(ResNet(18, width=8), 3, ALGEBRAIC),
    "volumetric": lambda: VolumetricTriangulation(
        ResNet(18, width=8), 3, VolumetricConfig(voxels=16, channels=4, widths=(4, 6, 8), algebraic=ALGEBRAIC)
    ),
}


@pytest.mark.slow
@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize("name", METHODS)
def test_onnx_runtime_answers_as_the_method_does(name, blobs, tmp_path):
    torch.manual_seed(0)
    method, path = METHODS[name]().eval(), str(tmp_path / "method.onnx")
    for head in (module for module in method.modules() if isinstance(module, HeatmapHead)):
        for weight in (p for p in head.parameters() if p.ndim == 4):
            torch.nn.init.normal_(weight, std=0.3)  # fresh heads are near 0, where every answer is the crop's middle
    free = name != "fusion"
    export_onnx(method, 4, (128, 128), path, any_views=free)
    samples = blobs(batch=3, views=5 if free else 4, seed=1)
    inputs = samples.crops, samples.projections, torch.ones(samples.crops.shape[:2], dtype=torch.bool)
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    found = session.run(list(OUTPUTS), {name: tensor.numpy() for name, tensor in zip(INPUTS, inputs, strict=True)})
    with torch.no_grad():
        answer = method(*inputs)
    assert answer.joints_2d.std(dim=2).median() > 0.1
    for name, values in zip(OUTPUTS, found, strict=True):
        expected = getattr(answer, name)
        assert torch.allclose(
            torch.from_numpy(values).double(), expected.double(), atol=0.01 if name == "joints_2d" else 1e-4
        ), name


FUSION = FusionMethod(
    method="canonical_fusion", skeleton="coco17", size=(64, 64), backbone=ResNetBackbone(depth=18, width=8),
    fusion=FusionConfig(points=4, head_width=16, views=3),
)  # fmt: skip


def saved(config: FusionMethod | TokenMethod, views: int | None) -> SavedModel:
    torch.manual_seed(0)
    rule = InputRule(
        skeleton=config.skeleton, crop=CropRule(size=config.size, margin=1.2), min_views=views or 2, max_views=views
    )
    network = build_method(config, pretrained=False).eval() if isinstance(config, FusionMethod) else torch.nn.Identity()
    return SavedModel(network, rule, config, "0" * 64, {})


@pytest.mark.slow
@pytest.mark.usefixtures("unchecked")
def test_a_trained_model_answers_as_before_whatever_its_solver(blobs, tmp_path):
    """Fails if weights are lost on the way, or a model with shifted iterations cannot be exported."""
    model, path = saved(FUSION, views=3), str(tmp_path / "model.onnx")
    assert FUSION.fusion.decoding.solver == DltMethod.SII
    for weight in (p for p in model.network.parameters() if p.ndim == 4):
        torch.nn.init.normal_(weight, std=0.1)  # fresh heads are near 0, where every answer is the crop's middle
    export_model(model, None, path)
    samples = blobs(batch=2, views=3, size=(64, 64), seed=1)
    inputs = samples.crops, samples.projections, torch.ones(samples.crops.shape[:2], dtype=torch.bool)
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    found = session.run(["joints_2d"], {n: tensor.numpy() for n, tensor in zip(INPUTS, inputs, strict=True)})
    with torch.no_grad():
        assert torch.allclose(torch.from_numpy(found[0]), model.network(*inputs).joints_2d, atol=0.01)


def test_what_a_model_does_not_take_is_refused_before_anything_is_written(tmp_path):
    path = tmp_path / "model.onnx"
    with pytest.raises(ConfigError, match="3 views"):
        export_model(saved(FUSION, views=3), 4, str(path))
    with pytest.raises(ConfigError, match="takes tokens"):
        export_model(saved(TokenMethod(), views=None), None, str(path))
    assert not path.exists()

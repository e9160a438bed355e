"""Which multi-view method, from which backbone, with which sizes: one config from which any network is built."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from torch import nn

from mvpose.config import nearest
from mvpose.errors import ConfigError
from mvpose.models.algebraic import AlgebraicConfig, AlgebraicTriangulation, RansacConfig, RansacTriangulation
from mvpose.models.backbones import Backbone, HeatmapHead, ResNet
from mvpose.models.canonical_fusion import Baseline, CanonicalFusion, Fusion, FusionConfig
from mvpose.models.canonical_tokens import CanonicalTokens, TokenFusionConfig
from mvpose.models.cards import locate, read_card
from mvpose.models.cspnext import CSPNeXt, cspnext_from_rtmpose
from mvpose.models.multiview import STRIDE
from mvpose.models.pretrained import load_pretrained
from mvpose.models.simcc_head import SimCCHead, simcc_head_from_rtmpose
from mvpose.models.volumetric import VolumetricConfig, VolumetricTriangulation
from mvpose.skeleton import SKELETONS


@dataclass(frozen=True, kw_only=True)
class BackboneConfig:
    """The network that every view's crop goes through first."""

    kind: Literal["resnet", "cspnext"] = "resnet"
    """`cspnext` is CSPNeXt-s, the backbone of RTMPose-s."""
    depth: int = 50
    """ResNet: 18, 34, 50, 101 or 152."""
    width: int = 64
    """ResNet: channels of the first stage; 64 is the published network."""
    weights: str = ""
    """What training starts from. For a ResNet a .safetensors or .pth file of torchvision's names, of pose_resnet
    (Simple Baselines: fills the deconvolutions and maps too) or of a network of mvpose (its backbone and head); in
    `mvpose train` also at s3://, or a version in the registry (models:/NAME@ALIAS). For CSPNeXt the name of a model
    card, or its .toml file, whose ONNX file is RTMPose-s. Empty for random weights."""
    joints: str = ""
    """Order of the joints in the maps of such weights (coco17, mpii16, ...); empty for the method's own skeleton. Maps
    of joints that they lack start from random weights."""
    colours: Literal["rgb", "bgr"] = "rgb"
    """Channel order of the pictures that the weights were trained on. The published pose_resnet files: bgr."""
    frozen: bool = False
    """Keep the backbone as it is loaded."""


@dataclass(frozen=True, kw_only=True)
class MethodConfig:
    """A multi-view network. Only the sizes of the method that is named are read."""

    method: Literal[
        "baseline", "fusion", "canonical_fusion", "canonical_tokens", "ransac", "algebraic", "volumetric"
    ] = "canonical_fusion"
    skeleton: str = "human36m17"
    size: tuple[int, int] = (256, 256)
    """(width, height) of the crops in pixels; multiples of 32."""
    backbone: BackboneConfig = field(default_factory=BackboneConfig)
    fusion: FusionConfig = field(default_factory=FusionConfig)
    """Of Baseline, Fusion and Canonical Fusion, and of the per-view network under RANSAC."""
    tokens: TokenFusionConfig = field(default_factory=TokenFusionConfig)
    """Of the fusion of RTMPose's joint tokens: backbone `cspnext`, skeleton `halpe26`, crops of 192 x 256."""
    ransac: RansacConfig = field(default_factory=RansacConfig)
    algebraic: AlgebraicConfig = field(default_factory=AlgebraicConfig)
    volumetric: VolumetricConfig = field(default_factory=VolumetricConfig)

    def __post_init__(self) -> None:
        if self.skeleton not in SKELETONS:
            raise ConfigError(f"no skeleton is named {self.skeleton!r} ({nearest(self.skeleton, SKELETONS)})")
        if self.backbone.joints and self.backbone.joints not in SKELETONS:
            joints = self.backbone.joints
            raise ConfigError(f"no skeleton is named {joints!r} ({nearest(joints, SKELETONS)})")
        if any(side < STRIDE or side % STRIDE for side in self.size):
            raise ConfigError(f"the sides of crops must be multiples of {STRIDE} pixels, not {self.size}")


def build_method(config: MethodConfig, *, pretrained: bool = True) -> nn.Module:
    """The network of a config, as `mvpose.models.multiview` calls it.

    `pretrained` fills the backbone, and the head where there is one, from `backbone.weights`; without it (the caller
    has weights of the whole network) nothing is read. WeightsError where the file is missing or does not fit.
    """
    backbone = _backbone(config.backbone, pretrained).freeze(config.backbone.frozen)
    network = _network(config, backbone, pretrained)
    if pretrained and config.backbone.weights and isinstance(backbone, ResNet):
        _load(config, network, backbone)
    return network


def _network(config: MethodConfig, backbone: Backbone, pretrained: bool) -> nn.Module:
    joints = len(SKELETONS[config.skeleton].joints)
    match config.method:
        case "baseline":
            return Baseline(backbone, joints, config.fusion)
        case "fusion":
            return Fusion(backbone, joints, config.fusion)
        case "canonical_fusion":
            return CanonicalFusion(backbone, joints, config.fusion)
        case "canonical_tokens":
            weights = config.backbone.weights if pretrained else ""
            head = simcc_head_from_rtmpose(locate(read_card(weights))) if weights else None
            return CanonicalTokens(backbone, head or SimCCHead(backbone.channels, joints, config.size), config.tokens)
        case "ransac":
            return RansacTriangulation(Baseline(backbone, joints, config.fusion), config.ransac)
        case "algebraic":
            return AlgebraicTriangulation(backbone, joints, config.algebraic)
        case "volumetric":
            return VolumetricTriangulation(backbone, joints, config.volumetric)


def _backbone(config: BackboneConfig, pretrained: bool) -> Backbone:
    weights = config.weights if pretrained else ""
    if config.kind == "cspnext":
        return cspnext_from_rtmpose(locate(read_card(weights))) if weights else CSPNeXt()
    return ResNet(config.depth, config.width)


def _load(config: MethodConfig, network: nn.Module, backbone: ResNet) -> None:
    own, trained = SKELETONS[config.skeleton], config.backbone.joints
    (head,) = (module for module in network.modules() if isinstance(module, HeatmapHead))
    trained_joints = SKELETONS[trained] if trained else None
    load_pretrained(backbone, head, config.backbone.weights, own, trained_joints, config.backbone.colours)

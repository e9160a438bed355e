"""Construction of a network from its settings: method, backbone and sizes."""

from __future__ import annotations

from torch import nn

from mvpose.config import import_named
from mvpose.models.algebraic import AlgebraicTriangulation, RansacTriangulation
from mvpose.models.backbone_settings import CSPNeXtBackbone, ResNetBackbone
from mvpose.models.backbones.cspnext import CSPNeXt, cspnext_from_rtmpose
from mvpose.models.backbones.pretrained import load_pretrained
from mvpose.models.backbones.simcc_head import SimCCHead, simcc_head_from_rtmpose
from mvpose.models.backbones.simple_baselines import Backbone, HeatmapHead, ResNet
from mvpose.models.detection.cards import locate, read_card
from mvpose.models.fusion.canonical_fusion import Baseline, CanonicalFusion, Fusion
from mvpose.models.fusion.canonical_tokens import CanonicalTokens
from mvpose.models.fusion.cross_view_fusion import CrossViewFusion
from mvpose.models.network_settings import (
    AlgebraicMethod,
    CrossViewMethod,
    FieldsMethod,
    FusionMethod,
    ImageMethod,
    LiftingMethod,
    Method,
    MonocularMethod,
    OwnMethod,
    RansacMethod,
    TokenMethod,
    VolumetricMethod,
)
from mvpose.models.single_view.field_network import FieldNetwork
from mvpose.models.single_view.lifting import lifter
from mvpose.models.single_view.monocular import Monocular
from mvpose.models.volumes.volumetric import VolumetricTriangulation
from mvpose.skeleton import SKELETONS, Skeleton


def build_method(config: Method, *, pretrained: bool = True) -> nn.Module:
    """Build the network of a config; see `mvpose.models.multiview` for its call, `Lifter` for that of a lifting, and
    `FieldNetwork` for that of part affinity fields.

    `pretrained` loads the backbone, and the head if there is one, from `backbone.weights`; without it (if the caller
    has weights of the whole network) nothing is read. WeightsError if the file is missing or does not fit.
    """
    if isinstance(config, LiftingMethod):
        return lifter(config)
    backbone = _backbone(config.backbone, pretrained).freeze(config.backbone.frozen)
    network = _network(config, backbone, pretrained)
    if pretrained and config.backbone.weights and isinstance(backbone, ResNet):
        assert isinstance(config.backbone, ResNetBackbone)
        _load(config.backbone, network, backbone, SKELETONS[config.skeleton])
    return network


def _network(config: ImageMethod | FieldsMethod, backbone: Backbone, pretrained: bool) -> nn.Module:
    joints = len(SKELETONS[config.skeleton].joints)
    match config:
        case FusionMethod():
            kinds = {"baseline": Baseline, "fusion": Fusion, "canonical_fusion": CanonicalFusion}
            return kinds[config.method](backbone, joints, config.fusion)
        case TokenMethod():
            weights = config.backbone.weights if pretrained else ""
            head = simcc_head_from_rtmpose(locate(read_card(weights))) if weights else None
            return CanonicalTokens(backbone, head or SimCCHead(backbone.channels, joints, config.size), config.tokens)
        case RansacMethod():
            return RansacTriangulation(Baseline(backbone, joints, config.fusion), config.ransac)
        case AlgebraicMethod():
            return AlgebraicTriangulation(backbone, joints, config.algebraic)
        case VolumetricMethod():
            return VolumetricTriangulation(backbone, joints, config.volumetric)
        case CrossViewMethod():
            return CrossViewFusion(backbone, joints, config.size, config.cross_view)
        case MonocularMethod():
            return Monocular(backbone, joints, config.monocular)
        case FieldsMethod():
            return FieldNetwork(backbone, joints, len(SKELETONS[config.skeleton].bones), config.fields)
        case OwnMethod():
            return import_named(config.network, "network")(backbone, joints, config)


def _backbone(config: ResNetBackbone | CSPNeXtBackbone, pretrained: bool) -> Backbone:
    weights = config.weights if pretrained else ""
    if isinstance(config, CSPNeXtBackbone):
        return cspnext_from_rtmpose(locate(read_card(weights))) if weights else CSPNeXt()
    return ResNet(config.depth, config.width)


def _load(config: ResNetBackbone, network: nn.Module, backbone: ResNet, own: Skeleton) -> None:
    # A monocular network's head has other maps than one per joint.
    heads = [] if isinstance(network, Monocular) else network.modules()
    head = next((module for module in heads if isinstance(module, HeatmapHead)), None)
    trained_joints = SKELETONS[config.joints] if config.joints else None
    load_pretrained(backbone, head, config.weights, own, trained_joints, config.colours)

"""Settings of the backbones. Imports no torch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from mvpose.config import nearest
from mvpose.errors import ConfigError
from mvpose.skeleton import SKELETONS


@dataclass(frozen=True, kw_only=True)
class BackboneConfig:
    """The network applied to the crop of each view."""

    weights: str = ""
    """Initial weights; empty for random weights. For a ResNet: a .safetensors or .pth file of torchvision, pose_resnet
    (Simple Baselines; also loads the deconvolutions and maps) or mvpose (loads backbone and head). `mvpose train` also
    accepts an s3:// URI or a registered version (models:/NAME@ALIAS). For CSPNeXt: the model card of an RTMPose-s ONNX
    file, by name or as a .toml file."""
    frozen: bool = False
    """Freeze the backbone."""


@dataclass(frozen=True, kw_only=True)
class ResNetBackbone(BackboneConfig):
    """A ResNet."""

    kind: Literal["resnet"] = "resnet"
    depth: int = 50
    """18, 34, 50, 101 or 152."""
    width: int = 64
    """Channels of the first stage; 64 is the published network."""
    joints: str = ""
    """Joint order of the maps in `weights` (coco17, mpii16, ...); empty for the skeleton of the method. Maps of missing
    joints start from random weights."""
    colours: Literal["rgb", "bgr"] = "rgb"
    """Channel order of the images that the weights were trained on. Published pose_resnet files use bgr."""

    def __post_init__(self) -> None:
        if self.joints and self.joints not in SKELETONS:
            raise ConfigError(f"no skeleton is named {self.joints!r} ({nearest(self.joints, SKELETONS)})")


@dataclass(frozen=True, kw_only=True)
class CSPNeXtBackbone(BackboneConfig):
    """CSPNeXt-s, the backbone of RTMPose-s."""

    kind: Literal["cspnext"] = "cspnext"

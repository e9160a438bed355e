"""ResNet backbones and the heatmap head of Simple Baselines (Xiao et al. 2018); every method accepts any backbone.

ResNet's parameters have torchvision's names, the head's those of the published pose_resnet checkpoints, so that
`mvpose.models.backbones.pretrained` loads both strictly.
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor, nn

STAGES = {
    18: (2, 2, 2, 2),
    34: (3, 4, 6, 3),
    50: (3, 4, 6, 3),
    101: (3, 4, 23, 3),
    152: (3, 8, 36, 3),
}


class Backbone(nn.Module):
    """Images to features at 1/32 of their size. `channels` is the width of the features.

    A frozen backbone keeps its parameters and batch statistics, whatever `train` is called with.
    """

    channels: int
    frozen: bool = False

    def freeze(self, frozen: bool = True) -> Backbone:
        """Stop or resume training of this backbone; returns itself."""
        self.frozen = frozen
        self.requires_grad_(not frozen)
        return self.train(not frozen)

    def train(self, mode: bool = True) -> Backbone:
        """Like any module's `train`, but a frozen backbone stays in evaluation mode."""
        return super().train(mode and not self.frozen)


class BasicBlock(nn.Module):
    """Two 3x3 convolutions and a skip (ResNet-18 and -34)."""

    expansion = 1

    def __init__(self, channels: int, width: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, width, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.downsample = _shortcut(channels, width, stride)

    def forward(self, x: Float[Tensor, "n c h w"]) -> Float[Tensor, "n d a b"]:
        """Return features, at half the size if the stride is 2."""
        inner = self.bn2(self.conv2(torch.relu(self.bn1(self.conv1(x)))))
        return torch.relu(inner + (x if self.downsample is None else self.downsample(x)))


class Bottleneck(nn.Module):
    """1x1, 3x3 (which carries the stride), 1x1 to four times the width, and a skip (ResNet-50 and deeper)."""

    expansion = 4

    def __init__(self, channels: int, width: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, width, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, stride, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.conv3 = nn.Conv2d(width, 4 * width, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(4 * width)
        self.downsample = _shortcut(channels, 4 * width, stride)

    def forward(self, x: Float[Tensor, "n c h w"]) -> Float[Tensor, "n d a b"]:
        """Return features, at half the size if the stride is 2."""
        inner = torch.relu(self.bn1(self.conv1(x)))
        inner = self.bn3(self.conv3(torch.relu(self.bn2(self.conv2(inner)))))
        return torch.relu(inner + (x if self.downsample is None else self.downsample(x)))


class ResNet(Backbone):
    """ResNet (He et al. 2016) without pooling and classifier. `width` 64 is the published one; tests use less."""

    def __init__(self, depth: int, width: int = 64) -> None:
        if depth not in STAGES:
            raise ValueError(f"there is no ResNet-{depth}; depths are {', '.join(map(str, STAGES))}")
        super().__init__()
        self.depth = depth
        block = BasicBlock if depth < 50 else Bottleneck
        self.conv1 = nn.Conv2d(3, width, 7, 2, 3, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.channels = width
        self.layer1, self.layer2, self.layer3, self.layer4 = (
            self._layer(block, width << i, count, 1 if i == 0 else 2) for i, count in enumerate(STAGES[depth])
        )
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def _layer(self, block: type[BasicBlock | Bottleneck], width: int, count: int, stride: int) -> nn.Sequential:
        blocks = []
        for i in range(count):
            blocks.append(block(self.channels, width, stride if i == 0 else 1))
            self.channels = width * block.expansion
        return nn.Sequential(*blocks)

    def forward(self, images: Float[Tensor, "n 3 H W"]) -> Float[Tensor, "n c h w"]:
        """Map normalised images to features at 1/32 of their size."""
        x = torch.relu(self.bn1(self.conv1(images)))
        x = nn.functional.max_pool2d(x, 3, 2, 1)
        return self.layer4(self.layer3(self.layer2(self.layer1(x))))


class HeatmapHead(nn.Module):
    """Three deconvolutions (4x4, stride 2) from 1/32 to 1/4 of the image, then a 1x1 convolution to J maps."""

    def __init__(self, channels: int, num_joints: int, width: int = 256) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for i in range(3):
            layers += [
                nn.ConvTranspose2d(channels if i == 0 else width, width, 4, 2, 1, bias=False),
                nn.BatchNorm2d(width),
                nn.ReLU(inplace=True),
            ]
        self.deconv_layers = nn.Sequential(*layers)
        self.final_layer = nn.Conv2d(width, num_joints, 1)
        self.width = width
        for module in self.modules():
            if isinstance(module, nn.ConvTranspose2d | nn.Conv2d):
                nn.init.normal_(module.weight, std=0.001)

    def forward(
        self, features: Float[Tensor, "n c h w"]
    ) -> tuple[Float[Tensor, "n width 8*h 8*w"], Float[Tensor, "n J 8*h 8*w"]]:
        """Return (features at 1/4 of the image, one raw map per joint)."""
        fine = self.deconv_layers(features)
        return fine, self.final_layer(fine)


def _shortcut(channels: int, width: int, stride: int) -> nn.Sequential | None:
    if stride == 1 and channels == width:
        return None
    return nn.Sequential(nn.Conv2d(channels, width, 1, stride, bias=False), nn.BatchNorm2d(width))

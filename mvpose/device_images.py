"""Images on the device that runs the networks, and cutting many at once from them.

The same rules as in `images`, as tensor operations: on a GPU, where a core of the host would take 0.4 ms a crop. Frames
go there as decoded, 1.5 bytes a pixel.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import groupby

import numpy as np
import torch
from jaxtyping import Float, Int, UInt8
from torch import Tensor

from mvpose.images import Image, Planes


@dataclass(frozen=True, eq=False)
class DeviceFrames:
    """Images of one size and one kind on a device: RGB, or luma with (blue, red) at half the size."""

    full: UInt8[Tensor, "F c H W"]
    """Three channels of RGB, or one of luma."""
    chroma: UInt8[Tensor, "F 2 h w"] | None = None
    conversion: Float[Tensor, "3 4"] | None = None
    """RGB from (luma, blue, red, 1)."""
    black: int = 0
    """The luma of black."""


@dataclass(frozen=True, eq=False)
class DeviceImage:
    """One of the images."""

    frames: DeviceFrames
    index: int

    @property
    def shape(self) -> tuple[int, int, int]:
        """(H, W, 3), as for the RGB image."""
        return (self.frames.full.shape[2], self.frames.full.shape[3], 3)


AnyImage = Image | DeviceImage


def uploaded(images: Sequence[Image], device: torch.device) -> list[DeviceImage]:
    """The images on the device, in as few copies as they have kinds in a row."""
    there: list[DeviceImage] = []
    for _, group in groupby(images, _kind):
        alike = list(group)
        frames = _frames(alike, device)
        there += [DeviceImage(frames, i) for i in range(len(alike))]
    return there


def _kind(image: Image) -> tuple[object, ...]:
    return (image.shape, image.black, image.conversion.tobytes()) if isinstance(image, Planes) else (image.shape,)


def _frames(images: Sequence[Image], device: torch.device) -> DeviceFrames:
    first = images[0]
    if not isinstance(first, Planes):
        rgb = [image for image in images if not isinstance(image, Planes)]
        return DeviceFrames(_stacked([[image] for image in rgb], device)[:, 0].permute(0, 3, 1, 2))
    planes = [image for image in images if isinstance(image, Planes)]
    return DeviceFrames(
        full=_stacked([[image.luma] for image in planes], device),
        chroma=_stacked([[image.blue, image.red] for image in planes], device),
        conversion=torch.from_numpy(first.conversion).float().to(device),
        black=first.black,
    )


def _stacked(
    images: Sequence[Sequence[UInt8[np.ndarray, "*shape"]]], device: torch.device
) -> UInt8[Tensor, "F c *shape"]:
    """The planes of images, all of one shape, in one copy from memory that the device reads by itself."""
    shape = (len(images), len(images[0]), *images[0][0].shape)
    host = torch.empty(shape, dtype=torch.uint8, pin_memory=device.type == "cuda")
    for rows, planes in zip(host.numpy(), images, strict=True):
        for row, plane in zip(rows, planes, strict=True):
            np.copyto(row, plane)
    return host.to(device, non_blocking=True)


def cut(
    images: Sequence[DeviceImage], affine: Float[np.ndarray, "N 2 3"], size: tuple[int, int]
) -> UInt8[Tensor, "N h w 3"]:
    """RGB of `size` (width, height), each warped through its `affine` (image to result); see `images.warped`.

    The maps may scale and shift, not turn: rows and columns are found apart.
    """
    scale, shift = affine[:, [0, 1], [0, 1]], affine[:, :, 2]
    return _by_frames(images, size, lambda frames, which, rows: _cut(frames, which, scale[rows], shift[rows], size))


def resized(images: Sequence[DeviceImage], size: tuple[int, int]) -> UInt8[Tensor, "N h w 3"]:
    """RGB of `size` (width, height), bilinear; see `images.resized`."""

    def one_kind(frames: DeviceFrames, which: Int[Tensor, " n"], _rows: list[int]) -> UInt8[Tensor, "n 3 h w"]:
        full = _fitted(frames.full, which, size)
        return _rgb(frames, full, None if frames.chroma is None else _fitted(frames.chroma, which, size))

    return _by_frames(images, size, one_kind)


def _by_frames(
    images: Sequence[DeviceImage],
    size: tuple[int, int],
    work: Callable[[DeviceFrames, Int[Tensor, " n"], list[int]], UInt8[Tensor, "n 3 h w"]],
) -> UInt8[Tensor, "N h w 3"]:
    """The results in the order of the images, worked out for all images of one `DeviceFrames` at once."""
    device = images[0].frames.full.device
    found = torch.empty((len(images), size[1], size[0], 3), dtype=torch.uint8, device=device)
    of_frames: dict[int, list[int]] = {}
    for row, image in enumerate(images):
        of_frames.setdefault(id(image.frames), []).append(row)
    for rows in of_frames.values():
        which = torch.tensor([images[row].index for row in rows], device=device)
        found[torch.tensor(rows, device=device)] = work(images[rows[0]].frames, which, rows).permute(0, 2, 3, 1)
    return found


def _cut(
    frames: DeviceFrames,
    which: Int[Tensor, " n"],
    scale: Float[np.ndarray, "n 2"],
    shift: Float[np.ndarray, "n 2"],
    size: tuple[int, int],
) -> UInt8[Tensor, "n 3 h w"]:
    full = _warped(frames.full, which, scale, shift, size, frames.black if frames.chroma is not None else 0)
    if frames.chroma is None:
        return full
    # A chroma sample is in the middle of its 2 x 2 pixels: pixel coordinates are 2 c + 0.5.
    return _rgb(frames, full, _warped(frames.chroma, which, 2 * scale, shift + scale / 2, size, 128))


def _rgb(
    frames: DeviceFrames, full: UInt8[Tensor, "n c h w"], chroma: UInt8[Tensor, "n 2 h w"] | None
) -> UInt8[Tensor, "n 3 h w"]:
    """Converted in OpenCV's whole numbers, 1024 to a grey level; in others, 3 of 100 values are off by one."""
    if chroma is None or frames.conversion is None:
        return full
    parts, shares = torch.cat([full, chroma], dim=1).int(), (1024 * frames.conversion).round().int()
    sums = (shares[:, :3, None, None] * parts[:, None]).sum(dim=2, dtype=torch.int32) + shares[:, 3, None, None]
    return ((sums + 512) >> 10).clamp(0, 255).to(torch.uint8)


def _warped(
    stack: UInt8[Tensor, "F c H W"],
    which: Int[Tensor, " n"],
    scale: Float[np.ndarray, "n 2"],
    shift: Float[np.ndarray, "n 2"],
    size: tuple[int, int],
    beyond: int,
) -> UInt8[Tensor, "n c h w"]:
    """Bilinear samples of one image each; `beyond` its edges."""
    x, y = (
        _taps((np.arange(length) - shift[:, axis, None]) / scale[:, axis, None], stack.shape[3 - axis], stack.device)
        for axis, length in enumerate(size)
    )
    return _bytes(_sampled(stack, which, x, y, beyond))


def _fitted(
    stack: UInt8[Tensor, "F c H W"], which: Int[Tensor, " n"], size: tuple[int, int]
) -> UInt8[Tensor, "n c h w"]:
    """Whole images in another size, in OpenCV's whole numbers: rounded otherwise, luma and chroma are off by 1, and RGB
    by up to 4. What is beyond the edge is as at the edge."""
    (x, across), (y, down) = (
        _whole_taps(stack.shape[3 - axis], length, stack.device) for axis, length in enumerate(size)
    )
    some = stack[which].int()
    rows = (some[..., x[0]] * across[0] + some[..., x[1]] * across[1]) >> 4
    upper, lower = (rows[..., y[i], :] * down[i][:, None] for i in range(2))
    return (((upper >> 16) + (lower >> 16) + 2) >> 2).to(torch.uint8)


def _whole_taps(own: int, length: int, device: torch.device) -> tuple[Int[Tensor, "2 k"], Int[Tensor, "2 k"]]:
    """The two pixels that each pixel of another size is between, and their shares in 1 / 2048."""
    at = ((np.arange(length) + 0.5) * (own / length) - 0.5).astype(np.float32)
    low = np.floor(np.clip(at, 0, own - 1))
    share = np.clip(at, 0, own - 1) - low
    index = np.stack([low, np.minimum(low + 1, own - 1)]).astype(np.int64)
    shares = np.rint(np.stack([1 - share, share]) * np.float32(2048)).astype(np.int32)
    return torch.from_numpy(index).to(device), torch.from_numpy(shares).to(device)


@dataclass(frozen=True, eq=False)
class _Taps:
    """Where samples along one axis fall: between two pixels, of which one may be beyond the edge."""

    index: Int[Tensor, "2 n k"]
    inside: Float[Tensor, "2 n k"]
    share: Float[Tensor, "2 n k"]


def _taps(at: Float[np.ndarray, "n k"], length: int, device: torch.device) -> _Taps:
    low = np.floor(at)
    index = np.stack([low, low + 1])
    share = np.stack([1 - (at - low), at - low])
    inside = (index >= 0) & (index < length)
    made = (np.clip(index, 0, length - 1).astype(np.int64), inside.astype(np.float32), share.astype(np.float32))
    return _Taps(*(torch.from_numpy(part).to(device) for part in made))


def _sampled(
    stack: UInt8[Tensor, "F c H W"], which: Int[Tensor, " n"], x: _Taps, y: _Taps, beyond: int
) -> Float[Tensor, "n c h w"]:
    found = torch.zeros((len(which), stack.shape[1], y.index.shape[2], x.index.shape[2]), device=stack.device)
    channels = torch.arange(stack.shape[1], device=stack.device)[None, :, None, None]
    for row in range(2):
        for column in range(2):
            at_y, at_x = y.index[row][:, None, :, None], x.index[column][:, None, None, :]
            there = y.inside[row][:, None, :, None] * x.inside[column][:, None, None, :]
            share = y.share[row][:, None, :, None] * x.share[column][:, None, None, :]
            value = stack[which[:, None, None, None], channels, at_y, at_x].float()
            found += share * (beyond + there * (value - beyond))
    return found


def _bytes(values: Float[Tensor, "*shape"]) -> UInt8[Tensor, "*shape"]:
    return values.round().clamp(0, 255).to(torch.uint8)

"""Cutting on a device against cutting in the host's memory, on CPU tensors."""

import numpy as np
import pytest
import torch

from mvpose import device_images
from mvpose.device_images import uploaded
from mvpose.images import Planes, conversion, resized, to_rgb, warped

CPU = torch.device("cpu")
RNG = np.random.default_rng(3)


def planes(width: int, height: int, *, full_range: bool = False) -> Planes:
    """Noise: every neighbour differs, so that a sample taken a pixel off cannot hide."""

    def noise(h: int, w: int) -> np.ndarray:
        return RNG.integers(0, 256, (h, w), dtype=np.uint8)

    black = 0 if full_range else 16
    matrix = conversion(0.2126, 0.0722, full_range=full_range)
    half = height // 2, width // 2
    return Planes(noise(height, width), noise(*half), noise(*half), matrix, black)


IMAGES = [planes(320, 240), planes(320, 240), planes(200, 300), planes(320, 240, full_range=True)]
WHICH = [0, 2, 1, 3, 0, 2]
SCALE = np.array([0.4, 0.7, 1.9, 1.0, 3.3, 0.25])
SHIFT = np.array([[-7.3, 11.8], [30.0, -60.5], [-200.1, -120.0], [0.0, 0.0], [-900.0, 20.2], [60.0, 100.0]])


def affines() -> np.ndarray:
    made = np.zeros((len(WHICH), 2, 3))
    made[:, 0, 0] = made[:, 1, 1] = SCALE
    made[:, :, 2] = SHIFT
    return made


@pytest.mark.parametrize("as_decoded", [True, False], ids=["as decoded", "RGB"])
def test_crops_are_those_of_the_host_within_a_grey_level(as_decoded):
    """Fails if chroma is half a pixel off, what is beyond the edge is not black, or an image is taken for another."""
    images = IMAGES if as_decoded else [to_rgb(image) for image in IMAGES]
    there, size = uploaded(images, CPU), (96, 128)
    found = device_images.cut([there[i] for i in WHICH], affines(), size).numpy()
    expected = np.stack([warped(images[i], affine, size) for i, affine in zip(WHICH, affines(), strict=True)])
    apart = np.abs(found.astype(int) - expected)
    # Where luma or chroma is rounded the other way, at half a grey level, RGB comes out up to 4 apart.
    assert apart.max() <= 4 and (apart > 1).mean() < 1e-3 and (apart > 0).mean() < 1e-2


@pytest.mark.parametrize("size", [(104, 78), (234, 416), (640, 500)])
@pytest.mark.parametrize("as_decoded", [True, False], ids=["as decoded", "RGB"])
def test_resized_images_are_those_of_the_host(as_decoded, size):
    # Noise; fails with the shares of pixels in floating-point numbers, which change an eighth of luma by a grey level.
    images = IMAGES if as_decoded else [to_rgb(image) for image in IMAGES]
    found = device_images.resized(uploaded(images, CPU), size).numpy()
    apart = np.abs(found.astype(int) - np.stack([resized(image, size) for image in images]))
    assert apart.max() <= 4 and (apart > 0).mean() < 5e-3


def test_images_of_one_kind_in_a_row_are_brought_in_one_copy():
    rgb = to_rgb(IMAGES[2])
    there = uploaded([IMAGES[0], IMAGES[1], IMAGES[2], IMAGES[3], rgb, rgb], CPU)
    assert [image.index for image in there] == [0, 1, 0, 0, 0, 1]
    assert len({id(image.frames) for image in there}) == 4
    assert [image.shape for image in there] == [(240, 320, 3)] * 2 + [(300, 200, 3), (240, 320, 3)] + [
        (300, 200, 3)
    ] * 2

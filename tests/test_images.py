"""Images as decoded against the RGB that the decoder's own library makes of them."""

import cv2
import numpy as np
import pytest
from av.video.frame import VideoFrame
from av.video.reformatter import ColorRange

from mvpose.footage.video import video_file
from mvpose.footage.video.frames import probe, read_images
from mvpose.footage.video.video_writer import write_video
from mvpose.images import Planes, resized, to_rgb, warped

SIZE = (320, 240)
BT709, UNKNOWN, BT601, BT2020 = 1, 2, 5, 9


def scenery(width: int = SIZE[0], height: int = SIZE[1]) -> np.ndarray:
    """Smooth in all channels, so that sampling of chroma matters little; every colour is there."""
    x, y = np.meshgrid(np.linspace(0, 3 * np.pi, width), np.linspace(0, 2 * np.pi, height))
    return np.stack([127 + 120 * f for f in (np.sin(x), np.cos(y), np.sin(x + y))], axis=-1).astype(np.uint8)


def frame(space: int = BT601, colour_range: int = ColorRange.MPEG, image: np.ndarray | None = None) -> VideoFrame:
    made = VideoFrame.from_ndarray(scenery() if image is None else image, format="rgb24").reformat(format="yuv420p")
    made.colorspace, made.color_range = space, colour_range
    return made


def planes_of(made: VideoFrame) -> Planes:
    found = video_file._planes(made, "x.mp4")
    assert found is not None
    return found


@pytest.mark.parametrize("colour_range", [ColorRange.UNSPECIFIED, ColorRange.MPEG, ColorRange.JPEG])
@pytest.mark.parametrize("space", [BT709, UNKNOWN, BT601])
def test_colours_are_those_of_the_library_that_converts_whole_frames(space, colour_range):
    # Fails by 20 grey levels and more if a matrix or range is taken for another.
    made = frame(space, colour_range)
    apart = np.abs(planes_of(made).rgb().astype(int) - made.to_ndarray(format="rgb24"))
    assert apart.max() <= 4 and apart.mean() < 1.5


def test_blue_and_red_side_by_side_are_the_same_image():
    # As decoders of GPUs leave it. Fails if one is taken for the other, or rows are cut at half of their bytes.
    made = frame()
    interleaved = made.reformat(format="nv12")
    interleaved.colorspace, interleaved.color_range = made.colorspace, made.color_range
    apart, side_by_side = planes_of(made), planes_of(interleaved)
    for name in ("luma", "blue", "red"):
        np.testing.assert_array_equal(getattr(side_by_side, name), getattr(apart, name))


def test_what_planes_cannot_hold_is_rgb():
    odd = VideoFrame.from_ndarray(scenery(321), format="rgb24").reformat(format="yuv420p")
    half = VideoFrame.from_ndarray(scenery(), format="rgb24").reformat(format="yuv422p")
    assert [video_file._planes(made, "x.mp4") for made in (odd, half, frame(BT2020))] == [None] * 3


@pytest.mark.parametrize("affine", [[[0.4, 0.0, -7.3], [0.0, 0.4, 11.8]], [[1.7, 0.0, 60.0], [0.0, 1.7, -120.0]]])
def test_crops_of_planes_are_crops_of_rgb(affine):
    """Fails if chroma is shifted by half a pixel, or what is beyond the edge is not black."""
    made, size = frame(), (192, 256)
    image, affine = planes_of(made), np.array(affine)
    apart = np.abs(warped(image, affine, size).astype(int) - warped(image.rgb(), affine, size))
    assert apart.mean() < 0.8 and np.percentile(apart, 99) <= 3
    # Chroma ends half a pixel of its own beyond the edge.
    shown = cv2.warpAffine(np.full((SIZE[1], SIZE[0]), 255, np.uint8), affine, size)
    beyond = cv2.dilate(shown, np.ones((5, 5), np.uint8)) == 0
    assert beyond.any() and not warped(image, affine, size)[beyond].any()


def test_resized_planes_are_resized_rgb():
    image = planes_of(frame())
    apart = np.abs(resized(image, (104, 78)).astype(int) - resized(image.rgb(), (104, 78)))
    assert apart.mean() < 1 and np.percentile(apart, 99) <= 6


def test_an_image_stays_valid_when_later_ones_are_decoded(tmp_path):
    # Fails if planes are read from memory that the decoder writes into again.
    path = str(tmp_path / "a.mp4")
    write_video(path, [np.roll(scenery(), 7 * i, axis=1) for i in range(60)], 30.0)
    video = probe(path, "a")
    images = read_images(video, 0, 60)
    kept = [next(images) for _ in range(8)]
    before = [to_rgb(image) for image in kept]
    list(images)
    for image, earlier in zip(kept, before, strict=True):
        np.testing.assert_array_equal(to_rgb(image), earlier)

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mvpose.report.mosaic import Region, lay_out

sizes = st.lists(st.tuples(st.integers(16, 4096), st.integers(16, 4096)), min_size=1, max_size=31)


def _whole(images: list[tuple[int, int]]) -> list[Region]:
    return [Region(0, 0, width, height) for width, height in images]


@given(sizes, st.sampled_from([0, 40]))
def test_tiles_lie_apart_inside_a_canvas_of_even_size_within_the_limit(images, header):
    mosaic = lay_out(_whole(images), (1920, 1080), header)
    assert mosaic.size[0] <= 1920 and mosaic.size[1] <= 1080
    assert mosaic.size[0] % 2 == 0 and mosaic.size[1] % 2 == 0
    taken = np.zeros((*mosaic.size[::-1], 3), dtype=np.uint8)
    for tile in mosaic.tiles:
        assert tile.left >= 0 and tile.top >= header
        assert tile.left + tile.width <= mosaic.size[0] and tile.top + tile.height <= mosaic.size[1]
        tile.cut(taken)[:] += 1
    assert taken.max() == 1


@given(sizes)
def test_images_keep_their_shape_and_are_never_enlarged(images):
    mosaic = lay_out(_whole(images), (1920, 1080))
    for (width, height), tile in zip(images, mosaic.tiles, strict=True):
        # The longer side tells the scale best: both are whole numbers.
        scale = tile.width / width if width > height else tile.height / height
        assert scale <= 1.0
        assert abs(tile.width - width * scale) <= 1.0 and abs(tile.height - height * scale) <= 1.0


@pytest.mark.parametrize(
    ("image", "columns"), [((1088, 1920), 4), ((1920, 1080), 2)], ids=["portrait in a row", "landscape in a square"]
)
def test_four_cameras_fill_the_canvas(image, columns):
    mosaic = lay_out(_whole([image] * 4), (1920, 1080), header=40)
    assert len({tile.left for tile in mosaic.tiles}) == columns
    assert sum(tile.width * tile.height for tile in mosaic.tiles) > 0.75 * 1920 * 1040


def test_a_pixel_goes_where_its_content_goes():
    image = np.zeros((240, 320, 3), dtype=np.uint8)
    image[100:104, 200:204] = 255
    shown = Region(40, 20, 240, 200)
    mosaic = lay_out([shown, Region(0, 0, 320, 240)], (240, 400))
    canvas = np.zeros((*mosaic.size[::-1], 3), dtype=np.uint8)
    for view in (0, 1):
        mosaic.paste(canvas, view, image)
        weight = mosaic.tiles[view].cut(canvas)[..., 0].astype(float)
        rows, columns = np.indices(weight.shape)
        found = np.array([(weight * columns).sum(), (weight * rows).sum()]) / weight.sum()
        np.testing.assert_allclose(mosaic.to_tile(view, np.array([201.5, 101.5])), found, atol=0.05)

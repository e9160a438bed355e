import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from mvpose.images import warped
from mvpose.models.detection.joint_network import PADDING, crop_from_image, to_image

SIZE = (192, 256)
CORNER = st.tuples(st.floats(-200, 1900), st.floats(-200, 1900))
EXTENT = st.tuples(st.floats(4, 1500), st.floats(4, 1500))
BOXES = st.lists(st.tuples(CORNER, EXTENT).map(lambda b: [*b[0], b[0][0] + b[1][0], b[0][1] + b[1][1]]), min_size=1)


@given(boxes=BOXES, point=st.tuples(st.floats(-500, 2500), st.floats(-500, 2500)))
def test_cropping_and_going_back_is_the_identity(boxes, point):
    affine = crop_from_image(np.array(boxes), SIZE)
    in_crop = affine[:, :, :2] @ np.array(point) + affine[:, :, 2]
    back = to_image(in_crop[:, None], affine)
    assert np.allclose(back[:, 0], point, atol=1e-8)


@given(boxes=BOXES)
def test_the_grown_box_fills_the_crop_in_one_direction_and_keeps_its_shape(boxes):
    boxes = np.array(boxes)
    affine = crop_from_image(boxes, SIZE)
    corners = [affine[:, :, :2] @ b[..., None] + affine[:, :, 2:] for b in (boxes[:, :2], boxes[:, 2:])]
    assert np.allclose((corners[0] + corners[1])[..., 0] / 2, [96, 128])
    share = (corners[1] - corners[0])[..., 0] * PADDING / SIZE
    assert np.allclose(share.max(axis=-1), 1)
    assert np.allclose(affine[:, 0, 0], affine[:, 1, 1]) and not affine[:, [0, 1], [1, 0]].any()


@given(place=st.tuples(st.integers(120, 280), st.integers(120, 280)))
def test_a_dot_is_found_in_the_crop_where_the_map_says(place):
    image = np.zeros((400, 400, 3), dtype=np.uint8)
    image[place[1], place[0]] = 255
    # The box is smaller than the crop: the dot grows to a spot whose middle is exact.
    affine = crop_from_image(np.array([[140.0, 130.0, 260.0, 270.0]]), SIZE)[0]
    crop = warped(image, affine, SIZE)[..., 0].astype(float)
    expected = affine[:, :2] @ np.array(place) + affine[:, 2]
    if not (2 < expected[0] < 189 and 2 < expected[1] < 253):
        return
    rows, columns = np.indices(crop.shape)
    middle = np.array([(columns * crop).sum(), (rows * crop).sum()]) / crop.sum()
    assert np.abs(middle - expected).max() < 0.1


def test_beyond_the_image_is_black():
    image = np.full((100, 100, 3), 255, dtype=np.uint8)
    affine = crop_from_image(np.array([[60.0, 20.0, 140.0, 80.0]]), SIZE)[0]
    crop = warped(image, affine, SIZE)
    assert crop[128, 20].tolist() == [255, 255, 255]
    assert crop[128, 180].tolist() == [0, 0, 0]

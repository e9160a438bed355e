"""Images of what is known: a ball where it must be, a lens that bends as the stored camera says."""

import numpy as np
import pytest
import torch

from mvpose.geometry.camera import CameraRig
from mvpose.geometry.lens import Lens, LensModel
from mvpose.rendering import renderer as module
from mvpose.rendering.camera_rigs import finer, random_rig, rig_of
from mvpose.rendering.renderer import Exposure, Lights, RenderingError, renderer
from mvpose.rendering.surfaces import Paint, box, joined, patterns, quad
from tests.rendering.mannequin import ball, person_of

UP = np.array([0.0, 0.0, 1.0])
EXPOSURE = Exposure(gain=np.ones(3), contrast=0.0)
BLACK = np.zeros(3)


def lights(direction=(0.0, 0.0, 1.0), **changes) -> Lights:
    given = {
        "key_direction": np.asarray(direction) / np.linalg.norm(direction),
        "key_colour": np.ones(3),
        "fill_direction": UP,
        "fill_colour": np.zeros(3),
        "sky_colour": np.full(3, 0.3),
        "ground_colour": np.full(3, 0.3),
    }
    return Lights(**(given | changes))


def plain(shade: float) -> Paint:
    return Paint(first=(shade, shade, shade), second=(shade, shade, shade))


def no_image(key: str) -> np.ndarray:
    raise AssertionError(f"{key}: nothing here has a texture")


FLOOR = quad((-5.0, -5.0, 0.0), (10.0, 0.0, 0.0), (0.0, 10.0, 0.0), plain(0.5))


def camera(place=(3.0, 0.0, 1.0), target=(0.0, 0.0, 1.0), focal=300.0, lens=(0.0,) * 4, side=256) -> CameraRig:
    return rig_of(np.array([place]), np.array([target]), np.array([focal]), np.array([lens]), np.array([[side, side]]))


def with_lens(rig: CameraRig, model: LensModel, coefficients: list[float]) -> CameraRig:
    return CameraRig(rig.names, rig.focal, rig.centre, Lens.of(model, [coefficients]), rig.camera_from_world, rig.size)


def test_a_ball_is_where_the_camera_projects_it_and_as_far_as_it_is():
    gl = renderer()
    gl.stage(FLOOR, [person_of([ball((0.0, 0.3, 1.2), 0.1)], np.zeros((1, 3)))], lights(), no_image)
    rig = camera()
    image, depth = gl.image(rig, 0, EXPOSURE, [0], BLACK)
    (pixel,), _ = rig.project(torch.tensor([0.0, 0.3, 1.2], dtype=torch.float64))
    column, row = pixel.round().long().tolist()
    assert depth[row, column] == pytest.approx(2.9, abs=0.01)
    assert image[row, column, 0] > image[row, column, 2] + 20
    assert np.isinf(depth[0, 0])


@pytest.mark.parametrize(
    ("model", "coefficients"),
    [
        (LensModel.BROWN_CONRADY, [-0.3, 0.1, 0.004, -0.003, 0.01, 0.02, 0.01, 0.001, 0.002, 0.001, -0.002, 0.001]),
        (LensModel.KANNALA_BRANDT, [0.05, -0.02, 0.004, -0.001]),
        (LensModel.HUMAN36M, [-0.25, 0.2, 0.004, -0.003, -0.01]),
    ],
)
def test_every_lens_bends_the_image_as_the_camera_says_to_a_tenth_of_a_pixel(model, coefficients):
    gl, rig = renderer(), with_lens(camera(side=400, focal=330.0), model, coefficients)
    points = np.array([(0.0, y, z) for y in (-1.2, -0.4, 0.9, 1.4) for z in (0.0, 0.6, 1.9)])
    gl.stage(
        quad((50.0, 0.0, 0.0), (1.0, 0.0, 0.0), (0.0, 1.0, 0.0), plain(0.0)),
        [person_of([ball(p, 0.03)], points, (1.0, 1.0, 1.0)) for p in points],
        lights(sky_colour=np.full(3, 5.0), ground_colour=np.full(3, 5.0)),
        no_image,
    )
    pixels, seen = rig.project(torch.from_numpy(points))
    assert seen.all() and rig.inside(pixels).all()
    for i in range(len(points)):
        # A tenth of a pixel is told by pixels a quarter as wide.
        _, depth = gl.image(finer(rig, 4), 0, EXPOSURE, [i], BLACK)
        rows, columns = np.nonzero(np.isfinite(depth))
        found = (np.array([columns.mean(), rows.mean()]) + 0.5) / 4 - 0.5
        # A ball's outline is no circle off the axis: its middle is off by (radius / distance)^2, far below a tenth.
        assert np.abs(found - pixels[0, i].numpy()).max() < 0.1


def test_a_person_casts_a_shadow_on_the_floor_away_from_the_light():
    gl = renderer()
    gl.stage(FLOOR, [person_of([ball((0.0, 0.0, 1.0), 0.3)], np.zeros((1, 3)))], lights((0.0, 1.0, 1.0)), no_image)
    image, _ = gl.image(camera(place=(0.1, 0.0, 6.0), target=(0.0, 0.0, 0.0)), 0, EXPOSURE, [], BLACK)
    rig = camera(place=(0.1, 0.0, 6.0), target=(0.0, 0.0, 0.0))
    spots = torch.tensor([[0.0, -1.0, 0.0], [0.0, 1.0, 0.0]], dtype=torch.float64)
    (shaded, lit) = (int(image[r, c, 0]) for c, r in rig.project(spots)[0][0].round().long().tolist())
    assert shaded < 0.75 * lit


def test_a_room_is_seen_from_within_and_through_its_walls_from_without():
    gl = renderer()
    white = plain(0.9)
    gl.stage(box((0.0, 0.0, 0.0), (4.0, 4.0, 3.0), 0.3, white, inward=True), [_nobody()], lights(), no_image)
    for distance in (1.0, 8.0):
        _, depth = gl.image(camera(place=(distance, 0.0, 1.0)), 0, EXPOSURE, [], BLACK)
        assert depth[128, 128] == pytest.approx(distance + 2.0 / np.cos(0.3), abs=0.02)


def test_images_of_one_scene_are_the_same_bits_twice():
    gl, rig = renderer(), random_rig(np.random.default_rng(3), 2)
    rig = rig.resized(torch.full((2, 2), 0.1, dtype=torch.float64), torch.tensor([[192, 108]] * 2))
    made = []
    for _ in range(2):
        gl.stage(FLOOR, [person_of([ball((0.0, 0.0, 1.0), 0.3)], np.zeros((1, 3)))], lights(), no_image)
        made.append(gl.image(rig, 1, EXPOSURE, [0], BLACK)[0].copy())
    assert made[0].std() > 5 and np.array_equal(*made)


def test_textures_lie_the_right_way_up():
    gl = renderer()
    texture = np.zeros((4, 4, 4), np.uint8)
    texture[:2, :, 0] = texture[2:, :, 2] = texture[..., 3] = 255
    vertices = np.array([[0, 0.5, 0.5], [0, -0.5, 0.5], [0, -0.5, 1.5], [0, 0.5, 1.5]], np.float32)
    person = person_of([(vertices, np.tile([1.0, 0, 0], (4, 1)), np.array([[0, 2, 1], [0, 3, 2]]))], np.zeros((1, 3)))
    part = person.parts[0]
    uv = np.array([[0, 0], [1, 0], [1, 1], [0, 1]], np.float32)
    textured = module.PosedPerson(
        (type(part)("body", part.faces, uv, "flag", (1.0, 1.0, 1.0), True),),
        person.vertices,
        person.normals,
        person.joints,
    )
    gl.stage(FLOOR, [textured], lights(), lambda key: texture)
    image, _ = gl.image(camera(), 0, EXPOSURE, [0], BLACK)
    above, below = image[100, 128].astype(int), image[156, 128].astype(int)
    assert above[0] > above[2] + 50 and below[2] > below[0] + 50


def test_the_library_of_patterns_is_the_same_always_and_each_shows_something():
    layers = patterns()
    assert np.array_equal(layers, patterns()) and all(layer.std() > 8 for layer in layers)


def test_joined_surfaces_keep_their_corners():
    both = joined([FLOOR, box((1.0, 2.0, 0.0), (0.5, 0.4, 0.3), 0.0, plain(0.0))])
    last = both.vertices[both.faces[len(FLOOR.faces) :]].reshape(-1, 3)
    np.testing.assert_allclose([last.min(axis=0), last.max(axis=0)], [[0.75, 1.8, 0.0], [1.25, 2.2, 0.3]])
    a, b, c = (both.vertices[both.faces[:, i]] for i in range(3))
    assert (np.einsum("fi,fi->f", np.cross(b - a, c - a), both.normals[both.faces[:, 0]]) > 0).all()


def test_without_egl_one_sentence_says_what_to_install(monkeypatch):
    monkeypatch.setattr(module, "find_library", lambda name: None)
    with pytest.raises(RenderingError, match=r"libEGL.*apt-get install libegl1 libegl-mesa0 libgl1-mesa-dri"):
        module.require_opengl()


def _nobody():
    return person_of([ball((0.0, 0.0, -50.0), 0.1)], np.zeros((1, 3)))

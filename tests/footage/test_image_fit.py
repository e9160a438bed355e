import os
from dataclasses import replace

import cv2
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mvpose.errors import CalibrationError
from mvpose.footage.calibration import read_calibration
from mvpose.footage.image_fit import ImageFit, fit_rig, measured_bars, place_image
from mvpose.footage.video.frames import probe
from mvpose.geometry.camera import CameraRig
from mvpose.geometry.image_turns import image_turned
from mvpose.geometry.lens import Lens, LensModel
from mvpose.geometry.rigid import Rigid
from mvpose.records import Video

SIZE = (192, 144)
POINTS = torch.tensor(np.random.default_rng(1).uniform([-0.4, -0.3, 2.0], [0.4, 0.3, 3.0], (30, 3)))


def rig_of(size=SIZE, models=(LensModel.BROWN_CONRADY,)) -> CameraRig:
    count = len(models)
    lens = torch.tensor([0.05, -0.1, 0.01, -0.02, 0.03, 0.01, 0, 0, 0.01, -0.02, 0.03, 0.015], dtype=torch.float64)
    fisheye = torch.cat([lens[:2] * 0.1, torch.zeros(10, dtype=torch.float64)])
    rows = [fisheye if m == LensModel.KANNALA_BRANDT else lens for m in models]
    vector = torch.tensor([[0.1, -0.2, 0.05]], dtype=torch.float64).expand(count, 3)
    return CameraRig(
        names=tuple(f"c{i}" for i in range(count)),
        focal=torch.tensor([[200.0, 210.0]], dtype=torch.float64).expand(count, 2),
        centre=torch.tensor([[size[0] * 0.52, size[1] * 0.47]], dtype=torch.float64).expand(count, 2),
        lens=Lens(tuple(models), torch.stack(rows)),
        camera_from_world=Rigid.from_rotation_vector(vector, 0.3 * vector),
        size=torch.tensor([size]).expand(count, 2),
    )


def images(folder, image: np.ndarray) -> Video:
    """Three frames of one image, in a folder."""
    os.makedirs(folder, exist_ok=True)
    for i in range(3):
        cv2.imwrite(os.path.join(folder, f"{i}.png"), image[..., ::-1])
    return probe(str(folder), "c0", fps=30.0)


def textured(size: tuple[int, int]) -> np.ndarray:
    return np.random.default_rng(0).integers(60, 255, (size[1], size[0], 3)).astype(np.uint8)


def fitted(video: Video, fit=ImageFit.AUTO, rig: CameraRig | None = None, turns: int = 0):
    rig, sentences = fit_rig(rig or rig_of(), (video,), (fit,), (turns,))
    assert rig.size.tolist() == [list(video.size)]
    return rig, " ".join(sentences)


def test_a_image_of_the_right_size_is_left_alone(tmp_path):
    rig, said = fitted(images(tmp_path, textured(SIZE)))
    assert said == "" and torch.equal(rig.intrinsics, rig_of().intrinsics)


@pytest.mark.parametrize("size", [(96, 72), (384, 288), (100, 75), (98, 74)])
def test_the_same_aspect_is_a_scaled_image(size, tmp_path):
    rig, said = fitted(images(tmp_path, textured(size)))
    scale = torch.tensor([size[0] / SIZE[0], size[1] / SIZE[1]])
    torch.testing.assert_close(rig.project(POINTS)[0], (rig_of().project(POINTS)[0] + 0.5) * scale - 0.5)
    assert "scaled" in said


@pytest.mark.parametrize("size", [(180, 144), (192, 160), (96, 96)])
def test_bars_of_the_right_width_are_a_letterbox(size, tmp_path):
    scale = min(size[0] / SIZE[0], size[1] / SIZE[1])
    inner = (round(SIZE[0] * scale), round(SIZE[1] * scale))
    left, top = (size[0] - inner[0]) // 2, (size[1] - inner[1]) // 2
    image = np.zeros((size[1], size[0], 3), np.uint8)
    image[top : top + inner[1], left : left + inner[0]] = textured(inner)
    rig, said = fitted(images(tmp_path, image))
    offset = torch.tensor([(size[0] - SIZE[0] * scale) / 2, (size[1] - SIZE[1] * scale) / 2])
    torch.testing.assert_close(rig.project(POINTS)[0], (rig_of().project(POINTS)[0] + 0.5) * scale - 0.5 + offset)
    assert "bars" in said and "measured" in said


@pytest.mark.parametrize(("size", "scale"), [((180, 144), 1.0), ((192, 120), 1.0), ((96, 60), 0.5)])
def test_no_bars_are_a_image_cut_at_the_centre(size, scale, tmp_path):
    rig, said = fitted(images(tmp_path, textured(size)))
    offset = torch.tensor([(size[0] - SIZE[0] * scale) / 2, (size[1] - SIZE[1] * scale) / 2])
    torch.testing.assert_close(rig.project(POINTS)[0], (rig_of().project(POINTS)[0] + 0.5) * scale - 0.5 + offset)
    assert "cropped at the centre" in said


def test_no_rule_is_an_error_that_names_the_sizes_and_the_settings(tmp_path):
    too_narrow = images(tmp_path / "a", textured((60, 144)))
    larger = images(tmp_path / "b", textured((192, 150)))
    dark = textured((180, 144))
    dark[:40] = dark[-40:] = 3
    for video in (too_narrow, larger, images(tmp_path / "c", dark)):
        with pytest.raises(CalibrationError, match="image_fit") as error:
            fitted(video)
        assert f"{video.size[0]}x{video.size[1]}" in str(error.value) and "192x144" in str(error.value)
        for fit in (ImageFit.SCALE, ImageFit.LETTERBOX, ImageFit.CROP):
            fitted(video, fit)


@pytest.mark.parametrize("size", [(96, 72), (180, 144), (192, 160), (60, 144)])
@pytest.mark.parametrize("fit", [ImageFit.SCALE, ImageFit.LETTERBOX, ImageFit.CROP])
def test_what_is_set_is_done_to_a_image_as_resizing_does_it(fit, size):
    """A bright dot is followed through cv2.resize and padding or slicing."""
    video = Video("c0", "", 30.0, 1, size)
    place = place_image(SIZE, video, fit)
    dots = [(40, 50), (96, 71), (120, 90)]
    for x, y in dots:
        image = np.zeros((SIZE[1], SIZE[0]), np.float32)
        image[y - 2 : y + 3, x - 2 : x + 3] = 1.0
        inner = [round(SIZE[i] * place.scale[i]) for i in (0, 1)]
        small = cv2.resize(image, inner, interpolation=cv2.INTER_AREA)
        offset = [round(o) for o in place.offset]
        rows, columns = np.mgrid[: inner[1], : inner[0]]
        seen = np.array([(small * columns).sum(), (small * rows).sum()]) / small.sum() + offset
        reported = [(c + 0.5) * place.scale[i] - 0.5 + place.offset[i] for i, c in enumerate((x, y))]
        assert np.abs(seen - reported).max() < 0.6


def test_a_turned_image_needs_a_stated_turn(tmp_path):
    video = images(tmp_path / "whole", textured((SIZE[1], SIZE[0])))
    with pytest.raises(CalibrationError, match="turn_90 or turn_270"):
        fitted(video)
    rig, said = fitted(video, ImageFit.TURN_270)
    assert "turned by 270" in said
    half = images(tmp_path / "half", textured((SIZE[1] // 2, SIZE[0] // 2)))
    with pytest.raises(CalibrationError, match="turn_90 or turn_270"):
        fitted(half)
    assert "scaled by 0.5" in fitted(half, ImageFit.TURN_90)[1]
    stated, _ = fitted(video, turns=3)
    torch.testing.assert_close(rig.project(POINTS)[0], stated.project(POINTS)[0])


def test_a_turn_that_the_calibration_states_is_not_applied_to_a_image_as_recorded(tmp_path):
    rig, said = fitted(images(tmp_path, textured(SIZE)), turns=1)
    assert said == "" and torch.equal(rig.intrinsics, rig_of().intrinsics)


MODELS = (LensModel.BROWN_CONRADY, LensModel.KANNALA_BRANDT, LensModel.HUMAN36M)


@settings(max_examples=20, deadline=None)
@given(camera=st.integers(0, 2), turns=st.integers(0, 3))
def test_a_turned_rig_sees_the_turned_pixel_and_leaves_the_others_alone(camera, turns):
    rig = rig_of(models=MODELS)
    before, after = rig.project(POINTS)[0].clone(), image_turned(rig, camera, turns).project(POINTS)[0]
    width, height = SIZE
    for _ in range(turns):
        before[camera] = torch.stack([height - 1 - before[camera, :, 1], before[camera, :, 0]], dim=-1)
        width, height = height, width
    torch.testing.assert_close(after, before)
    assert image_turned(rig, camera, turns).size[camera].tolist() == [width, height]


def test_four_turns_are_none():
    rig = rig_of(models=MODELS)
    back = image_turned(image_turned(rig, 0, 3), 0, 1)
    torch.testing.assert_close(back.lens.coefficients, rig.lens.coefficients)
    torch.testing.assert_close(back.camera_from_world.matrix(), rig.camera_from_world.matrix())


def test_turned_pixels_are_numpy_s_rot90():
    image = np.arange(12).reshape(3, 4)
    for y in range(3):
        for x in range(4):
            assert np.rot90(image, -1)[x, 3 - 1 - y] == image[y, x]


def test_an_unstated_size_is_the_video_s_if_the_principal_point_agrees(tmp_path):
    unsized = replace(rig_of(), size=torch.zeros(1, 2, dtype=torch.int64))
    rig, said = fitted(images(tmp_path / "a", textured(SIZE)), rig=unsized)
    assert "states no image size" in said and torch.equal(rig.intrinsics, rig_of().intrinsics)
    with pytest.raises(CalibrationError, match="another size"):
        fitted(images(tmp_path / "b", textured((960, 720))), rig=unsized)


@pytest.mark.footage
def test_the_demo_s_narrow_videos_are_letterboxed_by_the_known_amount(footage):
    folder = os.path.join(footage, "Demo_SinglePerson")
    rig = read_calibration(os.path.join(folder, "calibration", "Calib_scene.toml"))
    videos = tuple(probe(os.path.join(folder, "videos", f"cam0{i}.mp4"), f"cam0{i}") for i in (1, 2, 3, 4))
    fitted, said = fit_rig(rig, videos, (ImageFit.AUTO,) * 4, (0,) * 4)
    assert len(said) == 2 and all("bars of 7.06 px" in s for s in said)
    pixels, original = fitted.project(POINTS)[0], rig.project(POINTS)[0]
    for i in (0, 1):
        back = torch.stack([pixels[i, :, 0] * 1088 / 1080, (pixels[i, :, 1] - 7.06) * 1088 / 1080], dim=-1)
        assert (back - original[i]).abs().max() < 0.01
    assert torch.equal(pixels[2:], original[2:])


def test_a_dark_first_frame_does_not_decide(tmp_path):
    image = np.zeros((160, 192, 3), np.uint8)
    video = images(tmp_path, image)
    image[8:-8] = textured(SIZE)
    cv2.imwrite(os.path.join(tmp_path, "1.png"), image)
    assert measured_bars(video, 1, 8.0) == (8, 8)
    with pytest.raises(CalibrationError, match="160 and 160 black rows"):
        fitted(images(tmp_path, 0 * image))


@pytest.mark.footage
def test_bars_are_measured_to_a_row_or_two(footage):
    narrow = probe(os.path.join(footage, "Demo_SinglePerson/videos/cam01.mp4"), "cam01")
    assert measured_bars(narrow, 1, 7.06) == pytest.approx((7, 7), abs=1)
    full = probe(os.path.join(footage, "Demo_SinglePerson/videos/cam03.mp4"), "cam03")
    assert measured_bars(full, 1, 7.0) == measured_bars(full, 0, 7.0) == (0, 0)

"""Whole samples, with people of balls and sticks: exact, the same again, and with what hides a person where it does."""

import io
from dataclasses import dataclass, replace

import cv2
import numpy as np
import pytest
import torch

from mvpose.datasets.sample import TEST, TRAIN
from mvpose.errors import ConfigError
from mvpose.geometry.rigid import Rigid
from mvpose.rendering import scene as module
from mvpose.rendering.camera_rigs import finer, static_rig
from mvpose.rendering.mesh import PosedPerson
from mvpose.rendering.renderer import Exposure, renderer
from mvpose.rendering.room import draw_room
from mvpose.rendering.scene import ImageConfig, scene_people
from mvpose.skeleton import HALPE26
from tests.rendering.mannequin import mannequin, markers
from tests.rendering.test_renderer import lights, no_image

SMALL = ImageConfig(side=96)


@dataclass(frozen=True)
class Walker:
    """A mannequin in the middle of a step."""

    frame: int
    subject: str = "mannequin"
    action: str = "walk"

    def at(self, seconds: float) -> PosedPerson:
        """It glides forward at 2 m/s."""
        person = mannequin(frame=self.frame)
        shift = np.array([2.0 * seconds, 0.0, 0.0], np.float32)
        return replace(person, vertices=(person.vertices[0] + shift,), joints=person.joints + shift)


class Mannequins:
    """A cast of walkers."""

    skeleton = HALPE26

    def draw(self, rng: np.random.Generator, split: str) -> Walker:
        """One of them."""
        return Walker(int(rng.integers(20)))

    def image(self, key: str) -> np.ndarray:
        """They have none."""
        return no_image(key)


def images(sample) -> list[np.ndarray]:
    return [np.array(cv2.imdecode(np.frombuffer(p.crop, np.uint8), cv2.IMREAD_COLOR_RGB)) for p in sample.images]


def test_a_sample_follows_from_its_number_and_no_two_are_alike():
    first, again, other, tested = (
        scene_people(5, split, i, Mannequins(), 3, SMALL)[0]
        for split, i in ((TRAIN, 7), (TRAIN, 7), (TRAIN, 8), (TEST, 7))
    )
    assert first.images == again.images and np.array_equal(first.xyz, again.xyz)
    assert torch.equal(first.rig.projections, again.rig.projections)
    for sample in (other, tested):
        assert not np.array_equal(first.xyz, sample.xyz) and first.images[0].crop != sample.images[0].crop


def test_crops_hold_their_person_and_boxes_their_joints():
    for index in range(4):
        (sample,) = scene_people(1, TRAIN, index, Mannequins(), 4, SMALL)
        pixels, seen = sample.rig.project(torch.from_numpy(sample.xyz))
        assert seen.all() and len(sample.rig) >= 2
        for image, box, points, visible in zip(images(sample), sample.box, pixels.numpy(), sample.visible, strict=True):
            assert image.shape == (96, 96, 3)
            assert (points[visible] >= box[:2] - 1e-6).all() and (points[visible] <= box[2:] + 1e-6).all()
            np.testing.assert_allclose((box[2:] - box[:2]).max(), 64.0, atol=1e-6)


def test_joints_reproject_onto_rendered_markers_to_a_tenth_of_a_pixel():
    """Through the lens of the stored camera; the markers are drawn alone, so that nothing hides them."""
    gl = renderer()
    (sample,) = scene_people(2, TRAIN, 3, Mannequins(), 4, SMALL)
    person = replace(mannequin(), joints=sample.xyz.astype(np.float32))
    room = draw_room(np.random.default_rng(0), [person.joints], sample.rig.centres_world.numpy())
    behind = replace(room.surfaces, vertices=room.surfaces.vertices - [0.0, 0.0, 500.0])
    gl.stage(behind, markers(person), lights(), no_image)
    assert sample.rig.lens.coefficients.abs().max() > 0.01
    pixels, _ = sample.rig.project(torch.from_numpy(sample.xyz))
    errors = []
    for view in range(len(sample.rig)):
        for joint in np.flatnonzero(sample.visible[view]):
            _, depth = gl.image(finer(sample.rig, 8), view, Exposure(gain=np.ones(3)), [int(joint)], np.zeros(3))
            rows, columns = np.nonzero(np.isfinite(depth))
            found = (np.array([columns.mean(), rows.mean()]) + 0.5) / 8 - 0.5
            errors.append(np.abs(found - pixels[view, joint].numpy()).max())
    assert len(errors) > 20 and max(errors) < 0.1


def test_motion_is_blurred_about_the_moment_that_the_labels_tell(monkeypatch):
    (still,) = scene_people(1, TRAIN, 0, Mannequins(), 2, SMALL)
    monkeypatch.setattr(module, "_shutter", lambda rng: (rng.uniform(), [-0.1, 0.0, 0.1])[1])
    (blurred,) = scene_people(1, TRAIN, 0, Mannequins(), 2, SMALL)
    monkeypatch.setattr(module, "_shutter", lambda rng: (rng.uniform(), [0.0])[1])
    (sharp,) = scene_people(1, TRAIN, 0, Mannequins(), 2, SMALL)
    assert np.array_equal(blurred.xyz, sharp.xyz) and np.array_equal(still.xyz, sharp.xyz)
    edges = [np.abs(np.diff(images(s)[0].astype(float), axis=1)).mean() for s in (blurred, sharp)]
    assert edges[0] < edges[1]


def test_a_rig_somewhere_else_finds_its_people_there():
    """The world of a user's calibration need not begin where the people are."""
    rig = static_rig("ring4")
    shift = Rigid(torch.eye(3, dtype=torch.float64), torch.tensor([20.0, -7.0, 0.0], dtype=torch.float64))
    (sample,) = scene_people(1, TRAIN, 0, Mannequins(), rig.moved(shift.inverse()), SMALL)
    assert sample.rig.names == rig.names
    np.testing.assert_allclose(sample.xyz.mean(axis=0)[:2], [20.0, -7.0], atol=1.5)


def test_a_rig_that_looks_at_the_sky_is_refused_with_what_to_check():
    up = torch.tensor([[1.0, 0.0, 0.0], [0.0, -1.0, 0.0], [0.0, 0.0, -1.0]], dtype=torch.float64)
    rig = static_rig("ring4").moved(Rigid(up, torch.tensor([0.0, 0.0, -40.0], dtype=torch.float64)))
    with pytest.raises(ConfigError, match="metres with Z up and the floor at 0"):
        scene_people(1, TRAIN, 0, Mannequins(), rig, SMALL)


def test_a_room_has_nothing_in_its_people_nor_before_its_lenses():
    gl, person = renderer(), mannequin()
    rig = static_rig("ring8").resized(torch.full((8, 2), 0.05, dtype=torch.float64), torch.full((8, 2), 54))
    for seed in range(25):
        room = draw_room(np.random.default_rng(seed), [person.joints], rig.centres_world.numpy())
        corners = room.surfaces.vertices
        low = (corners[:, 2] > 0.05) & (corners[:, 2] < 1.5)
        assert np.hypot(*(corners[low, :2] - person.joints[:, :2].mean(axis=0)).T).min() > 0.3
        gl.stage(room.surfaces, [person], room.lights, no_image)
        for view in range(0, 8, 3):
            _, depth = gl.image(rig, view, Exposure(gain=np.ones(3)), [], room.background)
            assert depth.min() > 0.3


def test_crops_are_jpeg():
    (sample,) = scene_people(1, TRAIN, 0, Mannequins(), 2, SMALL)
    assert all(io.BytesIO(p.crop or b"").read(2) == b"\xff\xd8" for p in sample.images)


def test_a_group_is_three_labelled_people_in_the_same_images():
    """Each has joints, boxes and hidden joints of their own; all are in the crops, close together but apart."""
    hidden = 0
    for index in range(3):
        group = scene_people(3, TRAIN, index, Mannequins(), static_rig("ring8"), SMALL, group=3)
        assert [s.person for s in group] == [0, 1, 2]
        assert len({(s.capture_id, s.frame, s.images) for s in group}) == 1
        for sample in group:
            pixels, _ = sample.rig.project(torch.from_numpy(sample.xyz))
            for box, points, visible in zip(sample.box, pixels.numpy(), sample.visible, strict=True):
                assert (points[visible] >= 0).all() and (points[visible] <= 95).all()
                np.testing.assert_allclose(box, [*points.min(axis=0), *points.max(axis=0)], atol=1e-6)
            hidden += int((~sample.visible).sum())
        for a, b in ((0, 1), (0, 2), (1, 2)):
            apart = np.linalg.norm(group[a].xyz[:, None] - group[b].xyz, axis=-1)
            assert apart.min() > 0.25 and np.linalg.norm((group[a].xyz - group[b].xyz).mean(axis=0)[:2]) < 1.4
        about = np.stack([s.box for s in group])
        extent = (about[..., 2:].max(axis=0) - about[..., :2].min(axis=0)).max(axis=-1)
        np.testing.assert_allclose(extent, 64.0, atol=1e-6)
    assert hidden > 30

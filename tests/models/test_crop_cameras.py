"""Cameras of distorted crops: a lens as a homography over a person's box."""

import os
from dataclasses import replace

import numpy as np
import pytest
import torch

from mvpose.footage.calibration import read_calibration
from mvpose.geometry.camera import CameraRig
from mvpose.models.crop_cameras import crop_projections
from mvpose.models.detection.joint_network import crop_from_image
from mvpose.rendering.camera_rigs import ring8

CROP = (192, 256)


def people(rig: CameraRig, seed: int) -> np.ndarray:
    """(V N J 3): points of people who fill a third to a half of the image's height, in front of every camera."""
    rng = np.random.default_rng(seed)
    places = []
    for v in range(len(rig)):
        depth = float(rig.focal[v, 1]) * 1.7 / (float(rig.size[v, 1]) * rng.uniform(0.33, 0.5, (6, 1, 1)))
        across = rng.uniform(-0.35, 0.35, (6, 1, 2)) * depth * rig.size[v].numpy() * [0.6, 0.3] / rig.focal[v].numpy()
        body = rng.uniform(-1, 1, (6, 40, 2)) * [0.3, 0.85]
        local = np.concatenate([across + body, np.broadcast_to(depth, (6, 40, 1))], axis=-1)
        rotation, centre = rig.camera_from_world.rotation[v].numpy(), rig.centres_world[v].numpy()
        places.append(local @ rotation + centre)
    return np.stack(places)


def errors(rig: CameraRig, seed: int = 0) -> torch.Tensor:
    """(V N J): distance in pixels of the crop between the matrix's projection and the true camera's."""
    rig = rig.to(torch.float64)
    points = torch.from_numpy(people(rig, seed))
    pixels = torch.stack([rig.project(points[v])[0][v] for v in range(len(rig))])
    box = torch.cat([pixels.amin(dim=2), pixels.amax(dim=2)], dim=-1).numpy()
    crop = np.stack([crop_from_image(b, CROP) for b in box])
    matrix = crop_projections(rig, box, crop)
    image = torch.einsum("vnik,vnjk->vnji", matrix[..., :3], points) + matrix[:, :, None, :, 3]
    cut = torch.from_numpy(crop)
    true = torch.einsum("vnik,vnjk->vnji", cut[..., :2], pixels) + cut[:, :, None, :, 2]
    return (image[..., :2] / image[..., 2:] - true).norm(dim=-1)


def test_without_a_lens_the_matrix_is_exact() -> None:
    rig = ring8()
    pinhole = replace(rig, lens=replace(rig.lens, coefficients=torch.zeros_like(rig.lens.coefficients)))
    assert errors(pinhole).max() < 1e-6


def test_a_wide_lens_is_a_homography_over_a_person_to_half_a_pixel() -> None:
    """Its field of view is 81 degrees. Fails if the lens is left out, or if the homography becomes an affine map."""
    assert errors(ring8()).max() < 0.55


@pytest.mark.footage
@pytest.mark.parametrize("name", ["Calib_scene.toml", "Calib_scene_2023_commit37354e2.toml", "Calib.qca.txt"])
def test_so_are_the_lenses_of_the_demo(name: str, footage: str) -> None:
    for folder, _, files in os.walk(footage):
        if name in files:
            assert errors(read_calibration(os.path.join(folder, name))).max() < 0.3
            return
    pytest.fail(f"no {name} in {footage}")

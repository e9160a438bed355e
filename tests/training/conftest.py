"""A table of drawn people: every bone a line of its own colour, four cameras on a ring, JPEG crops."""

import math

import cv2
import numpy as np
import pytest
import torch

from mvpose.datasets.sample import TRAIN, VALIDATION, Sample, SampleImage, observed
from mvpose.datasets.sample_table import write_samples
from mvpose.geometry.camera import CameraRig
from mvpose.geometry.lens import Lens, LensModel
from mvpose.geometry.rigid import Rigid
from mvpose.scenes import ring4
from mvpose.skeleton import HUMAN36M17

SIDE, FOCAL, DISTANCE = 128, 260.0, 4.5
LENS = [-0.2, 0.08, 0.001, -0.002]


def ring(views: int = 4, *, lens: bool = False, turn: float = 0.3) -> CameraRig:
    """Cameras that look at (0, 0, 0.9) m from a ring; their images of 128 pixels show a person as a crop would."""
    angle = torch.arange(views, dtype=torch.float64) * 2 * math.pi / views + turn
    centres = torch.stack([DISTANCE * angle.cos(), DISTANCE * angle.sin(), torch.full_like(angle, 1.6)], dim=-1)
    forward = torch.tensor([0.0, 0.0, 0.9], dtype=torch.float64) - centres
    forward = torch.nn.functional.normalize(forward, dim=-1)
    up = torch.tensor([0.0, 0.0, 1.0], dtype=torch.float64).expand_as(forward)
    right = torch.nn.functional.normalize(torch.linalg.cross(forward, up), dim=-1)
    rotation = torch.stack([right, torch.linalg.cross(forward, right), forward], dim=-2)
    return CameraRig(
        names=tuple(f"cam{i}" for i in range(views)),
        focal=torch.full((views, 2), FOCAL, dtype=torch.float64),
        centre=torch.full((views, 2), (SIDE - 1) / 2, dtype=torch.float64),
        lens=Lens.of(LensModel.BROWN_CONRADY, [LENS if lens else []] * views),
        camera_from_world=Rigid(rotation, -(rotation @ centres[..., None])[..., 0]),
        size=torch.full((views, 2), SIDE),
    )


def drawn(rig: CameraRig, xyz: np.ndarray) -> list[np.ndarray]:
    """One image a view, RGB; pixel positions are exact to a sixteenth."""
    pixels = rig.project(torch.from_numpy(xyz))[0].numpy()
    colours = np.random.default_rng(7).integers(60, 256, (len(HUMAN36M17.bones), 3))
    images = []
    for points in pixels:
        image = np.full((SIDE, SIDE, 3), 30, np.uint8)
        for (a, b), colour in zip(HUMAN36M17.bone_indices, colours.tolist(), strict=True):
            start, stop = ((round(float(points[j, 0]) * 16), round(float(points[j, 1]) * 16)) for j in (a, b))
            cv2.line(image, start, stop, colour, 3, cv2.LINE_AA, shift=4)
        images.append(image)
    return images


def drawn_sample(rig: CameraRig, xyz: np.ndarray, frame: int = 0, split: str = TRAIN) -> Sample:
    """A sample with PNG-exact or JPEG crops: here JPEG of quality 95."""
    visible, box = observed(rig, xyz[None])
    encoded = [cv2.imencode(".jpg", p[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, 95])[1].tobytes() for p in drawn(rig, xyz)]
    return Sample(
        capture_id="walk", frame=frame, position=frame, person=0, subject="s", action="walk", split=split,
        damaged=False, rig=rig, images=tuple(SampleImage(crop=crop) for crop in encoded), xyz=xyz,
        visible=visible[0], box=box[0], skeleton=HUMAN36M17,
    )  # fmt: skip


def people(count: int) -> np.ndarray:
    """(count 17 3) metres: a person on the spot, turning and walking."""
    joints = ring4(num_frames=count, skeleton=HUMAN36M17).joints[:, 0]
    hip = joints[:, :1] * (1.0, 1.0, 0.0)
    return joints - hip


def write_table(uri: str, train: int = 48, validation: int = 8, *, rig: CameraRig | None = None) -> str:
    """A table of one file; its URI."""
    rig = rig or ring()
    splits = [TRAIN] * train + [VALIDATION] * validation
    samples = (drawn_sample(rig, xyz, i, s) for i, (xyz, s) in enumerate(zip(people(len(splits)), splits, strict=True)))
    write_samples(uri, samples, HUMAN36M17, "drawn")
    return uri


@pytest.fixture(scope="session")
def table(tmp_path_factory) -> str:
    """48 samples to train on and 8 to validate on."""
    return write_table(str(tmp_path_factory.mktemp("table") / "samples.parquet"))

import dataclasses

import pytest
import torch

from mvpose.errors import CalibrationError
from mvpose.geometry.alignment import align
from mvpose.geometry.rigid import Rigid
from mvpose.rigs.rig_recovery import recover_rig
from mvpose.scenes import ring4


@pytest.fixture(scope="module")
def joints():
    """A rig, the joints of a walk in every view with 1 px of noise and 5 % gross errors, and who is seen."""
    scene = ring4()
    rig = scene.rig.to(torch.float64)
    world = torch.from_numpy(scene.joints[::4]).double()
    pixels, seen = rig.project(world)
    generator = torch.Generator().manual_seed(0)
    pixels = pixels + torch.randn(pixels.shape, generator=generator, dtype=torch.float64)
    wrong = torch.rand(seen.shape, generator=generator) < 0.05
    pixels = pixels + 80.0 * wrong[..., None]
    weights = (seen & rig.inside(pixels)).double()
    return rig, world.reshape(-1, 3), pixels.flatten(1, 3), weights.flatten(1, 3)


def test_the_cameras_come_back_up_to_a_similarity(joints):
    rig, world, pixels, weights = joints
    lost = dataclasses.replace(rig, camera_from_world=Rigid.identity(len(rig)))
    found = recover_rig(lost, pixels, weights)
    frame = align(found.rig.centres_world, rig.centres_world)
    assert (frame.apply(found.rig.centres_world) - rig.centres_world).norm(dim=-1).max() < 0.03
    assert (frame.apply(found.points) - world)[found.valid].norm(dim=-1).median() < 0.01
    assert found.valid.double().mean() > 0.9
    assert found.report.rms_px_after < 2.0
    assert len(found.links) == len(rig) - 2


def test_the_first_camera_is_the_frame_and_the_mean_distance_from_it_the_unit(joints):
    rig, _, pixels, weights = joints
    found = recover_rig(rig, pixels, weights).rig
    torch.testing.assert_close(found.camera_from_world.rotation[0], torch.eye(3, dtype=torch.float64))
    torch.testing.assert_close(found.centres_world[0], torch.zeros(3, dtype=torch.float64), atol=1e-9, rtol=0.0)
    assert float(found.centres_world[1:].norm(dim=-1).mean()) == pytest.approx(1.0)


def test_a_camera_that_shares_no_joint_is_named(joints):
    rig, _, pixels, weights = joints
    alone = weights.clone()
    alone[2] = 0.0
    with pytest.raises(CalibrationError, match=rig.names[2]):
        recover_rig(rig, pixels, alone)
    with pytest.raises(CalibrationError, match="no two"):
        recover_rig(rig, pixels, torch.zeros_like(weights))

import torch

from mvpose.geometry.camera import CameraRig
from mvpose.geometry.lens import Lens, LensModel
from mvpose.geometry.rigid import Rigid
from mvpose.models.volumes.heatmap_cameras import CropCameras, RigCameras
from tests.models.moving_people import people, project, ring


def _rig() -> CameraRig:
    rotation = torch.tensor([[[1.0, 0, 0], [0, 0, -1], [0, 1, 0]], [[0, 1, 0], [0, 0, -1], [-1, 0, 0]]]).double()
    centre = torch.tensor([[0.0, -4, 1], [4, 0, 1]]).double()
    return CameraRig(
        ("front", "side"),
        torch.tensor([[900.0, 905.0], [1000.0, 990.0]]).double(),
        torch.tensor([[640.0, 360.0], [600.0, 380.0]]).double(),
        Lens.of(LensModel.BROWN_CONRADY, [[-0.2, 0.05, 0.001, -0.002], [0.1, 0.0, 0.0, 0.001]]),
        Rigid(rotation, -(rotation @ centre[..., None])[..., 0]),
        torch.tensor([[1280, 720], [1280, 720]]),
    )


def _crops(frames):
    matrix = torch.tensor([[0.2, 0.0, -60.0], [0.0, 0.25, -20.0]]).double().expand(frames, 2, 2, 3).clone()
    matrix[1, 1, :, 2] += 13.0
    return matrix


def test_a_rig_s_heatmaps_see_the_world_through_lens_and_crop():
    points = people(2)
    cameras = RigCameras(_rig(), _crops(2))
    pixels, seen = cameras.project(points)
    image, _ = _rig().project(points)
    assert seen.all()
    assert torch.allclose(pixels[1, 1], image[1, 1] * torch.tensor([0.2, 0.25]) + torch.tensor([-47.0, -7.0]))


def test_taking_the_lens_away_leaves_what_the_matrices_say():
    points = people(2)
    cameras = RigCameras(_rig(), _crops(2))
    ideal, valid = cameras.undistorted(cameras.project(points)[0])
    assert valid.all()
    assert torch.allclose(ideal, project(cameras.projections, points), atol=1e-6)
    assert (ideal - cameras.project(points)[0]).abs().max() > 0.1


def test_maps_of_a_quarter_of_the_crop_keep_the_half_pixel_rule():
    points, projections = people(2), ring(3, 256).expand(2, -1, -1, -1)
    maps = CropCameras.of_crops(projections, (256, 256), (64, 64))
    assert torch.allclose(maps.project(points)[0], (project(projections, points) + 0.5) / 4 - 0.5)


def test_a_point_behind_a_camera_is_not_seen_and_its_pixel_is_finite():
    cameras = CropCameras(-3.0 * -ring(2, 64)[None])
    axis = cameras.projections[0, 0, 2, :3]
    behind = torch.stack([torch.tensor([0.0, 0.0, 1.0]).double(), -axis / axis.norm() * 6])[None]
    pixels, seen = cameras.project(behind)
    assert seen[0, 0].tolist() == [True, False]
    assert torch.isfinite(pixels).all()


def test_crops_without_a_lens_are_left_as_they_are():
    points = torch.rand(1, 2, 5, 2)
    same, valid = CropCameras(ring(2, 64).float()[None]).undistorted(points)
    assert torch.equal(same, points) and valid.all()

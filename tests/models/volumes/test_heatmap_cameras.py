import torch

from mvpose.models.volumes.heatmap_cameras import CropCameras
from tests.models.moving_people import people, project, ring


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


def test_the_centre_of_a_camera_is_the_point_that_it_maps_to_nothing():
    projections = ring(3, 64)[None]
    centres = CropCameras(-2.0 * projections).centres
    homogeneous = torch.cat([centres, torch.ones_like(centres[..., :1])], dim=-1)
    assert (projections @ homogeneous[..., None]).abs().max() < 1e-9
    assert torch.allclose(centres[0, :, :2].norm(dim=-1), torch.full((3,), 4.5).double())

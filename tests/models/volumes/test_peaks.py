import torch

from mvpose.heatmaps import gaussian_targets
from mvpose.models.volumes.heatmap_cameras import CropCameras
from mvpose.models.volumes.peaks import heatmap_peaks, peaks_near, triangulated_peaks
from tests.models.moving_people import people, project, ring


def test_a_peak_is_found_between_the_pixels_despite_a_second_lower_one():
    points = torch.tensor([[10.3, 20.7], [5.5, 6.25]])
    second = torch.tensor([[24.0, 4.0], [20.0, 25.0]])
    maps = gaussian_targets(points, (32, 30), 1.5) + 0.7 * gaussian_targets(second, (32, 30), 1.5)
    found, height = heatmap_peaks(maps)
    assert (found - points).abs().max() < 0.1
    assert torch.allclose(height, maps.amax(dim=(-2, -1)))


def test_the_peak_near_a_point_is_that_of_its_surroundings_and_not_the_highest():
    """Fails if the whole map is searched, or the result is cut off at the border of the surroundings."""
    points = torch.tensor([[10.3, 20.7], [5.5, 6.25]])
    higher = torch.tensor([[24.0, 4.0], [20.0, 25.0]])
    maps = 0.5 * gaussian_targets(points, (32, 30), 1.5) + gaussian_targets(higher, (32, 30), 1.5)
    found, height = peaks_near(maps, points + torch.tensor([3.0, -3.0]))
    assert (found - points).abs().max() < 0.1
    assert (height - 0.5).abs().max() < 0.05


def test_a_point_on_an_empty_map_stays_with_height_0():
    points = torch.tensor([[3.25, 9.5], [-40.0, 2.0]])
    found, height = peaks_near(torch.full((2, 16, 16), -0.1), points)
    assert torch.equal(found, points) and not height.any()


def test_the_peaks_of_four_views_are_triangulated_although_one_looks_elsewhere():
    truth = people(3)
    projections = ring(4, 64)
    pixels = project(projections, truth)
    pixels[0, 1, 4] += torch.tensor([9.0, -7.0])
    pixels[2, 3, 11] += torch.tensor([-8.0, 6.0])
    cameras = CropCameras(projections.float().expand(3, -1, -1, -1))
    found = triangulated_peaks(gaussian_targets(pixels, (64, 64), 2.0).float(), cameras)
    assert found.valid.all()
    assert (found.points - truth).norm(dim=-1).max() < 0.02
    assert found.inliers[0, 4].tolist() == [True, False, True, True]


def test_an_empty_map_gives_no_joint():
    projections = ring(3, 32)
    maps = gaussian_targets(project(projections, people(1)), (32, 32), 2.0).float()
    maps[0, 1:, 7] = 0
    found = triangulated_peaks(maps, CropCameras(projections.float()[None]))
    assert not found.valid[0, 7] and found.valid.sum() == 16

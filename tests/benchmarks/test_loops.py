"""The slow twins give what the fast paths give, or their ratio would mean nothing."""

import torch

from mvpose import scenes
from mvpose.benchmarks import loops
from mvpose.geometry.triangulation import triangulate
from mvpose.models.multiview import open_views
from mvpose.models.volumes.cube import Cube, about_vertical
from mvpose.models.volumes.volumetric import unproject

SIDE = 64


def cameras(batch: int) -> torch.Tensor:
    rig = scenes.ring4(num_frames=1).rig
    square = torch.full((4, 2), SIDE)
    return rig.resized(square / rig.size, square).projections.float().expand(batch, -1, -1, -1).contiguous()


def test_unprojection_by_loops_equals_unprojection():
    torch.manual_seed(0)
    projections = cameras(2)
    views = open_views(torch.zeros(2, 4, 3, SIDE, SIDE), projections, None, 2.0)
    turn = about_vertical(torch.tensor([0.0, 0.7]))
    cube = Cube(torch.tensor([[0.0, 0.0, 1.0], [0.2, -0.1, 0.9]]), turn, 2.5, 12)
    features = torch.randn(2, 4, 5, 16, 16)
    expected = unproject(features, views, cube, "softmax")
    found = loops.unprojected(features, projections, (SIDE, SIDE), cube)
    assert expected.std() > 0.1
    torch.testing.assert_close(found, expected, atol=2e-4, rtol=0)


def test_triangulation_by_loops_equals_triangulation_of_points_that_agree():
    projections = cameras(2)
    world = torch.rand(2, 3, 3, generator=torch.Generator().manual_seed(0)) + torch.tensor([-0.5, -0.5, 0.5])
    image = torch.einsum("bvij,bnj->bvni", projections, torch.cat([world, torch.ones(2, 3, 1)], dim=-1))
    points, weights = image[..., :2] / image[..., 2:], torch.ones(2, 4, 3)
    found = loops.triangulated(points, projections, weights)
    fast = triangulate(points.transpose(1, 2), projections[:, None], weights.transpose(1, 2)).points
    torch.testing.assert_close(found, world, atol=1e-3, rtol=0)
    torch.testing.assert_close(fast, world, atol=1e-3, rtol=0)

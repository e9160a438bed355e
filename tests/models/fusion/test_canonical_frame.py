import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mvpose.models.fusion.canonical_frame import canonical_frame, image_units

SIZE = (128, 128)


def frame(projections, present=None, size=SIZE):
    present = torch.ones(projections.shape[:2], dtype=torch.bool) if present is None else present
    return canonical_frame(projections, present, size, 2.0)


def moved(projections: torch.Tensor, angle: float, shift: tuple[float, float, float]) -> torch.Tensor:
    """Projections for a world in which every point has been turned about Z, then shifted."""
    c, s = math.cos(angle), math.sin(angle)
    new_from_old = torch.eye(4, dtype=torch.float64)
    new_from_old[:2, :2] = torch.tensor([[c, -s], [s, c]], dtype=torch.float64)
    new_from_old[:3, 3] = torch.tensor(shift, dtype=torch.float64)
    return (projections.double() @ torch.linalg.inv(new_from_old)).to(projections)


def test_the_centre_is_where_the_crops_look(ring):
    assert torch.allclose(frame(ring(4)[None]).centre, torch.tensor([[0.0, 0.0, 1.0]]), atol=2e-3)


@pytest.mark.parametrize("radius", [2.0, 4.0, 9.0])
def test_one_view_puts_the_centre_where_a_person_fills_the_crop(ring, radius):
    """A crop of 2 m extent is `extent` = 2 m wide exactly where the ring's cameras look."""
    assert torch.allclose(frame(ring(1, radius=radius)[None]).centre, torch.tensor([[0.0, 0.0, 1.0]]), atol=1e-3)


def test_absent_views_have_no_say(ring):
    four = ring(4)
    present = torch.tensor([[True, False, True, True]])
    strange = four.clone()
    strange[1] = ring(1, radius=7.0, height=9.0, turn=2.0)[0] * 3.0
    kept = frame(four[[0, 2, 3]][None])
    both = frame(strange[None], present)
    assert torch.allclose(both.centre, kept.centre, atol=1e-5)
    assert torch.allclose(both.projections[:, [0, 2, 3]], kept.projections, atol=1e-5)


@settings(deadline=None, max_examples=20)
@given(shift=st.tuples(*[st.floats(-20, 20)] * 3), angle=st.floats(0, 6))
def test_moving_the_world_moves_the_centre_and_turns_the_cameras(ring, shift, angle):
    raw = ring(3).double()[None]
    before, after = frame(raw), frame(moved(raw, angle, shift))
    c, s = math.cos(angle), math.sin(angle)
    turn = torch.tensor([[c, -s, 0.0], [s, c, 0.0], [0.0, 0.0, 1.0]], dtype=torch.float64)
    expected = before.centre @ turn.T + torch.tensor(shift, dtype=torch.float64)
    assert torch.allclose(after.centre, expected, atol=1e-8)
    assert torch.allclose(after.projections[..., :3], before.projections[..., :3] @ turn.T, atol=1e-8)
    assert torch.allclose(after.projections[..., 3], before.projections[..., 3], atol=1e-8)


def test_float32_keeps_pixels_to_a_hundredth_thirty_metres_from_the_origin(ring):
    raw = moved(ring(4).double(), 0.5, (30.0, -20.0, 5.0))[None]
    exact, rounded = frame(raw), frame(raw.float())
    points = torch.rand(5, 3, dtype=torch.float64) - 0.5

    def pixels(f):
        x = torch.einsum("vij,nj->vni", f.projections[0].double(), torch.cat([points, torch.ones(5, 1)], dim=-1))
        return x[..., :2] / x[..., 2:] * 64

    # Both frames are about their own centre, which differ by rounding: told in pixels of a 128-pixel crop.
    assert (pixels(exact) - pixels(rounded)).abs().max() < 0.01


@pytest.mark.parametrize("factor", [7.0, -0.2])
def test_a_scaled_projection_matrix_is_the_same_camera(ring, factor):
    raw = ring(3)[None]
    assert torch.allclose(frame(raw).projections, frame(raw * factor).projections, atol=1e-5)


def test_image_units_do_not_depend_on_the_resolution(ring):
    small, large = ring(2, size=(64, 64)), ring(2, size=(256, 256))
    assert torch.allclose(image_units(small[None], (64, 64)), image_units(large[None], (256, 256)), atol=1e-5)


def test_no_view_at_all_is_finite(ring):
    nothing = frame(ring(3)[None], torch.zeros(1, 3, dtype=torch.bool))
    assert nothing.centre.isfinite().all()
    assert nothing.projections.isfinite().all()

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mvpose.geometry.rigid import Rigid, cross_matrix

batches = st.sampled_from([(), (3,), (2, 4)])
seeds = st.integers(0, 2**31 - 1)


def _rigid(batch: tuple[int, ...], seed: int, turn: float = 2.0) -> Rigid:
    generator = torch.Generator().manual_seed(seed)
    vector = turn * torch.randn(*batch, 3, generator=generator, dtype=torch.float64)
    return Rigid.from_rotation_vector(vector, 3 * torch.randn(*batch, 3, generator=generator, dtype=torch.float64))


def _points(batch: tuple[int, ...], seed: int) -> torch.Tensor:
    return torch.randn(*batch, 5, 3, generator=torch.Generator().manual_seed(seed + 1), dtype=torch.float64)


@given(batches, seeds)
@settings(max_examples=25, deadline=None)
def test_a_rotation_vector_gives_a_proper_rotation(batch, seed):
    rotation = _rigid(batch, seed).rotation
    eye = torch.eye(3, dtype=torch.float64).expand(*batch, 3, 3)
    torch.testing.assert_close(rotation @ rotation.transpose(-1, -2), eye, atol=1e-12, rtol=0.0)
    torch.testing.assert_close(torch.linalg.det(rotation), torch.ones(batch, dtype=torch.float64))


@given(batches, seeds)
@settings(max_examples=25, deadline=None)
def test_the_inverse_undoes_and_composition_is_one_after_the_other(batch, seed):
    a_from_b, b_from_c = _rigid(batch, seed), _rigid(batch, seed + 7)
    points = _points(batch, seed)
    torch.testing.assert_close(a_from_b.inverse().apply(a_from_b.apply(points)), points, atol=1e-11, rtol=0.0)
    both = (a_from_b @ b_from_c).apply(points)
    torch.testing.assert_close(both, a_from_b.apply(b_from_c.apply(points)), atol=1e-11, rtol=0.0)


@given(seeds)
@settings(max_examples=10, deadline=None)
def test_the_matrix_says_the_same_as_apply(seed):
    rigid, points = _rigid((2,), seed), _points((2,), seed)
    homogeneous = torch.cat([points, torch.ones_like(points[..., :1])], dim=-1)
    torch.testing.assert_close(homogeneous @ rigid.matrix().transpose(-1, -2), rigid.apply(points))


def test_a_batch_of_transforms_is_a_loop_over_them():
    rigid, points = _rigid((4,), 3), _points((4,), 3)
    each = [Rigid(rigid.rotation[i], rigid.translation[i]).apply(points[i]) for i in range(4)]
    torch.testing.assert_close(rigid.apply(points), torch.stack(each))


def test_one_transform_serves_many_point_sets():
    rigid, points = _rigid((), 3), _points((4,), 3)
    torch.testing.assert_close(rigid.apply(points)[2], rigid.apply(points[2]))


def test_a_quarter_turn_about_z_takes_x_to_y():
    turn = Rigid.from_rotation_vector(torch.tensor([0.0, 0.0, torch.pi / 2]), torch.zeros(3))
    torch.testing.assert_close(turn.apply(torch.tensor([[1.0, 0.0, 0.0]])), torch.tensor([[0.0, 1.0, 0.0]]))


def test_the_identity_changes_nothing_and_the_cross_matrix_is_the_cross_product():
    points = _points((), 1)
    torch.testing.assert_close(Rigid.identity().apply(points), points)
    v = torch.tensor([1.0, -2.0, 0.5], dtype=torch.float64)
    torch.testing.assert_close(points @ cross_matrix(v).T, torch.linalg.cross(v.expand_as(points), points))


def test_the_rotation_vector_is_differentiable_at_zero():
    vector = torch.zeros(2, 3, dtype=torch.float64, requires_grad=True)
    points = _points((2,), 2)
    assert torch.autograd.gradcheck(lambda v: Rigid.from_rotation_vector(v, torch.zeros_like(v)).apply(points), vector)

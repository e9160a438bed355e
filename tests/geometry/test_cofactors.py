import torch

from mvpose.geometry.conditioning import adjugate, inverse_3x3


def test_the_inverse_is_the_inverse():
    m = torch.randn(5, 2, 3, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(inverse_3x3(m), torch.linalg.inv(m))


def test_adjugate_and_determinant_are_those_of_a_matrix_that_is_not_symmetric():
    m = torch.tensor([[2.0, 1.0, 0.0], [0.0, 3.0, 5.0], [7.0, 0.0, 1.0]], dtype=torch.float64)
    columns, determinant = adjugate(m)
    torch.testing.assert_close(determinant, torch.linalg.det(m))
    torch.testing.assert_close(m @ columns, determinant * torch.eye(3, dtype=torch.float64))


def test_a_singular_matrix_has_an_adjugate_and_no_finite_inverse():
    m = torch.ones(3, 3)
    assert adjugate(m)[1] == 0.0
    assert not inverse_3x3(m).isfinite().any()

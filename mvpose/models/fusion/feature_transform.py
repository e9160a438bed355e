"""Feature transform layer (FTL): latent features as points that a camera moves (Remelli et al. 2020, section 3.2).

The channels of one pixel are taken as vectors of consecutive k numbers, each is multiplied by the same matrix, and the
results are laid out again as channels. There is nothing to learn in it, and no division: depth stays latent.

The paper writes P^-1 for a 3x4 matrix without saying what it is. Here it is the right inverse P^T (P P^T)^-1, so that
FTL(P) undoes FTL(P^-1) exactly; the other way round a point comes back moved along its ray towards the camera, never
across it. Matrices are those of the canonical frame, whose numbers are near 1.
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from mvpose.geometry.cofactors import inverse_3x3


def feature_transform(
    features: Float[Tensor, "*b C h w"], matrix: Float[Tensor, "*b m k"]
) -> Float[Tensor, "*b D h w"]:
    """FTL(features | matrix): C channels, C a multiple of k, to D = C / k * m channels."""
    k = matrix.shape[-1]
    if features.shape[-3] % k:
        raise ValueError(f"{features.shape[-3]} channels do not divide into points of {k} numbers; use a multiple")
    points = features.unflatten(-3, (-1, k))
    return torch.einsum("...mk,...gkhw->...gmhw", matrix.to(features), points).flatten(-4, -3)


def right_inverse(projections: Float[Tensor, "*b 3 4"]) -> Float[Tensor, "*b 4 3"]:
    """P^T (P P^T)^-1: the Moore-Penrose inverse of matrices of rank 3, with `P right_inverse(P) = I`.

    Products are written out, because autocast would round those of `@` to bfloat16.
    """
    gram = (projections[..., :, None, :] * projections[..., None, :, :]).sum(dim=-1)
    return (projections[..., :, :, None] * inverse_3x3(gram)[..., :, None, :]).sum(dim=-3)

"""Cameras, lenses and triangulation: pure torch, differentiable, batched, without files or settings.

Conventions, each verified by a test:

- World to camera is `x_camera = R x_world + t`; transforms are named `a_from_b` so that names cancel.
- Metres, seconds, pixels and radians. The world is Z-up; cameras have OpenCV's axes: +X right, +Y down, +Z forward.
- The centre of the top-left pixel is (0, 0). Resizing by s maps a pixel c to (c + 0.5) s - 0.5.
- Axis order is batch, views V, frames T, people P, joints J, coordinates last. Only `triangulate` takes the views
  directly before the coordinates (`... V 2`), because it sums over the views.
- A missing observation has weight 0; NaN never enters a gradient.
"""

from enum import StrEnum
from typing import Literal

Unit = Literal["m", "cm", "mm", "in"]
"""Length units that calibrations come in."""

Aggregation = Literal["sum", "conf", "conf_norm", "max", "softmax"]


class DltMethod(StrEnum):
    """How the homogeneous system A x = 0 is solved.

    `NORMAL`: the point minimising the weighted distances to the planes of the rays, by 3x3 normal equations.
    `SII`: shifted inverse iterations on the 4x4 matrix A^T A (Remelli et al., CVPR 2020, Algorithm 1).
    `EIGH`: eigenvector of the smallest eigenvalue of A^T A. `SVD`: last right singular vector of A.
    """

    NORMAL = "normal"
    SII = "sii"
    EIGH = "eigh"
    SVD = "svd"

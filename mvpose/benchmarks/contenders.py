"""Contenders of the triangulation benchmark: this package's solvers and common alternatives, on the same data.

A contender gets the observations, does the one-time setup (layouts, imports, compilation) and returns a call
that triangulates: only this call is timed.
"""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Callable
from dataclasses import dataclass

import cv2
import numpy as np
import torch

from mvpose.benchmarks.drawn_observations import DrawnObservations
from mvpose.geometry.robust import triangulate_irls, triangulate_robust
from mvpose.geometry.triangulation import DltMethod, Kernel, triangulate

Solved = torch.Tensor | np.ndarray


@dataclass(frozen=True, kw_only=True)
class Contender:
    """One triangulation method and its limits; slow ones are timed on the first `max_points` only."""

    name: str
    prepare: Callable[[DrawnObservations], Callable[[], Solved]]
    max_points: int = 10**9
    """On a CPU; a GPU gets 50 times as many."""
    cuda: bool = False
    two_views: bool = False
    module: str | None = None
    """Optional package that it needs."""
    fused: DltMethod | None = None
    """Method of a fused kernel, whose bytes and operations can be counted."""

    @property
    def installed(self) -> bool:
        """Whether the required package is installed."""
        return self.module is None or importlib.util.find_spec(self.module) is not None


def _ours(method: DltMethod, engine: Kernel) -> Callable[[DrawnObservations], Callable[[], Solved]]:
    def prepare(seen: DrawnObservations) -> Callable[[], Solved]:
        projections = seen.rig.projections.to(seen.pixels)
        return lambda: triangulate(seen.pixels, projections, method=method, engine=engine).points

    return prepare


def _robust(seen: DrawnObservations) -> Callable[[], Solved]:
    projections = seen.rig.projections.to(seen.pixels)
    return lambda: triangulate_robust(seen.pixels, projections).points


def _irls(seen: DrawnObservations) -> Callable[[], Solved]:
    projections = seen.rig.projections.to(seen.pixels)
    return lambda: triangulate_irls(seen.pixels, projections).points


def _torch_decomposition(decompose: Callable[[torch.Tensor], torch.Tensor]) -> Callable:
    """The textbook DLT in batched torch: rows u p3 - p1, v p3 - p2, last right singular vector."""

    def prepare(seen: DrawnObservations) -> Callable[[], Solved]:
        p = seen.rig.projections.to(seen.pixels)

        def solve() -> Solved:
            rows = (seen.pixels[..., None] * p[:, 2:] - p[:, :2]).flatten(1, 2)
            x = decompose(rows)
            return x[:, :3] / x[:, 3:]

        return solve

    return prepare


def _numpy_normal_equations(seen: DrawnObservations) -> Callable[[], Solved]:
    """3x3 normal equations in numpy: sums of products by matmul, then a batched solve."""
    pixels, p = seen.pixels.numpy(), seen.rig.projections.numpy().astype(seen.pixels.numpy().dtype)

    def solve() -> Solved:
        rows = (pixels[..., None] * p[:, 2:] - p[:, :2]).reshape(len(pixels), -1, 4)
        a, b = rows[..., :3], -rows[..., 3:]
        transposed = a.transpose(0, 2, 1)
        return np.linalg.solve(transposed @ a, transposed @ b)[..., 0]

    return solve


def _opencv(seen: DrawnObservations) -> Callable[[], Solved]:
    pixels = np.ascontiguousarray(seen.pixels[:, :2].permute(1, 2, 0).numpy())
    left, right = seen.rig.projections[:2].numpy().astype(pixels.dtype)

    def solve() -> Solved:
        x = cv2.triangulatePoints(left, right, pixels[0], pixels[1])
        return (x[:3] / x[3]).T

    return solve


def _aniposelib(seen: DrawnObservations, robust: bool) -> Callable[[], Solved]:
    cameras = importlib.import_module("aniposelib.cameras")
    rig = seen.rig
    group = cameras.CameraGroup(
        [
            cameras.Camera(
                matrix=rig.intrinsics[i].numpy(),
                dist=np.zeros(5),
                rvec=cv2.Rodrigues(rig.camera_from_world.rotation[i].numpy())[0].ravel(),
                tvec=rig.camera_from_world.translation[i].numpy(),
                name=name,
            )
            for i, name in enumerate(rig.names)
        ]
    )
    pixels = seen.pixels.double().permute(1, 0, 2).contiguous().numpy()
    if robust:
        return lambda: group.triangulate_ransac(pixels)[0]
    return lambda: group.triangulate(pixels)


def _pose2sim(seen: DrawnObservations) -> Callable[[], Solved]:
    """`triangulation_from_best_cameras`, called once per keypoint and frame, with demo settings."""
    triangulation = importlib.import_module("Pose2Sim.triangulation")
    settings = {
        "reproj_error_threshold_triangulation": 15,
        "min_cameras_for_triangulation": 2,
        "handle_LR_swap": False,
        "undistort_points": False,
    }
    pixels, projections = seen.pixels.double().numpy(), list(seen.rig.projections.numpy())
    likelihood = np.ones(pixels.shape[1])

    def solve() -> Solved:
        points = []
        for seen_by in pixels:
            coordinates = (seen_by[:, 0], seen_by[:, 1], likelihood)
            points.append(
                triangulation.triangulation_from_best_cameras(
                    {"triangulation": settings}, coordinates, coordinates, projections, {}
                )[0]
            )
        return np.array(points, dtype=float)

    return solve


CONTENDERS = (
    Contender(
        name="mvpose normal, fused",
        prepare=_ours(DltMethod.NORMAL, Kernel.FUSED),
        cuda=True,
        fused=DltMethod.NORMAL,
    ),
    Contender(name="mvpose sii, fused", prepare=_ours(DltMethod.SII, Kernel.FUSED), cuda=True, fused=DltMethod.SII),
    Contender(
        name="mvpose normal, torch", prepare=_ours(DltMethod.NORMAL, Kernel.TORCH), max_points=200_000, cuda=True
    ),
    Contender(name="mvpose sii, torch", prepare=_ours(DltMethod.SII, Kernel.TORCH), max_points=200_000, cuda=True),
    Contender(name="mvpose eigh, torch", prepare=_ours(DltMethod.EIGH, Kernel.TORCH), max_points=100_000, cuda=True),
    Contender(name="mvpose svd, torch", prepare=_ours(DltMethod.SVD, Kernel.TORCH), max_points=100_000, cuda=True),
    Contender(name="mvpose robust", prepare=_robust, max_points=200_000, cuda=True),
    Contender(name="mvpose irls", prepare=_irls, max_points=200_000, cuda=True),
    Contender(
        name="torch.linalg.svd",
        prepare=_torch_decomposition(lambda a: torch.linalg.svd(a, full_matrices=False).Vh[:, -1]),
        max_points=200_000,
        cuda=True,
    ),
    Contender(
        name="torch.linalg.eigh",
        prepare=_torch_decomposition(lambda a: torch.linalg.eigh(a.mT @ a).eigenvectors[..., 0]),
        max_points=200_000,
        cuda=True,
    ),
    Contender(name="numpy 3x3 normal equations", prepare=_numpy_normal_equations, max_points=1_000_000),
    Contender(name="cv2.triangulatePoints, 2 views", prepare=_opencv, max_points=1_000_000, two_views=True),
    Contender(
        name="aniposelib triangulate",
        prepare=lambda seen: _aniposelib(seen, robust=False),
        max_points=100_000,
        module="aniposelib",
    ),
    Contender(
        name="aniposelib ransac",
        prepare=lambda seen: _aniposelib(seen, robust=True),
        max_points=100,
        module="aniposelib",
    ),
    Contender(name="Pose2Sim best cameras", prepare=_pose2sim, max_points=200, module="Pose2Sim"),
)

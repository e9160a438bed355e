"""Bundle adjustment: optimise camera poses and points on the observations.

Levenberg-Marquardt on the reprojection error with the points eliminated (Schur complement; Triggs et al., "Bundle
adjustment: a modern synthesis", 2000). Each step solves one dense system of 6 unknowns per camera, regardless of the
number of points.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from mvpose.geometry.alignment import Similarity, align
from mvpose.geometry.camera import CameraRig
from mvpose.geometry.refinement import RobustLoss
from mvpose.geometry.rigid import Rigid, cross_matrix

# The search ends after a step that reduces the cost by less than this fraction.
MIN_GAIN = 1e-5
LARGEST_DAMPING = 1e12


@dataclass(frozen=True, eq=False)
class BundleReport:
    """The result of an adjustment. Residuals are distances in undistorted pixels over the `num_observations` used."""

    rms_px_before: float
    rms_px_after: float
    median_px_before: float
    median_px_after: float
    num_observations: int
    num_points: int
    steps: int
    converged: bool
    camera_shift: Float[Tensor, " V"]
    camera_turn: Float[Tensor, " V"]

    def __str__(self) -> str:
        shift, turn = 1000 * self.camera_shift.max().item(), torch.rad2deg(self.camera_turn.max()).item()
        return (
            f"{self.num_observations} observations of {self.num_points} points: {self.rms_px_before:.2f} -> "
            f"{self.rms_px_after:.2f} px rms in {self.steps} steps{'' if self.converged else ' (not converged)'}; "
            f"cameras moved by at most {shift:.1f} mm and {turn:.2f} degrees"
        )


def bundle_adjust(
    rig: CameraRig,
    pixels: Float[Tensor, "V N 2"],
    weights: Float[Tensor, "V N"],
    points: Float[Tensor, "N 3"],
    *,
    fixed: tuple[str, ...] = (),
    loss: RobustLoss = RobustLoss.HUBER,
    scale_px: float = 3.0,
    max_steps: int = 100,
) -> tuple[CameraRig, Float[Tensor, "N 3"], BundleReport]:
    """Camera poses and world points that minimise the robust reprojection error; intrinsics and lenses are kept.

    `pixels` are those of the images (distorted). A weight multiplies the residual of its observation; 0 means absent,
    and the pixel may be anything. Points seen by fewer than two cameras are not used and are returned unchanged.

    The frame, which images cannot determine, is fixed as follows. Cameras named in `fixed` do not move. With one of
    them, the mean distance of the others from it is kept. With none, the whole is moved by the similarity that brings
    the cameras, centres and axes, nearest to their original positions.

    Raises ValueError if a name in `fixed` is not in the rig, or if no point is seen by two cameras.
    """
    unknown = set(fixed) - set(rig.names)
    if unknown:
        raise ValueError(f"fixed names cameras {sorted(unknown)}; the rig has {list(rig.names)}")
    problem = _Problem.of(rig, pixels.double(), weights.double(), points.double())
    free = torch.tensor([name not in fixed for name in rig.names])
    start = _State(rig.to(torch.float64).camera_from_world, problem.points)
    state, steps, converged = _minimise(problem, start, free, loss, scale_px, max_steps)
    frame = _frame(start.pose, state.pose, [rig.names.index(name) for name in fixed])
    pose, moved = _in_frame(state.pose, frame), frame.apply(state.points)
    adjusted = replace(rig, camera_from_world=pose.to(rig.focal.dtype))
    after = torch.where(problem.taking_part[:, None], moved, points.double()).to(points.dtype)
    return adjusted, after, _report(problem, start, state, pose, steps, converged)


@dataclass(frozen=True, eq=False)
class _State:
    pose: Rigid
    points: Float[Tensor, "N 3"]


@dataclass(frozen=True, eq=False)
class _Problem:
    """The constants: focal lengths, undistorted pixels relative to the principal point, weights, starting points."""

    focal: Float[Tensor, "V 2"]
    offsets: Float[Tensor, "V N 2"]
    weights: Float[Tensor, "V N"]
    points: Float[Tensor, "N 3"]

    @property
    def taking_part(self) -> Bool[Tensor, " N"]:
        return (self.weights > 0).any(dim=0)

    @staticmethod
    def of(rig: CameraRig, pixels: Tensor, weights: Tensor, points: Tensor) -> _Problem:
        rig = rig.to(torch.float64)
        ideal, exists = rig.undistorted(torch.where(weights[..., None] > 0, pixels, rig.centre[:, None]))
        in_front = rig.camera_from_world.apply(points[None])[..., 2] > 0
        used = (weights > 0) & exists & in_front
        used = used & (used.sum(dim=0) >= 2)
        if not bool(used.any()):
            raise ValueError(f"none of the {len(points)} points is seen by two cameras, so there is nothing to adjust")
        offsets = torch.where(used[..., None], ideal - rig.centre[:, None], 0.0)
        return _Problem(rig.focal, offsets, torch.where(used, weights, 0.0), points)

    def residuals(self, state: _State) -> tuple[Float[Tensor, "V N 2"], Float[Tensor, "V N 3"], bool]:
        """Projected minus observed (0 if absent), points in camera coordinates, and whether all are in front."""
        local = state.pose.apply(state.points[None])
        used = self.weights > 0
        before = bool((local[..., 2] > 0)[used].all())
        depth = torch.where(used, local[..., 2], 1.0)
        projected = self.focal[:, None] * local[..., :2] / depth[..., None]
        return torch.where(used[..., None], projected - self.offsets, 0.0), local, before

    def cost(self, state: _State, loss: RobustLoss, scale_px: float) -> float:
        """Half the sum of weight^2 times the loss; infinite if a point is behind a camera that sees it."""
        residuals, _, before = self.residuals(state)
        robust = loss.cost(residuals.norm(dim=-1), scale_px)
        return 0.5 * float((self.weights**2 * robust).sum()) if before else float("inf")


def _minimise(
    problem: _Problem, state: _State, free: Tensor, loss: RobustLoss, scale_px: float, max_steps: int
) -> tuple[_State, int, bool]:
    """Levenberg-Marquardt with Marquardt's scaling; returns the state, the steps taken and whether it converged."""
    damping, cost = 1e-4, problem.cost(state, loss, scale_px)
    system = _System.of(problem, state, free, loss, scale_px)
    for step in range(1, max_steps + 1):
        candidate = system.stepped(state, damping)
        lower = problem.cost(candidate, loss, scale_px)
        if lower < cost:
            gain, cost, state, damping = cost - lower, lower, candidate, max(damping / 10, 1e-12)
            if gain <= MIN_GAIN * cost:
                return state, step, True
            system = _System.of(problem, state, free, loss, scale_px)
        else:
            damping *= 10
            if damping > LARGEST_DAMPING or cost == 0.0:
                return state, step, True
    return state, max_steps, False


@dataclass(frozen=True, eq=False)
class _System:
    """Normal equations in blocks: cameras (V 6 6), points (N 3 3), their coupling (V N 6 3), and the gradients."""

    cameras: Float[Tensor, "V 6 6"]
    points: Float[Tensor, "N 3 3"]
    between: Float[Tensor, "V N 6 3"]
    camera_gradient: Float[Tensor, "V 6"]
    point_gradient: Float[Tensor, "N 3"]
    free: Bool[Tensor, " V"]

    @staticmethod
    def of(problem: _Problem, state: _State, free: Tensor, loss: RobustLoss, scale_px: float) -> _System:
        residuals, local, _ = problem.residuals(state)
        factor = problem.weights * loss.row_weight(residuals.norm(dim=-1), scale_px)
        by_local = _projection_derivative(problem.focal, local) * factor[..., None, None]
        turned = local - state.pose.translation[:, None]
        by_camera = torch.cat([by_local @ -cross_matrix(turned), by_local], dim=-1)
        by_point = by_local @ state.pose.rotation[:, None]
        weighted = residuals * factor[..., None]
        return _System(
            torch.einsum("vnki,vnkj->vij", by_camera, by_camera),
            torch.einsum("vnki,vnkj->nij", by_point, by_point),
            by_camera.transpose(-1, -2) @ by_point,
            torch.einsum("vnki,vnk->vi", by_camera, weighted),
            torch.einsum("vnki,vnk->ni", by_point, weighted),
            free,
        )

    def stepped(self, state: _State, damping: float) -> _State:
        """The state after one damped step: cameras from the reduced system, then points by back-substitution."""
        points = self.points + damping * torch.diag_embed(self.points.diagonal(dim1=-2, dim2=-1))
        absent = self.points.diagonal(dim1=-2, dim2=-1).sum(dim=-1) == 0
        inverse = torch.linalg.inv(torch.where(absent[:, None, None], torch.eye(3, dtype=points.dtype), points))
        num_cameras = len(self.cameras)
        coupled = self.between @ inverse
        rows = self.between.permute(0, 2, 1, 3).reshape(6 * num_cameras, -1)
        reduced = -coupled.permute(0, 2, 1, 3).reshape(6 * num_cameras, -1) @ rows.T
        damped = self.cameras + damping * torch.diag_embed(self.cameras.diagonal(dim1=-2, dim2=-1))
        reduced += torch.block_diag(*damped)
        right = -self.camera_gradient + torch.einsum("vnij,nj->vi", coupled, self.point_gradient)
        moving = self.free.repeat_interleave(6) & (reduced.diagonal() > 0)
        step = torch.zeros_like(right.flatten())
        step[moving] = torch.linalg.lstsq(reduced[moving][:, moving], right.flatten()[moving], driver="gelsd").solution
        step = step.reshape(-1, 6)
        for_points = -self.point_gradient - torch.einsum("vnij,vi->nj", self.between, step)
        turn = Rigid.from_rotation_vector(step[:, :3], step[:, 3:])
        pose = Rigid(turn.rotation @ state.pose.rotation, state.pose.translation + turn.translation)
        return _State(pose, state.points + (inverse @ for_points[..., None])[..., 0])


def _projection_derivative(focal: Tensor, local: Tensor) -> Float[Tensor, "V N 2 3"]:
    """d (focal * xy / z) / d xyz."""
    x, y, z = local.unbind(-1)
    z = torch.where(z > 0, z, 1.0)
    zero = torch.zeros_like(z)
    fx, fy = focal[:, None].unbind(-1)
    rows = [fx / z, zero, -fx * x / z**2, zero, fy / z, -fy * y / z**2]
    return torch.stack(rows, dim=-1).unflatten(-1, (2, 3))


def _frame(before: Rigid, after: Rigid, fixed: list[int]) -> Similarity:
    """The similarity from the adjusted world to the reported one."""
    if len(fixed) >= 2:
        return _scaled_about(after.inverse().translation[fixed[0]], torch.ones(()))
    old, new = before.inverse(), after.inverse()
    if len(fixed) == 1:
        here = new.translation[fixed[0]]
        size = (old.translation - here).norm(dim=-1).mean() / (new.translation - here).norm(dim=-1).mean()
        return _scaled_about(here, size)
    reach = (old.translation - old.translation.mean(dim=0)).norm(dim=-1).mean()
    return align(_tripods(new, reach), _tripods(old, reach))


def _scaled_about(point: Tensor, scale: Tensor) -> Similarity:
    return Similarity(scale.to(point), torch.eye(3).to(point), (1.0 - scale.to(point)) * point)


def _tripods(world_from_camera: Rigid, reach: Tensor) -> Float[Tensor, "n 3"]:
    """Each camera's centre and the ends of its axes: points that fix a frame even for two cameras."""
    centre = world_from_camera.translation[:, None]
    axes = centre + reach * world_from_camera.rotation.transpose(-1, -2)
    return torch.cat([centre, axes], dim=1).reshape(-1, 3)


def _in_frame(pose: Rigid, frame: Similarity) -> Rigid:
    """The same cameras in the world after `frame`; camera coordinates scale with it."""
    rotation = pose.rotation @ frame.rotation.transpose(-1, -2)
    return Rigid(rotation, frame.scale * pose.translation - (rotation @ frame.translation[:, None])[..., 0])


def _report(problem: _Problem, start: _State, end: _State, pose: Rigid, steps: int, converged: bool) -> BundleReport:
    used = problem.weights > 0
    before, after = (problem.residuals(state)[0].norm(dim=-1)[used] for state in (start, end))
    shift = (pose.inverse().translation - start.pose.inverse().translation).norm(dim=-1)
    trace = torch.einsum("vij,vij->v", pose.rotation, start.pose.rotation)
    return BundleReport(
        rms_px_before=float(before.square().mean().sqrt()),
        rms_px_after=float(after.square().mean().sqrt()),
        median_px_before=float(before.median()),
        median_px_after=float(after.median()),
        num_observations=int(used.sum()),
        num_points=int(problem.taking_part.sum()),
        steps=steps,
        converged=converged,
        camera_shift=shift,
        camera_turn=torch.arccos(((trace - 1.0) / 2.0).clamp(-1.0, 1.0)),
    )

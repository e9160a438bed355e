"""3D plot of the room: cameras as frusta, people at several times, Z up, equal scale on all axes."""

from __future__ import annotations

import numpy as np
import torch
from jaxtyping import Float
from matplotlib.figure import Figure
from matplotlib.ticker import MultipleLocator
from mpl_toolkits.mplot3d import Axes3D
from mpl_toolkits.mplot3d.art3d import Line3DCollection

from mvpose.geometry.camera import CameraRig
from mvpose.report.figures import INK, MIDDLE_INK, new_figure, sides
from mvpose.report.subject import CaptureReport, mean_known

MOMENTS = 6
# Path along the edges of a frustum; 0 is the camera's centre, 1 to 4 the image's corners from the top left.
FRUSTUM_EDGES = ((0, 1), (0, 2), (0, 3), (0, 4), (1, 2), (2, 3), (3, 4), (4, 1))


def frusta(rig: CameraRig, depth_m: float) -> Float[np.ndarray, "V 5 3"]:
    """Centre and image corners of each camera in the world, `depth_m` metres in front of it, without distortion."""
    rig = rig.to(torch.float64)
    right, bottom = (rig.size.double() - 0.5).unbind(-1)
    zero = torch.full_like(right, -0.5)
    corners = torch.stack([zero, zero, right, zero, right, bottom, zero, bottom], dim=-1).unflatten(-1, (4, 2))
    plane = (corners - rig.centre[:, None]) / rig.focal[:, None]
    local = torch.cat([plane, torch.ones_like(plane[..., :1])], dim=-1) * depth_m
    points = torch.cat([torch.zeros_like(local[:, :1]), local], dim=1)
    return rig.camera_from_world.inverse().apply(points).cpu().numpy()


def frustum_depth(subject: CaptureReport) -> float:
    """A tenth of the median distance from the cameras to the people, in metres."""
    joints = subject.poses.xyz[np.isfinite(subject.poses.xyz).all(axis=-1)]
    centres = subject.capture.rig.centres_world.double().cpu().numpy()
    middle = np.median(joints, axis=0) if len(joints) else centres.mean(axis=0) - 1.0
    return 0.1 * float(np.median(np.linalg.norm(centres - middle, axis=1)))


def room_plot(subject: CaptureReport) -> Figure:
    """The whole room, and below it the people alone at evenly spread times, all at one scale."""
    rows = subject.moments(MOMENTS)
    azimuth = widest_azimuth(subject)
    with new_figure(7.4) as figure:
        figure.set_layout_engine("none")
        _draw_room(_axes_at(figure, (0.0, 0.34, 1.0, 0.64)), subject, rows, azimuth)
        half = _half_extent(subject, rows)
        for i, row in enumerate(rows):
            _draw_moment(_axes_at(figure, (i / MOMENTS, 0.0, 1.0 / MOMENTS, 0.34)), subject, row, half, azimuth)
        figure.text(0.012, 0.965, "Cameras and people", fontweight="bold", fontsize=11)
        figure.text(0.012, 0.325, "The same people, close-up, squares of 0.5 m", fontweight="bold", fontsize=11)
    return figure


def _axes_at(figure: Figure, rectangle: tuple[float, float, float, float]) -> Axes3D:
    axes = Axes3D(figure, rectangle)
    figure.add_axes(axes)
    return axes


def _draw_room(axes: Axes3D, subject: CaptureReport, rows: list[int], azimuth: float) -> None:
    rig = subject.capture.rig
    corners = frusta(rig, frustum_depth(subject))
    joints = subject.poses.xyz[np.isfinite(subject.poses.xyz).all(axis=-1)]
    # A distant joint would shrink the room to a dot: the bounds hold 98 % of the joints, and every camera.
    kept = np.percentile(joints, [1, 99], axis=0) if len(joints) else np.zeros((0, 3))
    everything = np.concatenate([corners.reshape(-1, 3), kept])
    low, high = everything.min(axis=0), everything.max(axis=0)
    low[2] = min(low[2], 0.0)
    edges = [camera[list(edge)] for camera in corners for edge in FRUSTUM_EDGES]
    axes.add_collection3d(Line3DCollection(edges, colors=MIDDLE_INK, linewidths=0.9))
    for name, camera in zip(rig.names, corners, strict=True):
        shown = name if len(name) <= 18 else name[:17] + "…"
        axes.text(camera[0, 0], camera[0, 1], camera[0, 2], f" {shown}", fontsize=8, zorder=10)
    for i, row in enumerate(rows):
        _draw_people(axes, subject, row, opacity=0.25 + 0.75 * (i + 1) / len(rows), width=1.3)
    axes.set(xlim=(low[0], high[0]), ylim=(low[1], high[1]), zlim=(low[2], high[2]))
    _finish(axes, high - low, azimuth, zoom=1.32)
    axes.set(xlabel="x, m", ylabel="y, m", zlabel="z, m")
    axes.locator_params(nbins=5)


def _draw_moment(axes: Axes3D, subject: CaptureReport, row: int, half: float, azimuth: float) -> None:
    joints = subject.poses.xyz[row].reshape(-1, 3)
    middle = np.median(joints[np.isfinite(joints).all(axis=1)], axis=0)
    _draw_people(axes, subject, row, opacity=1.0, width=1.8)
    axes.set(**{f"{a}lim": (middle[i] - half, middle[i] + half) for i, a in enumerate("xyz")})
    _finish(axes, np.ones(3), azimuth, zoom=1.18)
    for axis in (axes.xaxis, axes.yaxis, axes.zaxis):
        axis.set_major_locator(MultipleLocator(0.5))
    axes.set(xticklabels=[], yticklabels=[], zticklabels=[])
    axes.tick_params(length=0)
    axes.set_title(f"{subject.times_s[row]:.2f} s", fontsize=10, fontweight="normal", loc="center", y=0.97)


def _draw_people(axes: Axes3D, subject: CaptureReport, row: int, opacity: float, width: float) -> None:
    """Draw the bones that have both ends."""
    skeleton = subject.poses.skeleton
    side = sides(skeleton)
    for person in subject.poses.xyz[row]:
        bones = [(b, person[[a, b]]) for a, b in skeleton.bone_indices if np.isfinite(person[[a, b]]).all()]
        if bones:
            lines = Line3DCollection(
                [ends for _, ends in bones],
                colors=[INK[side[b]] for b, _ in bones],
                linewidths=width,
                alpha=opacity,
                capstyle="round",
                axlim_clip=True,
            )
            axes.add_collection3d(lines)


def _half_extent(subject: CaptureReport, rows: list[int]) -> float:
    """Half the side, in metres, of a cube that holds the people at any of these times, each about their median."""
    halves = [0.5]
    for row in rows:
        joints = subject.poses.xyz[row].reshape(-1, 3)
        joints = joints[np.isfinite(joints).all(axis=1)]
        halves.append(float(np.percentile(np.abs(joints - np.median(joints, axis=0)), 98)))
    return max(halves) * 1.1


def widest_azimuth(subject: CaptureReport) -> float:
    """View direction, in degrees about z, in which the joints have the widest spread about each person's centre."""
    flat = subject.poses.xyz[..., :2]
    about = (flat - mean_known(flat, axis=2)[:, :, None]).reshape(-1, 2)
    about = about[np.isfinite(about).all(axis=1)]
    if not len(about):
        return -60.0
    x, y = np.linalg.eigh(about.T @ about)[1][:, -1]
    return float(np.degrees(np.arctan2(y, x))) - 75.0


def _finish(axes: Axes3D, extent: Float[np.ndarray, 3], azimuth: float, zoom: float) -> None:
    """Equal scale on all axes, Z up, viewed from above the floor."""
    # matplotlib's stubs accept only an int for zoom.
    axes.set_box_aspect(tuple(extent), zoom=zoom)  # pyright: ignore[reportArgumentType]
    axes.view_init(elev=16, azim=azimuth)
    axes.tick_params(labelsize=8, pad=0)

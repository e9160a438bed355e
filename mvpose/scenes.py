"""Synthetic scenes with known ground truth: walking people of constant bone lengths in front of calibrated cameras.

For README, tests and benchmarks. Everything is determined by the arguments and the seed. Each scene is a function:
`ring4()`, `ring31()`, `narrow_baseline()`, `occluded()`, `outlier_view()`, `dropped_frame()`, `two_people_crossing()`.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from mvpose.geometry.camera import CameraRig
from mvpose.geometry.lens import Lens, LensModel
from mvpose.geometry.rigid import Rigid
from mvpose.records import Keypoints2D
from mvpose.skeleton import HALPE26, Skeleton

FPS = 30.0
STRIDES_PER_SECOND = 0.9
# A detector's guess of a joint that it cannot see: standard deviation of its error in pixels, and its confidence.
GUESS_PX, GUESS_CONFIDENCE = 30.0, 0.25


@dataclass(frozen=True, eq=False)
class Scene:
    """People in front of cameras."""

    rig: CameraRig
    joints: Float[np.ndarray, "T P J 3"]
    """Ground truth: world, metres, Z up."""
    skeleton: Skeleton
    fps: float
    seed: int
    seen: Bool[np.ndarray, "V T P J"]
    """False where a joint is occluded: the detector guesses it with low confidence."""
    detected: Bool[np.ndarray, "V T P"]
    """False where the detector misses a person."""
    shift_px: Float[np.ndarray, "V 2"]
    """Shift of a whole view, as after a knock against its camera."""

    def keypoints(self, noise_px: float = 2.0) -> Keypoints2D:
        """Simulated detections: Gaussian noise of `noise_px` per coordinate on average; confidence falls with noise.

        The slots of people are shuffled in every view and frame. A joint outside the image is missing.
        """
        rng = np.random.default_rng([self.seed, 2])
        projected, before = self.rig.project(torch.from_numpy(self.joints))
        exact = projected.numpy() + self.shift_px[:, None, None, None]
        inside = (before & self.rig.inside(torch.from_numpy(exact))).numpy() & self.detected[..., None]
        spread = rng.uniform(0.5, 1.5, exact.shape[:-1])
        confidence = np.where(self.seen, 1.05 - 0.3 * spread, GUESS_CONFIDENCE) * inside
        sigma = np.where(self.seen, noise_px * spread, np.hypot(noise_px, GUESS_PX))
        xy = exact + sigma[..., None] * rng.standard_normal(exact.shape)
        xy[~inside] = np.nan
        present = inside.sum(axis=-1) >= 3
        box = np.where(present[..., None], _boxes(xy), 0.0)
        place = rng.permuted(np.broadcast_to(np.arange(xy.shape[2]), xy.shape[:3]), axis=-1)

        def shuffled(values: np.ndarray) -> np.ndarray:
            index = place.reshape(*place.shape, *[1] * (values.ndim - 3))
            return np.take_along_axis(values, index, axis=2).astype(np.float32)

        score = np.where(present, 0.9, 0.0)
        return Keypoints2D(
            xy=shuffled(np.where(present[..., None, None], xy, np.nan)),
            confidence=shuffled(confidence * present[..., None]),
            box=shuffled(box),
            box_score=shuffled(score),
            skeleton=self.skeleton,
        )


def ring4(*, seed: int = 0, num_frames: int = 60, skeleton: Skeleton = HALPE26) -> Scene:
    """One person walking in a circle, surrounded by four cameras."""
    return _scene(_ring(4), [_circle(num_frames, seed)], seed, skeleton)


def ring31(*, seed: int = 0, num_frames: int = 30, skeleton: Skeleton = HALPE26) -> Scene:
    """One person walking in a circle, surrounded by 31 cameras at three heights."""
    return _scene(_ring(31, heights=(1.0, 1.9, 2.8)), [_circle(num_frames, seed)], seed, skeleton)


def narrow_baseline(*, seed: int = 0, num_frames: int = 60, skeleton: Skeleton = HALPE26) -> Scene:
    """One person, three cameras side by side within 12 degrees: depth is hard to estimate."""
    return _scene(_ring(3, span=np.radians(12.0)), [_circle(num_frames, seed)], seed, skeleton)


def occluded(*, seed: int = 0, num_frames: int = 60, skeleton: Skeleton = HALPE26) -> Scene:
    """One person, five cameras; every joint is hidden from every camera for a third of the time, in runs."""
    scene = _scene(_ring(5), [_circle(num_frames, seed)], seed, skeleton)
    rng = np.random.default_rng([seed, 1])
    period = 30
    start = rng.integers(0, period, scene.seen[:, :1].shape)
    hidden = (np.arange(num_frames)[None, :, None, None] + start) % period < period // 3
    return replace(scene, seen=~hidden)


def outlier_view(*, seed: int = 0, num_frames: int = 60, skeleton: Skeleton = HALPE26) -> Scene:
    """One person, five cameras, one of which was knocked: its detections are all 54 px off."""
    scene = _scene(_ring(5), [_circle(num_frames, seed)], seed, skeleton)
    shift = np.zeros((5, 2))
    shift[2] = 45.0, -30.0
    return replace(scene, shift_px=shift)


def standing(
    *,
    seed: int = 0,
    people: int = 4,
    cameras: int = 3,
    missed_by: int = 0,
    apart_m: float = 0.7,
    skeleton: Skeleton = HALPE26,
) -> Scene:
    """One frame of people who stand at random places, each overlooked by so many of the cameras around them."""
    rng = np.random.default_rng(seed)
    places: list[np.ndarray] = []
    while len(places) < people:
        place = rng.uniform(-1.6, 1.6, 2)
        if all(np.hypot(*(place - other)) > apart_m for other in places):
            places.append(place)
    paths = [np.array([[*place, rng.uniform(0.0, 2 * np.pi)]]) for place in places]
    scene = _scene(_ring(cameras), paths, seed, skeleton)
    detected = scene.detected.copy()
    for person in range(people):
        detected[rng.permutation(cameras)[:missed_by], 0, person] = False
    return replace(scene, detected=detected)


def dropped_frame(*, seed: int = 0, num_frames: int = 60, skeleton: Skeleton = HALPE26) -> Scene:
    """One person, four cameras: the second loses frames 10 to 19, and all lose frame 30."""
    scene = _scene(_ring(4), [_circle(num_frames, seed)], seed, skeleton)
    detected = scene.detected.copy()
    detected[1, 10:20] = False
    detected[:, 30] = False
    return replace(scene, detected=detected)


def two_people_crossing(*, seed: int = 0, num_frames: int = 90, skeleton: Skeleton = HALPE26) -> Scene:
    """Two people who walk towards each other and pass 0.6 m apart, four cameras."""
    people = [
        _line(num_frames, start=(-1.8, -0.3), velocity=(1.2, 0.0)),
        _line(num_frames, start=(1.8, 0.3), velocity=(-1.2, 0.0)),
    ]
    return _scene(_ring(4), people, seed, skeleton)


Path = Float[np.ndarray, "T 3"]
"""Position of the hip over the floor (x, y) and viewing direction of the person (yaw, radians)."""


def _circle(num_frames: int, seed: int) -> Path:
    start = np.random.default_rng([seed, 0]).uniform(0.0, 2 * np.pi)
    angle = start + np.arange(num_frames) / FPS * 1.2
    return np.stack([0.8 * np.cos(angle), 0.8 * np.sin(angle), angle + np.pi / 2], axis=-1)


def _line(num_frames: int, start: tuple[float, float], velocity: tuple[float, float]) -> Path:
    moved = np.array(start) + np.arange(num_frames)[:, None] / FPS * np.array(velocity)
    return np.column_stack([moved, np.full(num_frames, np.arctan2(velocity[1], velocity[0]))])


def _scene(rig: CameraRig, paths: list[Path], seed: int, skeleton: Skeleton) -> Scene:
    # The second person is smaller: people differ in bone lengths.
    joints = np.stack([_walk(path, skeleton, stature=0.93**p, phase=2.0 * p) for p, path in enumerate(paths)], axis=1)
    shape = (len(rig), *joints.shape[:3])
    return Scene(
        rig=rig,
        joints=joints,
        skeleton=skeleton,
        fps=FPS,
        seed=seed,
        seen=np.ones(shape, bool),
        detected=np.ones(shape[:3], bool),
        shift_px=np.zeros((len(rig), 2)),
    )


def _ring(
    num_cameras: int, *, span: float = 2 * np.pi, radius: float = 4.5, heights: tuple[float, ...] = (1.6,)
) -> CameraRig:
    """Cameras on an arc around the origin, looking at a point 0.9 m above it; full HD, mild distortion."""
    step = span / num_cameras if span == 2 * np.pi else span / (num_cameras - 1)
    angle = torch.arange(num_cameras, dtype=torch.float64) * step + 0.3
    height = torch.tensor([heights[i % len(heights)] for i in range(num_cameras)], dtype=torch.float64)
    centres = torch.stack([radius * angle.cos(), radius * angle.sin(), height], dim=-1)
    wobble = torch.linspace(-1.0, 1.0, num_cameras, dtype=torch.float64)
    lens = [[-0.12 + 0.03 * w, 0.06 - 0.02 * w, 0.001 * w, -0.0015 * w] for w in wobble.tolist()]
    return CameraRig(
        names=tuple(f"cam{i:02d}" for i in range(1, num_cameras + 1)),
        focal=(1150.0 + 20.0 * wobble)[:, None].expand(-1, 2).clone(),
        centre=torch.tensor([959.5, 539.5], dtype=torch.float64) + 6.0 * wobble[:, None],
        lens=Lens.of(LensModel.BROWN_CONRADY, lens),
        camera_from_world=_looking_at(centres, torch.tensor([0.0, 0.0, 0.9], dtype=torch.float64)),
        size=torch.tensor([1920, 1080]).expand(num_cameras, 2).clone(),
    )


def _looking_at(centres: Float[Tensor, "V 3"], target: Float[Tensor, 3]) -> Rigid:
    """Level cameras at `centres` whose optical axes meet `target`."""
    forward = torch.nn.functional.normalize(target - centres, dim=-1)
    up = torch.tensor([0.0, 0.0, 1.0], dtype=centres.dtype).expand_as(forward)
    right = torch.nn.functional.normalize(torch.linalg.cross(forward, up), dim=-1)
    rotation = torch.stack([right, torch.linalg.cross(forward, right), forward], dim=-2)
    return Rigid(rotation, -(rotation @ centres[..., None])[..., 0])


# Rigid segments of the body at rest: (segment, its parent, the joint it rotates about, the joints attached to it in
# metres: x forward, y left, z up). One side is listed, the other is mirrored. No joint is attached to two segments, and
# the bones of all skeletons in `mvpose.skeleton` connect a segment's joints or its pivot: their lengths are constant.
_TRUNK = ("trunk", "", "hip", {
    "hip": (0.0, 0.0, 0.0), "spine": (0.0, 0.0, 0.25), "neck": (0.0, 0.0, 0.52), "thorax": (0.0, 0.0, 0.52),
    "left_shoulder": (0.0, 0.18, 0.47), "right_shoulder": (0.0, -0.18, 0.47),
    "left_hip": (0.0, 0.10, -0.02), "right_hip": (0.0, -0.10, -0.02),
})  # fmt: skip
_HEAD = ("head", "trunk", "neck", {
    "nose": (0.11, 0.0, 0.12), "head": (0.0, 0.0, 0.25),
    "left_eye": (0.09, 0.032, 0.15), "right_eye": (0.09, -0.032, 0.15),
    "left_ear": (0.01, 0.075, 0.13), "right_ear": (0.01, -0.075, 0.13),
})  # fmt: skip
_LEFT = (
    ("upper_arm", "trunk", "shoulder", {"elbow": (0.0, 0.0, -0.29)}),
    ("forearm", "upper_arm", "elbow", {"wrist": (0.0, 0.0, -0.26)}),
    ("thigh", "trunk", "hip", {"knee": (0.0, 0.0, -0.43)}),
    ("shin", "thigh", "knee", {"ankle": (0.0, 0.0, -0.41)}),
    ("foot", "shin", "ankle", {
        "big_toe": (0.17, -0.02, -0.07), "small_toe": (0.14, 0.05, -0.07), "heel": (-0.06, 0.0, -0.08),
    }),
)  # fmt: skip
# Flexion of a segment relative to its parent over a stride, radians: mean, swing, phase relative to its side's thigh.
_GAIT = {
    "trunk": (0.06, 0.02, 0.0),
    "head": (-0.03, 0.05, 1.0),
    "upper_arm": (-0.05, 0.40, np.pi),
    "forearm": (-0.60, 0.30, np.pi),
    "thigh": (-0.10, 0.45, 0.0),
    "shin": (0.45, 0.40, 1.2),
    "foot": (-0.05, 0.20, 0.6),
}
_HIP_HEIGHT = 0.93


def _walk(path: Path, skeleton: Skeleton, stature: float, phase: float) -> Float[np.ndarray, "T J 3"]:
    """Forward kinematics of a walk along a path. Raises ValueError for a joint that this body does not have."""
    stride = 2 * np.pi * STRIDES_PER_SECOND * np.arange(len(path)) / FPS + phase
    bob = _HIP_HEIGHT * stature + 0.02 * np.sin(2 * stride)
    joints = {"hip": np.column_stack([path[:, :2], bob])}
    turned = {"": _rotation(path[:, 2], axis=2)}
    for segment, parent, origin, riding in _segments():
        side = np.pi if segment.startswith("right_") else 0.0
        mean, swing, lag = _GAIT[segment.removeprefix("left_").removeprefix("right_")]
        turned[segment] = turned[parent] @ _rotation(mean + swing * np.sin(stride + lag + side), axis=1)
        for joint, offset in riding.items():
            joints[joint] = joints[origin] + stature * turned[segment] @ np.array(offset, float)
    absent = [joint for joint in skeleton.joints if joint not in joints]
    if absent:
        raise ValueError(f"skeleton {skeleton.name} has joints that the synthetic body lacks: {', '.join(absent)}")
    return np.stack([joints[joint] for joint in skeleton.joints], axis=1)


def _segments() -> list[tuple[str, str, str, dict[str, tuple[float, float, float]]]]:
    """All segments of both sides, parents first."""
    sides = []
    for side, sign in (("left", 1), ("right", -1)):
        for segment, parent, origin, riding in _LEFT:
            mirrored = {f"{side}_{joint}": (x, sign * y, z) for joint, (x, y, z) in riding.items()}
            above = parent if parent == "trunk" else f"{side}_{parent}"
            sides.append((f"{side}_{segment}", above, f"{side}_{origin}", mirrored))
    return [_TRUNK, _HEAD, *sides]


def _rotation(angle: Float[np.ndarray, "*t"], axis: int) -> Float[np.ndarray, "*t 3 3"]:
    vector = np.zeros((*angle.shape, 3))
    vector[..., axis] = angle
    return Rigid.from_rotation_vector(torch.from_numpy(vector), torch.zeros(vector.shape).double()).rotation.numpy()


def _boxes(xy: Float[np.ndarray, "*n J 2"]) -> Float[np.ndarray, "*n 4"]:
    """left, top, right, bottom around the available joints, extended by 5 % on each side."""
    missing = np.isnan(xy)
    low = np.where(missing, np.inf, xy).min(axis=-2)
    high = np.where(missing, -np.inf, xy).max(axis=-2)
    empty = missing.all(axis=-2)
    low, high = np.where(empty, 0.0, low), np.where(empty, 0.0, high)
    margin = 0.05 * (high - low)
    return np.concatenate([low - margin, high + margin], axis=-1)

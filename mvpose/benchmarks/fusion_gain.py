"""What canonical fusion gains over the detector's own joints: rendered people with the truth, and real footage.

Rendered people, motions and rigs are of the test split. Their true joints are moved by the constant offset between the
two definitions of a joint, in the person's own axes, as measured with all cameras uncovered and without fusion.

On footage, 3D joints are made without a camera, also the fusion, and projected into it. The reference there are 2D
joints of the uncovered images: those of the detector, and those of BlazePose, which has nothing in common with it.

Errors are means over the joints that both have; how many each of them has is printed beside, and of rendered people how
many of all joints are wrong, how many are within their sigma, and how many of the joints that fusion guesses are right.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field

import numpy as np
import torch
from jaxtyping import Float

from mvpose.benchmarks.blaze_pose import BlazePose
from mvpose.benchmarks.covered_cameras import Cover, CoveredCameras, DetectorAndFusion
from mvpose.benchmarks.cut_off import nearest_people, of_nearest
from mvpose.benchmarks.guesses import Guesses, guesses, print_guesses
from mvpose.capture import CapturePlan
from mvpose.datasets.sample import TEST
from mvpose.device_images import AnyImage
from mvpose.errors import ConfigError
from mvpose.footage.video.capture_frames import ViewFrames
from mvpose.models.detection.detector_settings import DetectorConfig
from mvpose.models.detection.people import People
from mvpose.models.shipped import FUSION
from mvpose.pipeline.detections import chunks_of_views
from mvpose.quality.quality import quality
from mvpose.reconstruction.clip import ReconstructionConfig
from mvpose.records import Clip
from mvpose.rendering.takes import TakeConfig, rendered_take
from mvpose.run.run_folder import RunFolder
from mvpose.skeleton import BODY_JOINTS, RENDERED
from mvpose.training.token_reader import person_axes

HALVES = (Cover.LOWER, Cover.LEFT)
SURE = 0.5
"""Confidence of a 2D joint that is a reference."""
WRONG_MM = 150.0
"""A joint further than this from the truth is wrong."""
SAME_PERSON = 0.25
"""Median distance from the projected joints to those of the same person in an image, relative to the person's size."""


@dataclass(frozen=True, kw_only=True)
class FusionBenchmark:
    """Canonical fusion against the detector's own joints: with cameras covered in part, and by number of cameras."""

    model: str = FUSION
    """Folder of a trained network of the method canonical_tokens, or the name of a shipped one."""
    takes: int = 20
    """Number of rendered takes, each by a rig of its own; 0 for none."""
    take: TakeConfig = field(default_factory=lambda: TakeConfig(views=8))
    run: str = ""
    """Finished run of real footage: its captures and cameras are used."""
    frames: int = 100
    """Maximum number of frames of each capture."""
    detector: DetectorConfig = field(default_factory=DetectorConfig)
    reconstruction: ReconstructionConfig = field(default_factory=ReconstructionConfig)
    json: str | None = None
    """Output file for the figures."""


@dataclass(frozen=True)
class Gain:
    """Errors without and with fusion, of the joints that both have."""

    without: float
    fused: float
    found_without: float
    found_fused: float

    @property
    def change(self) -> float:
        """Relative change by fusion; negative is better. NaN from 0."""
        return self.fused / self.without - 1 if self.without else np.nan

    @classmethod
    def of(cls, without: Float[np.ndarray, " n"], fused: Float[np.ndarray, " n"]) -> Gain:
        """From the errors of the same joints, NaN where missing."""
        both = np.isfinite(without) & np.isfinite(fused)
        found = np.isfinite(without).mean(), np.isfinite(fused).mean()
        return cls(float(without[both].mean()), float(fused[both].mean()), *map(float, found))

    def text(self, unit: str) -> str:
        """One line."""
        return (
            f"{self.without:6.2f} -> {self.fused:6.2f} {unit} ({self.change:+.1%}), "
            f"found {self.found_without:.1%} -> {self.found_fused:.1%}"
        )


def run(config: FusionBenchmark) -> None:
    """Measure, print a table, write JSON."""
    if config.takes < 1 and not config.run:
        raise ConfigError("nothing to measure: set takes, or name a run of real footage.")
    fusion, figures = DetectorAndFusion(config.model, config.detector, config.reconstruction), {}
    if config.takes > 0:
        figures |= _print(f"{config.takes} rendered takes", rendered_gains(config, fusion))
    if config.run:
        reference = BlazePose()
        for plan in RunFolder(config.run).plans():
            if RunFolder(config.run).poses(plan) is not None:
                figures |= _print(plan.capture.capture_id, footage_gains(config, fusion, plan, reference))
    if config.json:
        with open(config.json, "w", encoding="utf-8") as file:
            json.dump({name: asdict(gain) for name, gain in figures.items()}, file, indent=1)


def _print(title: str, gains: Iterator[tuple[str, str, Gain]]) -> dict[str, Gain]:
    """Print gains as they come; the result is by name."""
    figures = {}
    for name, unit, gain in gains:
        figures[f"{title}, {name}"] = gain
        print(f"{title}, {name}: {gain.text(unit)}", flush=True)
    return figures


def take_conditions(views: int) -> dict[str, list[tuple[range, dict[int, Cover]]]]:
    """By name: the cameras used and those of them that are covered."""
    four = range(min(4, views))
    conditions: dict[str, list[tuple[range, dict[int, Cover]]]] = {
        "4 cameras, uncovered": [(four, {})],
        "4 cameras, half of one covered": [(four, {0: half}) for half in HALVES],
        "4 cameras, half of two covered": [(four, {0: half, 1: half}) for half in HALVES],
        "4 cameras, one cut off": [(four, {0: Cover.EDGE})],
        "4 cameras, two cut off": [(four, {0: Cover.EDGE, 1: Cover.EDGE})],
    }
    return conditions | {f"{n} cameras": [(range(n), {})] for n in range(2, views + 1)}


def rendered_gains(config: FusionBenchmark, fusion: DetectorAndFusion) -> Iterator[tuple[str, str, Gain]]:
    """Errors of rendered people in millimetres, by condition."""
    takes = [_rendered(config.take, index, fusion) for index in range(config.takes)]
    every = range(config.take.views)
    offsets = _offsets(
        [(truth, _joints(fusion, cameras, every, {}, truth, fused=False)[0]) for cameras, truth in takes]
    )
    guessed: list[Guesses] = []
    for name, variants in take_conditions(config.take.views).items():
        errors: dict[bool, list[np.ndarray]] = {False: [], True: []}
        within: dict[bool, list[np.ndarray]] = {False: [], True: []}
        for (cameras, truth), (views, covers) in itertools.product(takes, variants):
            for fused in errors:
                joints, sigma = _joints(fusion, cameras, views, covers, truth, fused=fused)
                apart = _from_truth(joints, truth)
                errors[fused].append(1000 * np.linalg.norm(apart - offsets, axis=-1).ravel())
                within[fused].append((1000 * np.linalg.norm(apart, axis=-1) <= sigma)[np.isfinite(sigma)])
            guessed.append(guesses(fusion, cameras, views, covers, _as_detected(truth, offsets)))
        without, fused = (np.concatenate(own) for own in errors.values())
        gain = Gain.of(without, fused)
        yield name, "mm", gain
        for what, shares in (
            (f"more than {WRONG_MM:g} mm off", [own > WRONG_MM for own in (without, fused)]),
            ("within sigma", [np.concatenate(own) for own in within.values()]),
        ):
            share = [100 * float(own.mean()) for own in shares]
            yield f"{name}, {what}", "%", Gain(share[0], share[1], gain.found_without, gain.found_fused)
    print_guesses(guessed)


def _rendered(
    config: TakeConfig, index: int, fusion: DetectorAndFusion
) -> tuple[CoveredCameras, Float[np.ndarray, "T P J 3"]]:
    """The detections of a take, frame by frame because takes have few frames per second, and its true joints."""
    take = rendered_take(config, TEST, index)
    body = take.joints[:, :, RENDERED.indices(*BODY_JOINTS)]
    pixels = take.rig.project(torch.from_numpy(body[:, 0]))[0].numpy()
    middle = np.median(pixels, axis=(1, 2))
    covered = tuple(range(min(2, config.views)))
    covers = {Cover.NOTHING: tuple(range(config.views)), **dict.fromkeys((*HALVES, Cover.EDGE), covered)}
    there = np.ones(1, bool)
    chunks = [[ViewFrames(view[t : t + 1], there) for view in take.images] for t in range(config.frames)]
    return CoveredCameras(
        f"take {index}", take.rig, take.fps, middle, fusion.detections(chunks, middle, covers)
    ), take.joints.astype(np.float64)


def _joints(
    fusion: DetectorAndFusion,
    cameras: CoveredCameras,
    views: Sequence[int],
    covers: Mapping[int, Cover],
    truth: Float[np.ndarray, "T P J 3"],
    *,
    fused: bool,
) -> tuple[Float[np.ndarray, "T P 12 3"], Float[np.ndarray, "T P 12"]]:
    """The joints found of each person, metres, and their sigmas in millimetres; NaN where missing."""
    body = truth[:, :, RENDERED.indices(*BODY_JOINTS)]
    poses = fusion.poses(cameras, views, covers, truth.shape[1], fused=fused)
    if poses is None:
        return np.full(body.shape, np.nan), np.full(body.shape[:-1], np.nan)
    nearest, joints = nearest_people(poses, body), poses.skeleton.indices(*BODY_JOINTS)
    found = (values[:, :, joints].astype(np.float64) for values in (poses.xyz, poses.sigma_mm))
    xyz, sigma = (of_nearest(values, nearest) for values in found)
    return xyz, sigma


def _from_truth(
    joints: Float[np.ndarray, "T P 12 3"], truth: Float[np.ndarray, "T P J 3"]
) -> Float[np.ndarray, "T P 12 3"]:
    """From the true to the found joints, metres: to the person's left, forward and up."""
    return np.einsum("tpab,tpjb->tpja", _axes(truth), joints - truth[:, :, RENDERED.indices(*BODY_JOINTS)])


def _as_detected(
    truth: Float[np.ndarray, "T P J 3"], offsets: Float[np.ndarray, "12 3"]
) -> Float[np.ndarray, "T P 12 3"]:
    """The true joints, moved by the constant offsets."""
    return truth[:, :, RENDERED.indices(*BODY_JOINTS)] + np.einsum("tpab,ja->tpjb", _axes(truth), offsets)


def _axes(truth: Float[np.ndarray, "T P J 3"]) -> Float[np.ndarray, "T P 3 3"]:
    return person_axes(truth.reshape(-1, *truth.shape[2:]), RENDERED).reshape(*truth.shape[:2], 3, 3)


def _offsets(
    pairs: Sequence[tuple[Float[np.ndarray, "T P J 3"], Float[np.ndarray, "T P 12 3"]]],
) -> Float[np.ndarray, "12 3"]:
    """The constant offsets between the definitions, metres in the person's own axes."""
    apart = np.concatenate([_from_truth(joints, truth).reshape(-1, 12, 3) for truth, joints in pairs])
    return np.nanmedian(apart, axis=0)


@dataclass(frozen=True, eq=False)
class _ReferenceJoints:
    """Reference joints of the people in one image."""

    xy: Float[np.ndarray, "P 12 2"]
    """NaN where a joint is not sure."""
    size: Float[np.ndarray, " P"]


def footage_gains(
    config: FusionBenchmark, fusion: DetectorAndFusion, plan: CapturePlan, blaze: BlazePose
) -> Iterator[tuple[str, str, Gain]]:
    """Errors of a camera left out, in pixels by either reference, and variation of bone lengths, by condition."""
    cameras, references, people = _detected_footage(config, fusion, plan, blaze)
    views = range(len(cameras.rig))
    for count, name in enumerate(("uncovered", "half of one camera covered", "half of two cameras covered")):
        errors = {reference: {False: [], True: []} for reference in references}
        spread: dict[bool, list[float]] = {False: [], True: []}
        for some, half in itertools.product(itertools.combinations(views, count), HALVES if count else (Cover.LEFT,)):
            covers = dict.fromkeys(some, half)
            for fused in (False, True):
                spread[fused].append(_bone_spread(fusion, cameras, covers, people, fused=fused))
                for left_out in set(views) - set(some):
                    rest = [view for view in views if view != left_out]
                    poses = fusion.poses(cameras, rest, covers, people, fused=fused)
                    for reference, seen in references.items():
                        xyz = None if poses is None else poses.xyz[:, :, poses.skeleton.indices(*BODY_JOINTS)]
                        errors[reference][fused].append(_left_out_px(xyz, seen[left_out], cameras, left_out))
        for reference, own in errors.items():
            yield (
                f"{name}, left-out camera by {reference}",
                "px",
                Gain.of(np.concatenate(own[False]), np.concatenate(own[True])),
            )
        yield f"{name}, bone spread", "%", Gain.of(100 * np.array(spread[False]), 100 * np.array(spread[True]))


def _detected_footage(
    config: FusionBenchmark, fusion: DetectorAndFusion, plan: CapturePlan, blaze: BlazePose
) -> tuple[CoveredCameras, dict[str, list[list[_ReferenceJoints]]], int]:
    """Detections of a capture of the run by cover, the references by view and frame, and the number of people."""
    run, capture = RunFolder(config.run), plan.capture
    rig, poses = run.rig(plan), run.poses(plan)
    assert poses is not None
    stop = min(config.frames, capture.num_frames)
    pixels = rig.project(torch.from_numpy(poses.xyz[:stop].astype(np.float64)))[0].numpy()
    middle = np.nanmedian(pixels.reshape(len(rig), -1, 2), axis=1)
    views = tuple(range(len(rig)))
    clip = Clip(capture.capture_id, 0, stop)
    covers: dict[Cover, Sequence[int]] = dict.fromkeys((Cover.NOTHING, *HALVES), views)
    found: dict[Cover, list[list[People]]] = {cover: [[] for _ in views] for cover in covers}
    references: dict[str, list[list[_ReferenceJoints]]] = {
        name: [[] for _ in views] for name in ("RTMPose", "BlazePose")
    }
    for chunk in chunks_of_views(capture.videos, clip, fusion.detector.chunk_frames):
        part = fusion.detections([chunk], middle, covers)
        for cover, v in itertools.product(covers, views):
            found[cover][v] += part[cover][v]
        for v, people in enumerate(part[Cover.NOTHING]):
            references["RTMPose"][v] += [_by_detector(p, fusion) for p in people]
            references["BlazePose"][v] += [_by_blaze_pose(p, chunk[v].image(t), blaze) for t, p in enumerate(people)]
    cameras = CoveredCameras(capture.capture_id, rig, capture.fps, middle, found)
    return cameras, references, len(poses.track_id)


def _by_detector(people: People, fusion: DetectorAndFusion) -> _ReferenceJoints:
    joints = fusion.detector.skeleton.indices(*BODY_JOINTS)
    sure = people.confidence[:, joints] > SURE
    return _ReferenceJoints(np.where(sure[..., None], people.xy[:, joints], np.nan).astype(np.float64), _sizes(people))


def _by_blaze_pose(people: People, image: AnyImage | None, blaze: BlazePose) -> _ReferenceJoints:
    joints = np.full((len(people.box), len(BODY_JOINTS), 2), np.nan)
    for own, box in zip(joints, people.box.astype(np.float64), strict=True):
        assert isinstance(image, np.ndarray)  # RGB was asked for, and a frame that a view lacks has no detections
        xy, seen = blaze(image, box)
        own[seen] = xy[seen]
    return _ReferenceJoints(joints, _sizes(people))


def _sizes(people: People) -> Float[np.ndarray, " P"]:
    return (people.box[:, 2:] - people.box[:, :2]).max(axis=1).astype(np.float64)


def _left_out_px(
    xyz: Float[np.ndarray, "T P 12 3"] | None, seen: Sequence[_ReferenceJoints], cameras: CoveredCameras, view: int
) -> Float[np.ndarray, " n"]:
    """Distance of the sure joints of every person in the image of a view from the nearest projected person's."""
    rig = cameras.rig.select((cameras.rig.names[view],))
    errors = [np.zeros(0)]
    for t, frame in enumerate(seen):
        distance = np.full((len(frame.xy), len(BODY_JOINTS)), np.nan)
        if xyz is not None and xyz.shape[1]:
            pixels = rig.project(torch.from_numpy(xyz[t].astype(np.float64)))[0][0].numpy()
            apart = np.linalg.norm(pixels[None] - frame.xy[:, None], axis=-1)
            middle = np.ma.median(np.ma.masked_invalid(apart), axis=-1).filled(np.inf)
            for p, nearest in enumerate(middle.argmin(axis=1)):
                if middle[p, nearest] < SAME_PERSON * frame.size[p]:
                    distance[p] = apart[p, nearest]
        errors.append(distance[np.isfinite(frame.xy).all(axis=-1)])
    return np.concatenate(errors)


def _bone_spread(
    fusion: DetectorAndFusion, cameras: CoveredCameras, covers: Mapping[int, Cover], people: int, *, fused: bool
) -> float:
    views = range(len(cameras.rig))
    keypoints, rig = fusion.keypoints(cameras, views, covers, fused=fused)
    poses = fusion.reconstructed(keypoints, rig, cameras.fps, people)
    if poses is None:
        return np.nan
    return quality(poses, keypoints, rig, cameras.fps, fusion.config).body_bone_spread

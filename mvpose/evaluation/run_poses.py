"""Predictions of a `mvpose reconstruct` run: its `poses/`, matched to the people of the ground truth frame by frame."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import replace

import numpy as np
from jaxtyping import Float
from scipy.optimize import linear_sum_assignment

from mvpose.capture import CapturePlan
from mvpose.datasets.sample import Sample, SampleImage
from mvpose.errors import ConfigError
from mvpose.evaluation.answers import Answers, without_images
from mvpose.evaluation.paired_frames import paired_frames
from mvpose.evaluation.several_people import PeopleFrames
from mvpose.records import Poses3D
from mvpose.run.run_folder import RunFolder
from mvpose.skeleton import Skeleton

# Cost of a pair without a common joint: never chosen while another pair is left, and removed afterwards.
_NEVER = 1e6


def run_answers(run: RunFolder, samples: Iterable[Sample], joints_that_count: Sequence[str] | None = None) -> Answers:
    """Poses of a run for every sample of a capture that the run planned; frames are paired by `paired_frames`.

    In each frame people and tracks are paired by the minimum sum of mean joint distances: positions are evaluated,
    identities are not. A sample without a track has no answer. ConfigError if run and samples share no capture, or
    less than half of the frames of one.
    """
    plans = {plan.capture.capture_id: plan for plan in run.plans()}
    by_capture: dict[str, list[Sample]] = defaultdict(list)
    wanted = set()
    for sample in samples:
        wanted.add(sample.capture_id)
        if sample.capture_id in plans:
            numbers = tuple(SampleImage(frame=image.frame) for image in sample.images)
            by_capture[sample.capture_id].append(replace(sample, images=numbers))
    if not by_capture:
        raise ConfigError(
            f"{run.uri} contains none of the captures of the ground truth: it has {', '.join(sorted(plans)[:5])}; "
            f"the truth has {', '.join(sorted(wanted)[:5])}."
        )
    missing = wanted - plans.keys()
    notes = [f"the run has {len(by_capture)} of the {len(wanted)} captures of the truth"] if missing else []
    kept: dict[str, list[tuple[Sample, int]]] = {}
    for name, own in by_capture.items():
        paired = paired_frames(plans[name].capture, own)
        kept[name] = [(without_images(s), f) for s, f in zip(own, paired.frames, strict=True) if f is not None]
        notes += paired.notes
    found = {name: _capture_joints(run.poses(plans[name]), own) for name, own in kept.items()}
    skeletons = [skeleton for _, skeleton in found.values() if skeleton is not None]
    if not skeletons:
        raise ConfigError(f"{run.uri} has no poses of the captures of the ground truth.")
    flat = [s for own in kept.values() for s, _ in own]
    people = [(run.poses(plans[name]), own) for name, own in kept.items() if own]
    width = len(skeletons[0].joints)
    joints = [j if k is not None else np.full((len(j), width, 3), np.nan) for j, k in found.values()]
    return Answers(
        samples=flat,
        joints=np.concatenate(joints),
        skeleton=skeletons[0],
        cameras=[_cameras(plans[s.capture_id]) for s in flat],
        max_views=np.ones(len(flat), bool),
        jdr=np.full(len(flat), np.nan),
        notes=tuple(notes),
        people=tuple(PeopleFrames.of(poses, own, joints_that_count) for poses, own in people if poses is not None),
    )


def _cameras(plan: CapturePlan) -> tuple[str, ...]:
    return plan.capture.rig.names


def _capture_joints(
    poses: Poses3D | None, paired: list[tuple[Sample, int]]
) -> tuple[Float[np.ndarray, "n K 3"], Skeleton | None]:
    """Joints of the track matched to each sample; NaN if there is none, or its frame is not in the run."""
    samples = [sample for sample, _ in paired]
    if poses is None:
        return np.full((len(samples), 1, 3), np.nan), None
    source, shared = poses.skeleton.remap(samples[0].skeleton)
    joints = np.full((len(samples), len(poses.skeleton.joints), 3), np.nan)
    by_frame: dict[int, list[int]] = defaultdict(list)
    for i, (_, frame) in enumerate(paired):
        if 0 <= frame < len(poses.xyz):
            by_frame[frame].append(i)
    for frame, people in by_frame.items():
        truth = np.stack([samples[i].xyz for i in people])[:, shared]
        tracks = poses.xyz[frame].astype(np.float64)
        for person, track in matched(tracks[:, source[shared]], truth):
            joints[people[person]] = tracks[track]
    return joints, poses.skeleton


def matched(tracks: Float[np.ndarray, "P J 3"], truth: Float[np.ndarray, "Q J 3"]) -> list[tuple[int, int]]:
    """(person, track) pairs with the minimum sum of mean distances over their common joints."""
    distance = np.linalg.norm(truth[:, None] - tracks, axis=-1)
    known = np.isfinite(distance)
    total, count = np.where(known, distance, 0.0).sum(axis=-1), known.sum(axis=-1)
    cost = np.where(count > 0, total / np.maximum(count, 1), _NEVER)
    pairs = zip(*linear_sum_assignment(cost), strict=True)
    return [(int(person), int(track)) for person, track in pairs if cost[person, track] < _NEVER]

"""Answers of a lifter for a table of samples: one camera's 2D joints with the detector's errors, lifted and placed."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable

import numpy as np
import torch
from jaxtyping import Float

from mvpose.datasets.sample import Sample
from mvpose.errors import ConfigError
from mvpose.evaluation.answers import Answers, without_images
from mvpose.evaluation.network import chosen_cameras
from mvpose.models.saved import SavedModel
from mvpose.reconstruction.lifted_people import TrackLifter
from mvpose.training.lifting_reader import detected, in_camera

NOTE = "lifted from the truth as one camera sees it, with the measured errors of the detector: no image was read"


def lifted_answers(model: SavedModel, samples: Iterable[Sample], seed: int = 0) -> Answers:
    """Poses of every sample from one camera of its rig, which is chosen by the first sample of each person.

    Placed as `mvpose reconstruct --monocular` places them. A joint that the detector misses has no answer. The errors
    are drawn from the seed. ConfigError if there is no sample.
    """
    lift = TrackLifter.of(model)
    people: dict[tuple[str, int], list[Sample]] = defaultdict(list)
    for sample in samples:
        people[sample.capture_id, sample.person].append(without_images(sample))
    if not people:
        raise ConfigError("there are no samples to lift.")
    joints: list[Float[np.ndarray, "n J 3"]] = []
    cameras: list[tuple[str, ...]] = []
    for number, own in enumerate(people.values()):
        (camera,) = chosen_cameras(own[0], 1, seed)
        cameras += [(camera,)] * len(own)
        joints.append(_lifted(lift, own, camera, np.random.default_rng([seed, number])))
    flat = [sample for own in people.values() for sample in own]
    nothing = np.full(len(flat), np.nan)
    return Answers(
        flat, np.concatenate(joints), lift.skeleton, cameras, np.ones(len(flat), bool), nothing, notes=(NOTE,)
    )


def _lifted(lift: TrackLifter, own: list[Sample], camera: str, rng: np.random.Generator) -> Float[np.ndarray, "n J 3"]:
    """World joints of one person's samples, from the frames between the first and the last."""
    frames = np.array([sample.frame for sample in own])
    first, count = frames.min(), int(np.ptp(frames)) + 1
    window: list[Sample | None] = [None] * count
    for sample in own:
        window[sample.frame - first] = sample
    poses, visible = in_camera(window, camera, lift.skeleton)
    points = torch.from_numpy(detected(poses, visible, lift.skeleton, rng)).float()
    fps = own[0].fps if math.isfinite(own[0].fps) else lift.fps
    found, valid = lift(points.nan_to_num(), points.isfinite().all(dim=-1), lift.skeleton, fps)
    there = torch.from_numpy(frames - first)
    world = np.full((len(own), *found.shape[1:]), np.nan)
    for i, sample in enumerate(own):
        if camera in sample.rig.names:
            camera_from_world = sample.rig.select((camera,)).camera_from_world
            at = camera_from_world.inverse().apply(found[there[i]].double()[None])[0]
            world[i] = torch.where(valid[there[i]][:, None], at, torch.nan).numpy()
    return world

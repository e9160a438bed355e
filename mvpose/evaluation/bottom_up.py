"""Answers of a bottom-up network for images of several people: grouped in each view, associated, and triangulated."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from itertools import groupby

import numpy as np
import torch

from mvpose.confidence import AS_STATED
from mvpose.datasets.sample import Sample
from mvpose.errors import ConfigError, NoPersonError, TooFewViewsError
from mvpose.evaluation.answers import Answers, without_images
from mvpose.evaluation.image_people import ImagePeople, body_of, in_stored_image, true_people
from mvpose.evaluation.run_poses import matched
from mvpose.evaluation.several_people import PeopleFrames
from mvpose.geometry.lens import Lens
from mvpose.models.network_settings import FieldsMethod
from mvpose.models.saved import SavedModel
from mvpose.models.single_view.affinity_fields import GroupedPeople
from mvpose.models.single_view.field_network import grouped_people
from mvpose.reconstruction.clip import reconstruct, without_people
from mvpose.reconstruction.reconstruction_settings import ReconstructionConfig
from mvpose.records import Keypoints2D, Poses3D
from mvpose.skeleton import SKELETONS
from mvpose.training.batches import CropView
from mvpose.training.group_reader import group_arrays

_RNG = np.random.default_rng(0)
"""Never drawn from: nothing is random without augmentation."""
CONFIDENCE = 0.9
"""Likelihood of a joint that grouping gave to a person, of a model without a confidence scale (`write_confidence`): the
height of a peak is none."""
STILL_FPS = 25.0
"""Frames per second of the clip of one frame that each image is reconstructed as; it has no effect."""


def bottom_up_answers(model: SavedModel, samples: Iterable[Sample], joints: Sequence[str] | None = None) -> Answers:
    """Everyone in the frames of these samples, found by the network in every view without knowing where people are.

    People of all views are associated and triangulated as `mvpose reconstruct` does, and paired with the true ones by
    the minimum sum of distances. A sample without a partner has no answer. ConfigError if the table has crops about
    each person, or no sample.
    """
    method = model.config
    assert isinstance(method, FieldsMethod)
    skeleton = SKELETONS[method.skeleton]
    answered: list[Sample] = []
    found: list[np.ndarray] = []
    images: list[ImagePeople] = []
    frames: list[PeopleFrames] = []
    for people in _frames(samples):
        rig = people[0].rig
        arrays = group_arrays(people, CropView(skeleton=skeleton, crop=model.rule.crop, views=len(rig)), _RNG)
        grouped = grouped_people(model.network, torch.from_numpy(arrays["images"]), method)
        own = [without_images(sample) for sample in people]
        points = [_in_image(group, v, arrays["projections"], own[0]) for v, group in enumerate(grouped)]
        for v, group in enumerate(grouped):
            truth = true_people(own, v)
            if len(truth[0]):
                predicted = body_of(points[v], skeleton)
                images.append(ImagePeople(own[0].capture_id, predicted, group.scores.double().numpy(), *truth))
        poses = _in_space(points, grouped, own[0], model)
        frames.append(PeopleFrames.of(poses, [(sample, 0) for sample in own], joints))
        answered += own
        found.append(_paired(poses, own))
    if not answered:
        raise ConfigError("there are no images to find people in.")
    nothing = np.full(len(answered), np.nan)
    cameras = [sample.rig.names for sample in answered]
    return Answers(
        answered, np.concatenate(found), skeleton, cameras, np.ones(len(answered), bool), nothing,
        people=tuple(frames), images=tuple(images),
    )  # fmt: skip


def _frames(samples: Iterable[Sample]) -> Iterator[list[Sample]]:
    """The people of each frame; a table has them one after another."""
    for _, people in groupby(samples, key=lambda sample: (sample.capture_id, sample.frame)):
        yield list(people)


def _in_image(group: GroupedPeople, view: int, projections: np.ndarray, sample: Sample) -> np.ndarray:
    """Points (P J 2) in undistorted pixels of the stored image; NaN for a joint that was not found."""
    pixels = group.points.double().numpy()
    rig = sample.rig.select((sample.rig.names[view],))
    flat = in_stored_image(pixels.reshape(1, -1, 2), projections[view : view + 1], rig).reshape(pixels.shape)
    return np.where(group.found.numpy()[..., None], flat, np.nan)


def _in_space(
    points: Sequence[np.ndarray], grouped: Sequence[GroupedPeople], sample: Sample, model: SavedModel
) -> Poses3D:
    """The people on which two views or more agree."""
    skeleton = SKELETONS[model.rule.skeleton]
    most = max(map(len, points))
    xy = np.full((len(points), 1, most, len(skeleton.joints), 2), np.nan)
    score = np.zeros((len(points), 1, most))
    height = np.full(xy.shape[:-1], CONFIDENCE)
    for v, (own, group) in enumerate(zip(points, grouped, strict=True)):
        xy[v, 0, : len(own)] = own
        score[v, 0, : len(own)] = group.scores.numpy().clip(0.0, 1.0)
        if model.confidence != AS_STATED:
            height[v, 0, : len(own)] = group.heights.numpy().clip(0.0, 1.0)
    known: np.ndarray = np.all(np.isfinite(xy), axis=-1)
    low = np.where(known[..., None], xy, np.inf).min(axis=3, initial=np.inf)
    high = np.where(known[..., None], xy, -np.inf).max(axis=3, initial=-np.inf)
    box = np.where(np.any(known, axis=3, keepdims=True), np.concatenate([low, high], axis=-1), 0.0)
    confidence = np.where(known, height, 0.0)
    xy, confidence, box, score = (values.astype(np.float32) for values in (xy, confidence, box, score))
    keypoints = Keypoints2D(xy, confidence, box, score, skeleton, model.confidence)
    rig = replace(sample.rig, lens=Lens.none(len(sample.rig)))
    try:
        return reconstruct(keypoints, rig, ReconstructionConfig(), STILL_FPS)
    except (NoPersonError, TooFewViewsError):
        return without_people(keypoints, rig)


def _paired(poses: Poses3D, people: Sequence[Sample]) -> np.ndarray:
    """World joints (Q K 3) of the track that is paired with each person; NaN without one."""
    source, shared = poses.skeleton.remap(people[0].skeleton)
    joints = np.full((len(people), len(poses.skeleton.joints), 3), np.nan)
    tracks = poses.xyz[0].astype(np.float64)
    truth = np.stack([sample.xyz for sample in people])[:, shared]
    for person, track in matched(tracks[:, source[shared]], truth):
        joints[person] = tracks[track]
    return joints

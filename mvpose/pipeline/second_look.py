"""A second look: a crop at the place where a view should show a person, according to others, but has no detection.

The place comes from the 3D joints of the other views, and the same joint network reads the crop. What it finds becomes
a detection of that view if it agrees with the 3D joints *before* fusion, because fusion draws the joints of a person
who is covered towards the other views. On the demo footage with people painted over, the fused likelihoods of their
joints are 0.26 in the mean, and none of the joints agree before fusion. After that, fused likelihoods decide joint by
joint, as for every detection.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float, Int

from mvpose.footage.video.capture_frames import ViewFrames
from mvpose.geometry.camera import CameraRig
from mvpose.models.detection.detector import TopDownDetector
from mvpose.models.detection.people import People
from mvpose.models.detection.person_boxes import around_joints, overlap
from mvpose.reconstruction.association import Association
from mvpose.reconstruction.clip import ReconstructionConfig
from mvpose.reconstruction.joints import WIDEST
from mvpose.records import SECOND_LOOK

MAX_LOOKS = 4
"""Maximum number of crops per frame, over all views; people shown by the fewest views come first."""
MIN_INSIDE = 0.5
"""Minimum share of a person's joints that are known and inside the image."""
SAME_PLACE = 0.5
"""A detection whose box overlaps the crop's by this (intersection over union) has shown what the crop would show."""
MIN_AGREEING = 0.25
"""Minimum share of a person's joints that are found where the 3D joints are. On the demo footage, with the detection of
one view dropped: 0.62 to 1 of the person uncovered, 0.31 to 0.88 half painted over, 0 to 0.04 wholly."""


@dataclass(frozen=True, eq=False)
class Looks:
    """n crops, ordered by frame; never two of one person, view and frame."""

    view: Int[np.ndarray, " n"]
    frame: Int[np.ndarray, " n"]
    person: Int[np.ndarray, " n"]
    """Index of the person among those associated in the frame."""
    box: Float[np.ndarray, "n 4"]
    """left, top, right, bottom in pixels, around the joints inside the image."""
    expected: Float[np.ndarray, "n J 2"]
    """Places of the 3D joints in the view, in pixels; NaN where there is none."""

    def some(self, which: Bool[np.ndarray, " n"]) -> Looks:
        """Some of the looks."""
        return Looks(self.view[which], self.frame[which], self.person[which], self.box[which], self.expected[which])


def look_again(
    found: list[list[People]],
    people: Association,
    rig: CameraRig,
    chunk: Sequence[ViewFrames],
    detector: TopDownDetector,
    config: ReconstructionConfig,
) -> tuple[list[list[People]], Int[np.ndarray, "T K V"]]:
    """The detections of a chunk followed by those of second looks, and the places of people among all of them.

    The box network looks at the last frame of each chunk, so a person that it misses is often missed in the whole
    chunk: the frames between its ends are looked at in those views in which a look at an end has found somebody. A
    person who is covered costs two crops per chunk and view.
    """
    found, places = [list(view) for view in found], people.places.numpy().copy()
    there = np.stack([view.there for view in chunk])
    looks = missed(people, found, rig, there)
    first, last = there.argmax(axis=1), there.shape[1] - 1 - there[:, ::-1].argmax(axis=1)
    at_end = (looks.frame == first[looks.view]) | (looks.frame == last[looks.view])
    helped = np.zeros(len(rig), bool)
    for ends in (True, False):
        some = looks.some(at_end if ends else ~at_end & helped[looks.view])
        if not len(some.view):
            continue
        images = [chunk[v].image(t) for v, t in zip(some.view.tolist(), some.frame.tolist(), strict=True)]
        seen = detector.in_boxes(images, some.box, np.full(len(images), SECOND_LOOK))
        agree = agreeing(some, seen, detector.confidence_scale.likelihood_of(seen.confidence), config)
        helped[some.view[agree]] = True
        for i in np.flatnonzero(agree):
            v, t = int(some.view[i]), int(some.frame[i])
            places[t, some.person[i], v] = len(found[v][t].score)
            found[v][t] = found[v][t].followed_by(seen.some(slice(i, i + 1)))
    return found, places


def missed(
    people: Association, found: Sequence[Sequence[People]], rig: CameraRig, there: Bool[np.ndarray, "V T"]
) -> Looks:
    """Where to look: people shown by two views or more (all who are associated) that another camera should see.

    `there`: the frames that each view has.
    """
    places, known = people.places.numpy(), people.known[None]
    pixels, before = rig.project(people.bodies)
    inside = (before & known & rig.inside(pixels)).movedim(0, 2).numpy()
    pixels = torch.where((before & known)[..., None], pixels, torch.nan).movedim(0, 2).numpy()
    views = (places >= 0).sum(axis=2, keepdims=True)
    due = (places < 0) & (inside.mean(axis=-1) >= MIN_INSIDE) & there.T[:, None]
    frame, person, view = np.nonzero(due)
    box = around_joints(pixels[due], inside[due])
    nearest = [
        overlap(own[None], found[v][t].box.astype(np.float64)).max(initial=0.0)
        for own, v, t in zip(box, view.tolist(), frame.tolist(), strict=True)
    ]
    looks = Looks(view, frame, person, box, pixels[due]).some(np.array(nearest) < SAME_PLACE)
    order = np.lexsort((views[looks.frame, looks.person, 0], looks.frame))
    rank = np.arange(len(order)) - np.searchsorted(looks.frame, looks.frame)
    chosen = np.zeros(len(order), bool)
    chosen[order[rank < MAX_LOOKS]] = True
    return looks.some(chosen)


def agreeing(
    looks: Looks, seen: People, likelihood: Float[np.ndarray, "n J"], config: ReconstructionConfig
) -> Bool[np.ndarray, " n"]:
    """Whether the joints found are those of the person: enough are where the 3D joints are, and fewer elsewhere."""
    size = (looks.box[:, 2:] - looks.box[:, :2]).max(axis=1)
    error = np.linalg.norm(seen.xy - looks.expected, axis=-1) / size[:, None]
    sure = likelihood >= config.min_confidence
    near = (sure & (error <= WIDEST * config.max_error)).sum(axis=1)
    elsewhere = (sure & (error > WIDEST * config.max_error)).sum(axis=1)
    return (near > elsewhere) & (near >= MIN_AGREEING * likelihood.shape[1])

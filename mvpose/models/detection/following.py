"""Where to look for people: in the last frame of a chunk; in between, boxes follow their joints.

A look costs as much as the joints in five boxes. Halfway between two looks, boxes are expected on straight lines; the
joints found there say where the people really are, and so on, in halves, until frames are `step` apart or less; the
frames in between get interpolated boxes. Where a person of one of the two looks is not found, or two people
are found in one place, another look is taken.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from itertools import pairwise

import numpy as np
from jaxtyping import Bool

from mvpose.device_images import AnyImage
from mvpose.models.detection.people import People
from mvpose.models.detection.person_boxes import Paths, PersonBoxes, around_joints, overlap, paths

FOUND, FOLLOWED = 0.25, 0.5
"""Minimum shares of sure joints of a person who counts as found, and of one whose joints say where the box belongs."""
ONE_PLACE = 0.7
"""Two boxes that overlap by this (intersection over union) are on one person: looks do not give two such."""


@dataclass(frozen=True)
class Following:
    """What it takes to find the people in the frames of a chunk."""

    look: Callable[[Sequence[AnyImage]], list[PersonBoxes]]
    """Boxes found in each image."""
    joints: Callable[[Sequence[AnyImage], Sequence[PersonBoxes]], list[People]]
    """People in the boxes of each image."""
    sure: Callable[[People], Bool[np.ndarray, "P J"]]
    """Which of their joints are where they are said to be, as far as the network knows."""
    max_boxes: int
    step: int
    """Frames between boxes that are interpolated."""

    def people(self, views: Sequence[Sequence[AnyImage]], before: Sequence[People | None]) -> list[list[People]]:
        """People by view and frame; `before` are those of each view's frame before its first, None if unknown."""
        walks = [_Walk(images) for images in views]
        for walk, people in zip(walks, before, strict=True):
            if people is not None:
                boxes = PersonBoxes(people.box.astype(np.float64), people.score)
                walk.marks.append(_Mark(-1, boxes, self._found(people)))
        self._look((walk, i) for walk in walks for i in walk.ends())
        while halves := [half for walk in walks for half in walk.halves(self.step, self.max_boxes)]:
            lost = []
            for half, people in zip(halves, self._joints(halves), strict=True):
                mark = _Mark(half.index, self._followed(half, people), self._found(people))
                if half.lost(mark):
                    lost.append(half)
                else:
                    half.walk.add(mark, people)
            self._look((half.walk, half.index) for half in lost)
        rest = [place for walk in walks for place in walk.rest(self.max_boxes)]
        for place, people in zip(rest, self._joints(rest), strict=True):
            place.walk.people[place.index] = people
        return [[walk.people[i] for i in range(len(walk.images))] for walk in walks]

    def _joints(self, places: Sequence[_Place]) -> list[People]:
        return self.joints([place.walk.images[place.index] for place in places], [place.boxes for place in places])

    def _look(self, where: Iterable[tuple[_Walk, int]]) -> None:
        """Look for people in these frames, and mark them."""
        places = list(where)
        images = [walk.images[index] for walk, index in places]
        found = self.look(images)
        for (walk, index), boxes, people in zip(places, found, self.joints(images, found), strict=True):
            walk.add(_Mark(index, boxes, self._found(people)), people)

    def _found(self, people: People) -> Bool[np.ndarray, " P"]:
        return self.sure(people).mean(axis=1) >= FOUND

    def _followed(self, place: _Place, people: People) -> PersonBoxes:
        """The boxes, moved to where the joints are."""
        sure, box = self.sure(people), place.boxes.box.copy()
        moved = sure.mean(axis=1) >= FOLLOWED
        box[moved] = around_joints(people.xy[moved].astype(np.float64), sure[moved])
        return PersonBoxes(box, place.boxes.score)


@dataclass(frozen=True, eq=False)
class _Mark:
    """A frame in which boxes are known; -1 is the frame before the first."""

    index: int
    boxes: PersonBoxes
    found: Bool[np.ndarray, " P"]
    """Which of the boxes hold somebody with joints."""


@dataclass(frozen=True, eq=False)
class _Place:
    """Interpolated boxes in a frame of a view."""

    walk: _Walk
    index: int
    boxes: PersonBoxes
    expected: Bool[np.ndarray, " P"]
    """Who of them has joints in one of the two neighbouring marks."""

    def lost(self, mark: _Mark) -> bool:
        """Whether somebody expected is not found in the mark that the joints here make, or two are in one place."""
        found = mark.boxes.box[mark.found]
        return bool((self.expected & ~mark.found).any() or np.triu(overlap(found, found) >= ONE_PLACE, 1).any())


@dataclass(eq=False)
class _Walk:
    """One view's way through the frames of a chunk."""

    images: Sequence[AnyImage]
    marks: list[_Mark] = field(default_factory=list)
    """Ordered by frame."""
    people: dict[int, People] = field(default_factory=dict)

    def ends(self) -> list[int]:
        """Frames to look at in any case: the last, and the first of all."""
        last = len(self.images) - 1
        return [] if last < 0 else [last] if self.marks or last == 0 else [0, last]

    def add(self, mark: _Mark, people: People) -> None:
        """Add a frame with known boxes and the people in it."""
        self.marks = sorted([*self.marks, mark], key=lambda each: each.index)
        self.people[mark.index] = people

    def halves(self, step: int, max_boxes: int) -> list[_Place]:
        """The frames halfway between marks that are more than `step` apart."""
        return [
            _place(self, (a.index + b.index) // 2, a, b, paths(a.boxes, b.boxes, max_boxes))
            for a, b in pairwise(self.marks)
            if b.index - a.index > step
        ]

    def rest(self, max_boxes: int) -> list[_Place]:
        """All frames between marks."""
        between = [(a, b, paths(a.boxes, b.boxes, max_boxes)) for a, b in pairwise(self.marks)]
        return [_place(self, i, a, b, way) for a, b, way in between for i in range(a.index + 1, b.index)]


def _place(walk: _Walk, index: int, a: _Mark, b: _Mark, way: Paths) -> _Place:
    expected = [
        np.where(of >= 0, np.append(mark.found, False)[of], False) for mark, of in ((a, way.of_first), (b, way.of_last))
    ]
    return _Place(walk, index, way.boxes((index - a.index) / (b.index - a.index)), expected[0] | expected[1])

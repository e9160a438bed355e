"""Where people are looked for, in a world whose images carry nothing but their frame's number."""

from collections.abc import Callable, Sequence

import numpy as np
import pytest

from mvpose.models.detection.following import Following
from mvpose.models.detection.people import People
from mvpose.models.detection.person_boxes import AROUND_JOINTS, PersonBoxes, overlap

SIZE = np.array([40.0, 100.0])
IN_PERSON = np.array([[-0.425, -0.475], [0.425, -0.475], [0.425, 0.475], [-0.425, 0.475]])
"""Joints that span what the box network's box is expected to be around."""
Track = Callable[[int], tuple[float, float] | None]


class World:
    """People with known centres; joints are found in a box that shows enough of somebody."""

    def __init__(self, *tracks: Track, boxes: Callable[[int], Sequence[int]] | None = None) -> None:
        self.tracks, self.boxes = tracks, boxes
        self.looked: list[int] = []
        self.asked: list[tuple[int, np.ndarray]] = []

    def true_boxes(self, number: int) -> np.ndarray:
        centres = [centre for track in self.tracks if (centre := track(number)) is not None]
        return np.array([[*(c - SIZE / 2), *(c + SIZE / 2)] for c in np.array(centres).reshape(-1, 2)]).reshape(-1, 4)

    def look(self, images: Sequence[np.ndarray]) -> list[PersonBoxes]:
        return [self._look(int(image[0, 0, 0])) for image in images]

    def _look(self, number: int) -> PersonBoxes:
        self.looked.append(number)
        boxes = self.true_boxes(number)
        return PersonBoxes(boxes, np.linspace(0.9, 0.8, len(boxes)))

    def joints(self, images: Sequence[np.ndarray], boxes: Sequence[PersonBoxes]) -> list[People]:
        return [self._people(int(image[0, 0, 0]), own) for image, own in zip(images, boxes, strict=True)]

    def _people(self, number: int, boxes: PersonBoxes) -> People:
        true = self.true_boxes(number)
        xy, sure = np.zeros((len(boxes.score), 4, 2), np.float32), np.zeros((len(boxes.score), 4), np.float32)
        for p, box in enumerate(boxes.box):
            self.asked.append((number, box))
            shown = overlap(box[None], true)[0] if len(true) else np.zeros(0)
            if len(shown) and shown.max() > 0.3:
                left, top, right, bottom = true[shown.argmax()]
                xy[p] = np.array([left + right, top + bottom]) / 2 + IN_PERSON * SIZE
                sure[p] = 1
        return People(boxes.box.astype(np.float32), boxes.score.astype(np.float32), xy, sure)

    def follow(self, num_frames: int, before: People | None = None, first: int = 0, step: int = 4) -> list[People]:
        images = [np.full((1, 1, 3), first + i, np.uint8) for i in range(num_frames)]
        following = Following(self.look, self.joints, lambda people: people.confidence > 0.5, 20, step)
        (people,) = following.people([images], [before])
        return people

    def missed(self, people: Sequence[People], first: int = 0) -> list[int]:
        """Frames in which somebody's joints are not found."""
        return [
            first + i
            for i, found in enumerate(people)
            if len({tuple(xy[0]) for xy, c in zip(found.xy, found.confidence, strict=True) if c.all()})
            < len(self.true_boxes(first + i))
        ]


def walking(speed: float, x: float = 200.0) -> Track:
    return lambda t: (x + speed * t, 300.0)


def jumping(t: int) -> tuple[float, float]:
    """Up by half of the person's height and down again, in 16 frames."""
    return 200.0, 300.0 - 50.0 * np.sin(np.pi * t / 16)


def test_one_look_per_chunk_is_enough_for_people_who_walk():
    # Fails if both ends of every chunk are looked at, as before.
    world, people = World(walking(1.0), walking(-1.5, 600.0)), []
    before = None
    for first in range(0, 64, 16):
        people += world.follow(16, before, first)
        before = people[-1]
    assert world.looked == [0, 15, 31, 47, 63] and not world.missed(people)


def test_boxes_follow_joints_where_the_way_is_not_straight():
    # Fails if frames between looks only get interpolated boxes: at the top of the jump those show the floor.
    world = World(jumping)
    people = world.follow(17)
    assert world.looked == [0, 16] and not world.missed(people)
    for number, box in world.asked:
        if number % 4:
            assert overlap(box[None], world.true_boxes(number))[0, 0] > 0.4


def test_a_look_is_taken_where_somebody_is_lost():
    # Fails if `lost` is never true: nothing is at the middle of two boxes that do not overlap.
    world = World(walking(8.0))
    people = world.follow(17)
    assert world.looked[:3] == [0, 16, 8] and not world.missed(people)


@pytest.mark.parametrize("enters", [3, 9, 14])
def test_who_enters_between_looks_is_found_from_the_next_frame_with_a_known_box_on(enters):
    world = World(lambda t: (200.0, 300.0) if t >= enters else None)
    missed = world.missed(world.follow(17))
    assert missed == [] and len(world.looked) <= 5


def test_a_box_that_never_held_anybody_costs_no_looks():
    class Furniture(World):
        def _look(self, number: int) -> PersonBoxes:
            found = super()._look(number)
            return PersonBoxes(np.concatenate([found.box, [[0, 0, 40, 100]]]), np.append(found.score, 0.5))

    world = Furniture(walking(0.5))
    world.follow(33)
    assert world.looked == [0, 32]


def test_two_boxes_on_one_person_are_looked_at_again():
    # The boxes of the two ends do not overlap, and half way both show the person.
    world = World(walking(2.5))
    assert overlap(world.true_boxes(0), world.true_boxes(16))[0, 0] == 0
    world.follow(17)
    assert world.looked[:3] == [0, 16, 8]


def test_views_may_be_empty_or_a_single_frame():
    world = World(walking(1.0))
    following = Following(world.look, world.joints, lambda people: people.confidence > 0.5, 20, 4)
    people = following.people([[], [np.zeros((1, 1, 3), np.uint8)]], [None, None])
    assert [len(view) for view in people] == [0, 1] and world.looked == [0]


def test_boxes_around_joints_are_those_of_the_box_network():
    world = World(walking(0.0))
    (start, *_), box = world.follow(9), world.true_boxes(0)[0]
    assert np.allclose(IN_PERSON.max(axis=0) * 2 * AROUND_JOINTS, 1)
    np.testing.assert_allclose(start.box[0], box)
    np.testing.assert_allclose(next(b for n, b in world.asked if n == 3), box, atol=1e-3)

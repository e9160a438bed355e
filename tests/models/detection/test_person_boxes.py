import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mvpose.models.detection.person_boxes import PersonBoxes, best, from_letterbox, letterboxed, overlap, paths


def persons(*boxes: tuple[float, ...]) -> PersonBoxes:
    """(left, top, width, height, score) each."""
    values = np.array(boxes, dtype=float).reshape(-1, 5)
    corner = values[:, :2]
    return PersonBoxes(np.concatenate([corner, corner + values[:, 2:4]], axis=1), values[:, 4])


def boxes_between(first: PersonBoxes, last: PersonBoxes, num_frames: int, max_boxes: int) -> list[PersonBoxes]:
    way = paths(first, last, max_boxes)
    return [way.boxes(share) for share in np.linspace(0, 1, num_frames)]


BOX = st.tuples(st.floats(0, 900), st.floats(0, 900), st.floats(20, 300), st.floats(20, 300), st.floats(0.3, 1))
PERSONS = st.lists(BOX, max_size=4).map(lambda boxes: persons(*boxes))


@given(first=PERSONS, last=PERSONS, num_frames=st.integers(2, 20))
def test_the_ends_keep_the_boxes_that_were_seen_there(first, last, num_frames):
    between = boxes_between(first, last, num_frames, 8)
    assert len(between) == num_frames
    for seen, found in ((first, between[0]), (last, between[-1])):
        assert all(np.isclose(found.box, box, atol=1e-9).all(axis=1).any() for box in seen.box)


@given(first=PERSONS, last=PERSONS, num_frames=st.integers(3, 20))
def test_boxes_move_at_constant_speed(first, last, num_frames):
    path = np.stack([frame.box for frame in boxes_between(first, last, num_frames, 8)])
    assert np.allclose(np.diff(path, n=2, axis=0), 0, atol=1e-8)


@given(seed=st.integers(0, 10**6), counts=st.tuples(st.integers(0, 4), st.integers(0, 4)), num_frames=st.integers(2, 9))
def test_backward_in_time_gives_the_same_boxes_backward(seed, counts, num_frames):
    # Random numbers, not hypothesis' own: two boxes in one place could be paired either way.
    rng = np.random.default_rng(seed)
    first, last = (persons(*rng.uniform([0, 0, 90, 90, 0.3], [300, 300, 200, 200, 1], (n, 5))) for n in counts)
    forward, backward = boxes_between(first, last, num_frames, 8), boxes_between(last, first, num_frames, 8)
    for a, b in zip(forward, reversed(backward), strict=True):
        assert np.allclose(a.box, b.box)
        assert np.allclose(a.score, b.score)


@given(seen=PERSONS)
def test_persons_who_stand_still_keep_their_boxes(seen):
    order = np.argsort(-seen.score, kind="stable")
    for frame in boxes_between(seen, seen, 5, 8):
        assert np.allclose(np.sort(frame.box, axis=0), np.sort(seen.box, axis=0))
        assert np.allclose(frame.score, seen.score[order])


def test_a_person_seen_at_one_end_alone_is_held():
    first = persons((0, 0, 100, 200, 0.9), (500, 0, 100, 200, 0.6))
    last = persons((20, 0, 100, 200, 0.7))
    middle = boxes_between(first, last, 3, 8)[1]
    assert middle.box.tolist() == [[10, 0, 110, 200], [500, 0, 600, 200]]
    assert middle.score.tolist() == pytest.approx([0.8, 0.6])


@given(first=PERSONS, last=PERSONS)
def test_a_path_names_the_boxes_that_it_joins(first, last):
    way = paths(first, last, 20)
    for of, boxes, own in ((way.of_first, first, way.start), (way.of_last, last, way.stop)):
        assert sorted(of[of >= 0]) == list(range(len(boxes.score)))
        np.testing.assert_array_equal(own[of >= 0], boxes.box[of[of >= 0]])
    assert ((way.of_first >= 0) | (way.of_last >= 0)).all()


def test_no_more_people_are_followed_than_wanted():
    first = persons((0, 0, 100, 200, 0.9), (500, 0, 100, 200, 0.6))
    last = persons((0, 0, 100, 200, 0.9), (900, 0, 100, 200, 0.7))
    assert [len(boxes_between(first, last, 3, maximum)[1].score) for maximum in (1, 2, 3, 4)] == [1, 2, 3, 3]
    assert boxes_between(first, last, 3, 2)[1].box[:, 0].tolist() == [0, 900]


def test_two_persons_whose_boxes_overlap_are_paired_for_the_greatest_total_overlap():
    first = persons((0, 0, 100, 200, 0.9), (60, 0, 100, 200, 0.8))
    last = persons((70, 0, 100, 200, 0.9), (10, 0, 100, 200, 0.8))
    found = boxes_between(first, last, 3, 8)
    assert sorted(found[1].box[:, 0].tolist()) == [5, 65]
    assert len(found[1].box) == 2


def test_nobody_at_either_end_is_nobody_in_between():
    assert [frame.box.shape for frame in boxes_between(persons(), persons(), 4, 8)] == [(0, 4)] * 4


@given(a=PERSONS, b=PERSONS)
def test_overlap_is_symmetric_and_one_with_itself(a, b):
    shared = overlap(a.box, b.box)
    assert np.allclose(shared, overlap(b.box, a.box).T)
    assert ((shared >= 0) & (shared <= 1 + 1e-12)).all()
    assert np.allclose(np.diag(overlap(a.box, a.box)), 1)


def test_overlap_of_two_halves_is_a_third():
    a, b = persons((0, 0, 10, 10, 1)), persons((5, 0, 10, 10, 1), (30, 0, 10, 10, 1))
    assert overlap(a.box, b.box).tolist() == [[pytest.approx(1 / 3), 0]]


def test_the_best_come_first_and_the_unsure_are_left_out():
    seen = persons((0, 0, 1, 1, 0.4), (1, 0, 1, 1, 0.9), (2, 0, 1, 1, 0.2), (3, 0, 1, 1, 0.5))
    assert best(seen, 0.3, 4).score.tolist() == [0.9, 0.5, 0.4]
    assert best(seen, 0.3, 2).box[:, 0].tolist() == [1, 3]
    assert len(best(seen, 0.95, 4).box) == 0


@given(size=st.tuples(st.integers(80, 500), st.integers(80, 500)), data=st.data())
def test_a_spot_goes_into_the_letterbox_and_back(size, data):
    width, height = size
    left = data.draw(st.integers(0, width - 20))
    top = data.draw(st.integers(0, height - 20))
    image = np.zeros((height, width, 3), dtype=np.uint8)
    image[top : top + 20, left : left + 20] = 255
    (canvas,), (scale,) = letterboxed([image], (208, 208))
    rows, columns = np.nonzero(canvas[..., 0] > 127)
    edges = np.array([[columns.min() - 0.5, rows.min() - 0.5, columns.max() + 0.5, rows.max() + 0.5]])
    back = from_letterbox(edges, scale)[0]
    assert np.abs(back - [left - 0.5, top - 0.5, left + 19.5, top + 19.5]).max() <= 0.6 / scale.min()


def test_the_letterbox_keeps_the_shape_and_fills_up_with_grey():
    (canvas,), (scale,) = letterboxed([np.zeros((1920, 1080, 3), dtype=np.uint8)], (416, 416))
    assert canvas.shape == (416, 416, 3)
    assert scale == pytest.approx([416 / 1920, 416 / 1920], rel=1e-3)
    assert (canvas[:, :234] == 0).all() and (canvas[:, 234:] == 114).all()

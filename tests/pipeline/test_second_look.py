"""A second look: where it is made, what counts as found, and what it costs."""

import os
from dataclasses import replace

import numpy as np
import pytest
import torch

from mvpose.confidence import AS_STATED
from mvpose.footage.catalogue import CatalogueConfig, find_captures
from mvpose.footage.video.capture_frames import ViewFrames
from mvpose.geometry.rigid import Rigid
from mvpose.models.detection.detector import TopDownDetector
from mvpose.models.detection.detector_settings import DetectorConfig
from mvpose.models.detection.people import People
from mvpose.models.detection.person_boxes import AROUND_JOINTS
from mvpose.pipeline.detect_stage import stack_people
from mvpose.pipeline.detections import chunks_of_views, detected
from mvpose.pipeline.network_stage import same_people
from mvpose.pipeline.second_look import MAX_LOOKS, Looks, look_again, missed
from mvpose.reconstruction.clip import ReconstructionConfig
from mvpose.records import SECOND_LOOK, Clip
from mvpose.scenes import Scene, ring4, ring31, standing, two_people_crossing

CONFIG = ReconstructionConfig()
FRAMES = 5


class SceneNetwork(TopDownDetector):
    """Finds the joints of whoever is nearest to the middle of a box; images state their view and frame.

    In `covered` views it finds joints beside the person.
    """

    confidence_scale = AS_STATED

    def __init__(self, scene: Scene, covered: tuple[int, ...] = ()) -> None:
        pixels, _ = scene.rig.project(torch.from_numpy(scene.joints))
        self.pixels, self.covered = pixels.numpy(), covered
        self.asked: list[tuple[int, int]] = []

    def in_boxes(self, images: list[np.ndarray], box: np.ndarray, score: np.ndarray) -> People:
        found = []
        for image, (left, top, right, bottom) in zip(images, box, strict=True):
            view, frame = image[0, 0, :2].tolist()
            self.asked.append((view, frame))
            people = self.pixels[view, frame]
            middle = np.array([left + right, top + bottom]) / 2
            nearest = np.linalg.norm(people.mean(axis=1) - middle, axis=-1).argmin()
            found.append(people[nearest] + (0.2 * (bottom - top) if view in self.covered else 0.0))
        xy = np.array(found, np.float32)
        return People(box.astype(np.float32), score.astype(np.float32), xy, np.full(xy.shape[:2], 0.9, np.float32))


def chunk_of(scene: Scene, lacking: tuple[tuple[int, int], ...] = ()) -> list[ViewFrames]:
    views, frames = scene.detected.shape[:2]
    chunk = []
    for v in range(views):
        there = np.array([(v, t) not in lacking for t in range(frames)])
        images = np.array([[[[v, t, 0]]] for t in range(frames)], np.uint8)[there]
        chunk.append(ViewFrames(images, there))
    return chunk


def without(scene: Scene, *unseen: tuple[int, int]) -> Scene:
    """The scene with these people (view, person) never detected."""
    detected = scene.detected.copy()
    for view, person in unseen:
        detected[view, :, person] = False
    return replace(scene, detected=detected)


def detections(scene: Scene) -> list[list[People]]:
    found = scene.keypoints(noise_px=0.0)
    views, frames = found.box_score.shape[:2]

    def people(v: int, t: int) -> People:
        there = found.box_score[v, t] > 0
        xy = np.nan_to_num(found.xy[v, t, there])
        return People(found.box[v, t, there], found.box_score[v, t, there], xy, found.confidence[v, t, there])

    return [[people(v, t) for t in range(frames)] for v in range(views)]


def associated(scene: Scene, found: list[list[People]]):
    return same_people(stack_people(found, scene.skeleton), scene.rig, CONFIG)


def looked(scene: Scene, network: SceneNetwork, chunk: list[ViewFrames] | None = None):
    found = detections(scene)
    return look_again(found, associated(scene, found), scene.rig, chunk or chunk_of(scene), network, CONFIG)


def looks_of(scene: Scene) -> Looks:
    found = detections(scene)
    there = np.ones(scene.detected.shape[:2], bool)
    return missed(associated(scene, found), found, scene.rig, there)


def test_somebody_whom_a_view_missed_is_found_there() -> None:
    """Fails if views, frames or people are exchanged, or a place is off by one."""
    scene = without(two_people_crossing(num_frames=FRAMES), (2, 0), (1, 1))
    network = SceneNetwork(scene)
    found, places = looked(scene, network)
    assert sorted(network.asked) == [(v, t) for v in (1, 2) for t in range(FRAMES)]
    assert (places >= 0).all()
    for t, members in enumerate(places):
        for place in members:
            xy = np.stack([found[v][t].xy[p] for v, p in enumerate(place)])
            person = np.linalg.norm(xy[0] - network.pixels[0, t], axis=-1).mean(axis=-1).argmin()
            np.testing.assert_allclose(xy, network.pixels[:, t, person], atol=0.01)
            marked = [v for v, p in enumerate(place) if found[v][t].score[p] == SECOND_LOOK]
            assert marked == [2 if person == 0 else 1]


def test_the_box_surrounds_the_person_closely() -> None:
    scene = without(ring4(num_frames=1), (3, 0))
    looks = looks_of(scene)
    xy = SceneNetwork(scene).pixels[3, 0, 0]
    (left, top, right, bottom), low, high = looks.box[0], xy.min(axis=0), xy.max(axis=0)
    assert looks.view.tolist() == [3]
    assert (low > (left, top)).all() and (high < (right, bottom)).all()
    assert (right - left, bottom - top) == pytest.approx(AROUND_JOINTS * (high - low), rel=0.01)


def test_nothing_changes_when_every_view_sees_everybody() -> None:
    scene = two_people_crossing(num_frames=FRAMES)
    network, found = SceneNetwork(scene), detections(scene)
    people = associated(scene, found)
    after, places = look_again(found, people, scene.rig, chunk_of(scene), network, CONFIG)
    assert not network.asked
    assert all(new is old for one, other in zip(after, found, strict=True) for new, old in zip(one, other, strict=True))
    np.testing.assert_array_equal(places, people.places.numpy())


def test_nobody_is_looked_for_when_nobody_is_there() -> None:
    scene = ring4(num_frames=FRAMES)
    scene = without(scene, *((v, 0) for v in range(4)))
    found, places = looked(scene, SceneNetwork(scene))
    assert places.shape == (FRAMES, 0, 4) and not any(len(people.score) for view in found for people in view)


def test_somebody_whom_one_view_alone_shows_is_not_looked_for() -> None:
    scene = without(ring4(num_frames=FRAMES), (0, 0), (1, 0), (2, 0))
    network = SceneNetwork(scene)
    looked(scene, network)
    assert not network.asked


def test_a_covered_person_is_not_found_and_costs_the_ends_of_the_chunk() -> None:
    """Fails if what agrees with nothing counts, or if every frame of a covered view is looked at."""
    scene = without(two_people_crossing(num_frames=FRAMES), (2, 0))
    network = SceneNetwork(scene, covered=(2,))
    found, places = looked(scene, network)
    assert sorted(network.asked) == [(2, 0), (2, FRAMES - 1)]
    assert ((places >= 0).sum(axis=2) < 4).sum() == FRAMES
    assert not any((people.score == SECOND_LOOK).any() for view in found for people in view)


@pytest.mark.parametrize(("covered", "frames"), [((2,), (1, 3)), ((), (1, 2, 3))])
def test_the_ends_of_a_view_that_lacks_frames_are_those_that_it_has(covered, frames) -> None:
    """Fails if a frame that the view lacks is looked at, or the ends of the chunk are taken for those of the view."""
    scene = without(ring4(num_frames=FRAMES), (2, 0))
    network = SceneNetwork(scene, covered)
    looked(scene, network, chunk_of(scene, lacking=((2, 0), (2, FRAMES - 1))))
    assert sorted(network.asked) == [(2, t) for t in frames]


@pytest.mark.parametrize("away", ["behind", "outside"])
def test_a_camera_that_cannot_see_the_person_gets_no_crop(away: str) -> None:
    """Fails without the test of depth, or of the image's edge: a point behind a camera projects into its image."""
    scene = without(ring4(num_frames=1), (1, 0))
    pose = scene.rig.camera_from_world
    angle = torch.zeros(4, 3, dtype=torch.float64)
    angle[1, 1] = np.pi if away == "behind" else 0.9
    turn = Rigid.from_rotation_vector(angle, torch.zeros(4, 3, dtype=torch.float64))
    scene = replace(scene, rig=replace(scene.rig, camera_from_world=turn @ pose))
    assert not len(looks_of(scene).view)


def test_a_person_who_is_mostly_outside_the_image_gets_no_crop() -> None:
    """Fails if one joint inside is enough, or if all have to be, or if joints outside are in the box."""
    scene = without(ring4(num_frames=1), (1, 0))
    rows = SceneNetwork(scene).pixels[1, 0, 0, :, 1]
    for joint, looks in (("left_shoulder", 0), ("left_knee", 1)):
        size = scene.rig.size.clone()
        size[1, 1] = int(rows[scene.skeleton.index(joint)])
        found = looks_of(replace(scene, rig=replace(scene.rig, size=size)))
        assert len(found.view) == looks
        assert (found.box[:, 3] < size[1, 1].item() + 0.06 * (size[1, 1].item() - rows.min())).all()


def test_a_detection_at_the_place_was_look_enough() -> None:
    """Somebody's joints are so wrong in a view that they are nobody's: the same crop again would show the same."""
    scene = ring4(num_frames=1)
    found = detections(scene)
    own = found[1][0]
    # A guess in the same box.
    guess = own.box[:, None, :2] + np.random.default_rng(0).random(own.xy.shape) * (own.box[:, 2:] - own.box[:, :2])
    found[1][0] = replace(own, xy=guess[:, None].reshape(own.xy.shape).astype(np.float32))
    people = associated(scene, found)
    there = np.ones((4, 1), bool)
    assert people.places[0, 0].tolist()[1] == -1
    assert not len(missed(people, found, scene.rig, there).view)
    found[1][0] = replace(found[1][0], box=own.box + 400)
    assert missed(people, found, scene.rig, there).view.tolist() == [1]


def test_looks_are_bounded_and_go_to_those_whom_the_fewest_views_show() -> None:
    scene = without(ring31(num_frames=2), *((v, 0) for v in range(3, 31)))
    looks = looks_of(scene)
    assert np.bincount(looks.frame).tolist() == [MAX_LOOKS, MAX_LOOKS]
    assert len(set(zip(looks.view, looks.frame, looks.person, strict=True))) == 2 * MAX_LOOKS
    scene = standing(people=2, cameras=8, apart_m=1.5)
    detected = scene.detected.copy()
    detected[:5, 0, 0], detected[:3, 0, 1] = False, False
    looks = looks_of(replace(scene, detected=detected))
    views = [(associated(replace(scene, detected=detected), detections(replace(scene, detected=detected))).places >= 0)]
    assert views[0].sum(dim=-1)[0, looks.person].tolist() == [3] * MAX_LOOKS


@pytest.mark.footage
def test_real_people_are_found_where_the_detector_saw_them_and_not_where_they_are_painted_over(
    footage: str, weights: str, monkeypatch
) -> None:
    """The athlete's detection is dropped in one view, with the image as it is, then with a grey box over the person."""
    monkeypatch.setenv("MVPOSE_WEIGHTS", weights)
    catalogue = CatalogueConfig(calibration="Calib_scene.toml")
    capture = find_captures(os.path.join(footage, "Demo_SinglePerson"), catalogue).captures[0]
    chunk = next(iter(chunks_of_views(capture.videos, Clip(capture.capture_id, 40, 42), 2)))
    detector = TopDownDetector(DetectorConfig(), keep_tokens=True)

    def people_in(found: list[list[People]]):
        seen = stack_people(found, detector.skeleton, detector.confidence_scale)
        return same_people(seen, capture.rig, CONFIG)

    found = detected(detector, chunk)
    athlete = [members[(members >= 0).sum(axis=1).argmax(), 0] for members in people_in(found).places.numpy()]
    own = [people.some(slice(p, p + 1)) for people, p in zip(found[0], athlete, strict=True)]
    kept = [np.arange(len(people.score)) != p for people, p in zip(found[0], athlete, strict=True)]
    found[0] = [
        People(*(getattr(people, name)[keep] for name in ("box", "score", "xy", "confidence", "tokens")))
        for people, keep in zip(found[0], kept, strict=True)
    ]
    covered = chunk[0].images.copy()
    for image, (left, top, right, bottom) in zip(covered, (people.box[0].astype(int) for people in own), strict=True):
        image[max(top - 60, 0) : bottom + 60, max(left - 60, 0) : right + 60] = 127
    for images, looks in ((chunk[0].images, 1), (covered, 0)):
        view = ViewFrames(images, chunk[0].there)
        after, _ = look_again(found, people_in(found), capture.rig, [view, *chunk[1:]], detector, CONFIG)
        assert [(people.score == SECOND_LOOK).sum() for people in after[0]] == [looks, looks]
        assert all(people.tokens is not None and len(people.tokens) == len(people.score) for people in after[0])
        for people, before in zip(after[0], own, strict=True):
            if looks:
                apart = np.linalg.norm(people.xy[-1] - before.xy[0], axis=-1)
                assert np.median(apart) < 0.02 * (before.box[0, 3] - before.box[0, 1])

"""Bottom-up beside top-down on rendered groups of three: whose joints are given to whom.

The detector that works out of the box is real, the maps and fields that are grouped are ideal or off as much as the
detector is: this measures grouping, and what a network for it would have to deliver, not such a network. With `-s` the
shares are printed; of 48 images (SCENES = 24):

                                   right  another's  elsewhere  missing
    YOLOX + RTMPose                0.845      0.006      0.025    0.124
    maps of all joints             0.998      0.001      0.000    0.001
    ... off by 0.022, field noise  0.991      0.009      0.000    0.000
    maps of visible joints alone   0.614      0.000      0.000    0.386

What is lost of visible joints alone is the tree's: behind a hidden hip or thorax a person falls into parts.
"""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass

import cv2
import numpy as np
import pytest
import torch
from scipy.optimize import linear_sum_assignment

from mvpose.datasets.sample import TEST, observed
from mvpose.heatmaps import gaussian_targets
from mvpose.models.detection.detector import load_detector
from mvpose.models.detection.detector_settings import DetectorConfig
from mvpose.models.single_view.affinity_fields import affinity_targets, group_people
from mvpose.rendering.camera_rigs import finer, random_rig, squares
from mvpose.rendering.cast import Troupe, troupe
from mvpose.rendering.photograph import draw_sensor, photograph
from mvpose.rendering.renderer import renderer
from mvpose.rendering.room import draw_room
from mvpose.rendering.scene import _Placed
from mvpose.rendering.views import FINER, visible_joints
from mvpose.skeleton import BODY_JOINTS, HUMAN36M17, RENDERED
from tests.rendering.conftest import assets  # noqa: F401

SIDE, STRIDE, SCENES, VIEWS = 512, 4, 12, 2
MAP = (SIDE // STRIDE, SIDE // STRIDE)
NEAR = 0.1
"""Of the person's size in the image: nearer than this to a joint is that joint."""
ERROR = 0.022 / 1.177
"""Of the size, a standard deviation a coordinate: the median distance is the detector's own on renders."""

Answer = tuple[np.ndarray, np.ndarray]
"""Points (P 12 2) in pixels and which of them there are (P 12)."""


@dataclass(frozen=True, eq=False)
class Group:
    """An image of three people; joints (3 J 2) in its pixels, and which nothing hides."""

    image: np.ndarray
    joints: np.ndarray
    visible: np.ndarray

    @property
    def size(self) -> np.ndarray:
        return np.ptp(self.joints, axis=1).max(axis=-1)


def groups(folder: str) -> Iterator[Group]:
    for number in range(SCENES):
        rng = np.random.default_rng([7, number])
        cast = troupe(folder, 0, TEST, number // 4, 60)
        rig, people = random_rig(rng, VIEWS), close_together(cast, rng)
        posed = [person(0.0) for person in people]
        joints = np.stack([p.joints for p in posed]).astype(np.float64)
        box = observed(rig, joints.reshape(1, -1, 3))[1][0]
        if not np.isfinite(box).all():
            continue
        crop, _ = squares(rig, box, 1.15, SIDE)
        fine = finer(crop, FINER)
        room = draw_room(rng, list(joints), rig.centres_world.numpy())
        renderer().stage(room.surfaces, posed, room.lights, cast.image)
        pixels, _ = crop.project(torch.from_numpy(joints))
        along = fine.camera_from_world.apply(torch.from_numpy(joints.reshape(1, -1, 3)))[..., 2].numpy()
        for v in range(VIEWS):
            sensor = draw_sensor(rng, room.brightness)
            drawn, depth = renderer().image(fine, v, sensor.exposure, [0, 1, 2], room.background)
            places, depths = FINER * (pixels[v].numpy() + 0.5) - 0.5, along[v].reshape(3, -1)
            visible = np.stack([visible_joints(places[p], depths[p], depth, RENDERED) for p in range(3)])
            jpeg = photograph(rng, [drawn], (SIDE, SIDE), sensor, np.array([-0.5, -0.5, SIDE - 0.5, SIDE - 0.5]))
            image = np.asarray(cv2.imdecode(np.frombuffer(jpeg, np.uint8), cv2.IMREAD_COLOR_RGB))
            yield Group(image, pixels[v].numpy(), visible)


def close_together(cast: Troupe, rng: np.random.Generator) -> list[_Placed]:
    """Three people within 0.7 m of one point, none in another."""
    people: list[_Placed] = []
    while len(people) < 3:
        actor, (angle, turn) = cast.draw(rng, TEST), rng.uniform(0, 2 * np.pi, 2)
        offset = rng.uniform(0.2, 0.7) * np.array([np.cos(angle), np.sin(angle), 0.0])
        placed = _Placed(actor, actor.at(0.0), float(turn), offset)
        if all(np.linalg.norm(placed.joints[:, None] - p.joints, axis=-1).min() > 0.25 for p in people):
            people.append(placed)
    return people


def grouped(group: Group, rng: np.random.Generator, *, hidden: bool, error: float, noise: float) -> Answer:
    """People from the maps and fields of a network that is off by `error` of their size, with `noise` in its fields."""
    source, _ = RENDERED.remap(HUMAN36M17)
    points = (group.joints[:, source] + 0.5) / STRIDE - 0.5
    points = points + rng.normal(0, 1, points.shape) * error * group.size[:, None, None] / STRIDE
    places, present = torch.from_numpy(points).float(), torch.from_numpy(group.visible[:, source] | hidden)
    maps = (gaussian_targets(places, MAP, 1.5) * present[..., None, None]).amax(dim=0)
    fields = affinity_targets(places, present, HUMAN36M17, MAP, 1.0)
    fields = fields + torch.from_numpy(rng.normal(0, noise, tuple(fields.shape))).float()
    found = group_people(maps, fields, HUMAN36M17)
    body = HUMAN36M17.indices(*BODY_JOINTS)
    return ((found.points.numpy() + 0.5) * STRIDE - 0.5)[:, body], found.found.numpy()[:, body]


def verdicts(group: Group, answer: Answer) -> Counter:
    """What became of each visible body joint, people matched so that most joints are right."""
    body = RENDERED.indices(*BODY_JOINTS)
    truth, visible, (points, known) = group.joints[:, body], group.visible[:, body], answer
    apart = np.linalg.norm(points[:, None] - truth, axis=-1) / group.size[:, None]
    near = (apart < NEAR) & known[:, None]
    mine = dict(zip(*linear_sum_assignment(-(near & visible).sum(axis=-1))[::-1], strict=True))
    found: Counter = Counter()
    for p, j in np.argwhere(visible):
        q = mine.get(p)
        if q is None or not known[q, j] or not near[q, p].any():
            found["missing"] += 1
        elif near[q, p, j]:
            found["right"] += 1
        else:
            found["another's" if near[q, :, j].any() else "elsewhere"] += 1
    return found


@pytest.mark.slow
def test_grouping_gives_joints_of_three_close_people_to_their_owners_as_boxes_do(weights, assets, monkeypatch):  # noqa: F811
    monkeypatch.setenv("MVPOSE_WEIGHTS", weights)
    detector, rng = load_detector(DetectorConfig()), np.random.default_rng(0)
    own = detector.skeleton.indices(*BODY_JOINTS)
    rows: dict[str, Counter] = {}
    for group in groups(assets):
        people = detector([group.image[None]])[0][0]
        answers = {
            "boxes": (people.xy[:, own], people.confidence[:, own] > 0.3),
            "ideal": grouped(group, rng, hidden=True, error=0.0, noise=0.0),
            "noisy": grouped(group, rng, hidden=True, error=ERROR, noise=0.5),
            "visible": grouped(group, rng, hidden=False, error=0.0, noise=0.0),
        }
        for name, answer in answers.items():
            rows.setdefault(name, Counter()).update(verdicts(group, answer))
    shares = {name: {k: n / row.total() for k, n in row.items()} for name, row in rows.items()}
    for name, share in shares.items():
        print(f"{name:8}", {k: round(v, 3) for k, v in share.items()})
    assert shares["ideal"]["right"] > 0.98 and shares["noisy"]["right"] > 0.96
    assert 0.75 < shares["boxes"]["right"] < shares["noisy"]["right"]
    assert all(share.get("another's", 0.0) < 0.04 for share in shares.values())
    assert shares["visible"]["right"] < shares["boxes"]["right"]

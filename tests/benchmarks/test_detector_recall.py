"""The recall benchmark, on detectors with scripted output."""

from dataclasses import dataclass, replace

import numpy as np
import pytest
import torch

from mvpose.benchmarks.detector_recall import found_in, summary
from mvpose.datasets.sample import TRAIN, Sample
from mvpose.errors import ConfigError
from mvpose.models.detection.people import People
from mvpose.rendering.scene import scene_people
from mvpose.skeleton import COCO17, Skeleton
from tests.rendering.test_scene import SMALL, Mannequins


@dataclass
class Told:
    """Returns the scripted output for each image in turn."""

    people: list[People]
    skeleton: Skeleton = COCO17
    digest: str = ""
    chunk_frames: int = 1

    def __call__(self, views) -> list[list[People]]:
        """One image at a time."""
        return [[self.people.pop(0)] for _ in views]


def sample() -> Sample:
    (made,) = scene_people(1, TRAIN, 0, Mannequins(), 3, SMALL)
    return replace(made, visible=np.ones_like(made.visible))


def reported(of: Sample, *shifts_px: float) -> Told:
    """Each view's person with every joint off by so many pixels, behind a stranger who is nowhere near."""
    source, _ = of.skeleton.remap(COCO17)
    pixels, _ = of.rig.project(torch.from_numpy(of.xyz[source]))
    people = []
    for points, shift in zip(pixels.numpy(), shifts_px, strict=True):
        xy = np.stack([points + 500.0, points + np.array([shift, 0.0])]).astype(np.float32)
        people.append(
            People(np.zeros((2, 4), np.float32), np.ones(2, np.float32), xy, np.full((2, 17), 0.85, np.float32))
        )
    return Told(people)


def test_errors_are_reported_in_sides_of_the_box_and_a_person_too_far_off_is_not_found():
    of = sample()
    side = (of.box[:, 2:] - of.box[:, :2]).max(axis=1)
    figures = summary(list(found_in(of, reported(of, 0.0, 0.05 * side[1], 0.6 * side[2]))))
    assert figures["views"] == 3 and figures["found"] == pytest.approx(2 / 3)
    assert figures["median error"] == pytest.approx(0.025, abs=1e-4)
    assert figures["90th percentile"] == pytest.approx(0.05, abs=1e-4)
    assert figures["confidence histogram"] == [0.0] * 8 + [1.0, 0.0]


def test_joints_that_are_not_to_be_seen_are_no_errors_and_views_of_little_are_not_asked_about():
    of = sample()
    off = reported(of, 0.0, 0.0, 0.0)
    off.people[0].xy[:, COCO17.index("left_wrist")] += 90.0
    hidden = of.visible.copy()
    hidden[:, of.skeleton.index("left_wrist")] = False
    hidden[2, :] = False
    figures = summary(list(found_in(replace(of, visible=hidden), off)))
    assert figures["views"] == 2 and figures["90th percentile"] == pytest.approx(0.0, abs=1e-4)


def test_a_table_without_crops_or_without_people_says_so():
    of = sample()
    bare = replace(of, images=tuple(replace(p, crop=None) for p in of.images))
    with pytest.raises(ConfigError, match=r"no crops: convert with --crops\.side 256"):
        list(found_in(bare, Told([])))
    with pytest.raises(ConfigError, match="no view shows"):
        summary([])

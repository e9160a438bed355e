"""Two people walk past each other, through the whole job: clips that end in the middle of it, views that lose one."""

import os
from dataclasses import replace

import numpy as np
import torch

from mvpose import scenes
from mvpose.models.detection.detector_settings import DetectorConfig
from mvpose.pipeline.engine import EngineConfig
from mvpose.pipeline.job import ReconstructJob, reconstruct_archive
from mvpose.run.run_folder import RunFolder
from mvpose.scenes import Scene
from tests.footage.numbered_video import HEIGHT, WIDTH, number_of
from tests.pipeline.coded_footage import FRAMES_A_CAMERA, CodedDetector, write_calibration, write_video

BEFORE, FRAMES = 20, 50
"""Frames in which they only walk, left out, and those of the job: they pass in the middle of these."""
HIDDEN_FROM_OVERLAP = 0.3


def crossing() -> Scene:
    plain = scenes.two_people_crossing(num_frames=BEFORE + FRAMES)
    kept = {name: getattr(plain, name)[:, BEFORE:] for name in ("seen", "detected")}
    plain = replace(plain, joints=plain.joints[BEFORE:], **kept)
    size = torch.tensor([[WIDTH, HEIGHT]] * len(plain.rig))
    return replace(plain, rig=plain.rig.resized(size / plain.rig.size.to(torch.float64), size))


class CrossingDetector(CodedDetector):
    """Sees the two in any order, and only the one in front where they overlap in an image."""

    def __init__(self, config: DetectorConfig) -> None:
        super().__init__(config)
        self.keypoints = crossing().keypoints(noise_px=0.1)

    def people(self, image):
        found = super().people(image)
        number = number_of(image)
        order = np.random.default_rng(number).permutation(len(found.score))
        if len(order) == 2 and overlap(found.box) > HIDDEN_FROM_OVERLAP:
            order = [int(np.argmax(found.box[:, 3] - found.box[:, 1]))]
        return type(found)(found.box[order], found.score[order], found.xy[order], found.confidence[order])


def overlap(box: np.ndarray) -> float:
    """Intersection over the smaller of two boxes."""
    low, high = np.maximum(box[0, :2], box[1, :2]), np.minimum(box[0, 2:], box[1, 2:])
    areas = (box[:, 2:] - box[:, :2]).prod(axis=1)
    return float(np.clip(high - low, 0, None).prod() / areas.min())


def test_two_people_who_cross_keep_their_identities_in_every_frame(tmp_path):
    scene = crossing()
    folder = tmp_path / "archive" / "crossing"
    for part in ("videos", "calibration"):
        os.makedirs(folder / part)
    for camera in range(len(scene.rig)):
        write_video(str(folder / "videos" / f"cam{camera}.mp4"), camera, FRAMES)
    write_calibration(str(folder / "calibration" / "Calib.toml"), scene)
    output = str(tmp_path / "run")
    job = ReconstructJob(
        archive=str(tmp_path / "archive"), output=output, clip_frames=15, engine=EngineConfig(local=True),
        detector=DetectorConfig(detector="tests.pipeline.test_crossing:CrossingDetector"),
    )  # fmt: skip
    summary = reconstruct_archive(job)
    assert summary.figures["crossing"]["people"] == 2 and not [n for n in summary.notes if "more" in n]
    run_folder = RunFolder(output)
    [plan] = run_folder.plans()
    poses, truth = run_folder.poses(plan), scene.joints
    assert poses is not None and poses.xyz.shape[1] == 2
    # They pass within arm's reach, the hidden one is lost to some views, and clips end while they do.
    assert np.linalg.norm((truth[:, 0] - truth[:, 1]).mean(axis=1)[:, :2], axis=-1).min() < 0.8
    distance = np.linalg.norm(poses.xyz[:, :, None] - truth[:, None], axis=-1)  # T track person J
    nearest = np.nanmean(distance, axis=-1).argmin(axis=2)
    assert (nearest == nearest[0]).all(), f"identities change in {(nearest != nearest[0]).any(axis=1).sum()} frames"
    assert sorted(nearest[0]) == [0, 1]
    own = np.take_along_axis(distance, nearest[:, :, None, None], axis=2)[:, :, 0]
    assert np.nanmedian(own) < 0.03 and np.isfinite(own).mean() > 0.9
    one = reconstruct_archive(replace(job, people=1, replan=True))
    [note] = [note for note in one.notes if "--people all" in note]
    assert "1 more person was seen, in up to" in note and one.figures["crossing"]["people"] == 1


def test_the_detector_of_this_scene_does_lose_people():
    found = crossing().keypoints(noise_px=0.1)
    hidden = [
        overlap(found.box[v, t, :2]) > HIDDEN_FROM_OVERLAP
        for v in range(found.box.shape[0])
        for t in range(FRAMES)
        if (found.box_score[v, t, :2] > 0).all()
    ]
    assert 0.05 < np.mean(hidden) < 0.9
    assert FRAMES < FRAMES_A_CAMERA

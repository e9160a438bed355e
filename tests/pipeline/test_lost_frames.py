"""Footage that lost frames gives the poses of the instants that it shows."""

import glob
import os

import numpy as np
import pyarrow.parquet as pq

from mvpose.footage.catalogue import CatalogueConfig
from mvpose.models.detection.detector_settings import DetectorConfig
from mvpose.pipeline.engine import EngineConfig
from mvpose.pipeline.job import ReconstructJob, reconstruct_archive
from mvpose.run.run_folder import RunFolder
from tests.pipeline.coded_footage import DETECTOR, scene, write_image_capture

FRAMES = 24


def worst_error_m(tmp_path, name: str, lost: dict[int, set[int]], apart: int = 1) -> tuple[float, np.ndarray]:
    """Largest error of the raw poses, and the times of their rows; images are numbered `apart` from frame 12 on."""
    folder = write_image_capture(f"{tmp_path}/{name}/trial", FRAMES)
    for camera in range(4):
        for frame in range(FRAMES):
            path = f"{folder}/images/cam{camera}/{frame:04d}.png"
            if frame in lost.get(camera, ()):
                os.remove(path)
            elif frame >= 12 and apart > 1:
                os.rename(path, f"{folder}/images/cam{camera}/{frame + apart:04d}.png")
    job = ReconstructJob(
        archive=f"{tmp_path}/{name}",
        output=f"{tmp_path}/{name}-run",
        clip_frames=10,
        catalogue=CatalogueConfig(fps=30.0),
        detector=DetectorConfig(detector=DETECTOR),
        engine=EngineConfig(local=True),
    )
    reconstruct_archive(job)
    run = RunFolder(job.output)
    (plan,) = run.plans()
    poses, truth = run.poses(plan), scene(40)
    error = np.linalg.norm(poses.xyz[:, 0] - truth.joints[:FRAMES, 0], axis=-1)
    assert np.isfinite(error).all() and len(error) == FRAMES
    return float(error.max()), plan.capture.times_s(np.arange(FRAMES))


def test_lost_frames_of_single_cameras_are_missing_views_and_shift_nothing(tmp_path):
    whole, _ = worst_error_m(tmp_path, "whole", {})
    with_losses, times = worst_error_m(tmp_path, "lost", {1: {5, 6, 15}, 2: {0, 1}, 3: {9}})
    assert with_losses < max(1.5 * whole, 0.03)
    np.testing.assert_allclose(times, np.arange(FRAMES) / 30)


def test_a_break_in_the_numbers_is_a_break_in_time_and_every_instant_has_its_pose(tmp_path):
    whole, _ = worst_error_m(tmp_path, "whole", {})
    broken, times = worst_error_m(tmp_path, "broken", {}, apart=600)
    assert broken < 1.5 * whole
    np.testing.assert_allclose(times, (np.arange(FRAMES) + 600 * (np.arange(FRAMES) >= 12)) / 30)
    files = glob.glob(f"{tmp_path}/broken-run/tracks/trial/*.parquet")
    for table in map(pq.read_table, files):
        sides = {
            (track, frame >= 12)
            for track, frame in zip(*(table[c].to_pylist() for c in ("track", "frame")), strict=True)
        }
        assert len(sides) == len({track for track, _ in sides}), "a track goes on across the break"

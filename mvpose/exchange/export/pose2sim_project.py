"""A Pose2Sim project: calibration, 2D joints and 3D markers where Pose2Sim looks for them.

    calibration/Calib.toml          metres, Z up
    pose/<camera>_json/...          OpenPose JSON, in the order of the skeleton
    pose-3d/<name>_person<track>.trc    metres, Y up

Its `Config.toml` is left to the user: copy one of Pose2Sim's, set `frame_rate` and `pose_model`, and go on from any
stage after pose estimation.
"""

from __future__ import annotations

from collections.abc import Iterator

from mvpose.exchange.calibration_export import pose2sim_toml
from mvpose.exchange.export.openpose_json import openpose_files
from mvpose.exchange.export.recording import File, Recording
from mvpose.exchange.export.trc import trc_files
from mvpose.geometry.camera import CameraRig
from mvpose.records import Keypoints2D


def pose2sim_files(recording: Recording, keypoints: Keypoints2D, rig: CameraRig) -> Iterator[File]:
    """The files of a project, below its folder."""
    yield "calibration/Calib.toml", pose2sim_toml(rig).encode()
    for name, content in openpose_files(keypoints, rig.names):
        yield f"pose/{name}", content
    for name, content in trc_files(recording):
        yield f"pose-3d/{name}", content

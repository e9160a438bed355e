"""A Pose2Sim project holds what Pose2Sim looks for, and mvpose reads its own back."""

import os

import numpy as np

from mvpose.archive.calibration import read_calibration
from mvpose.archive.export.pose2sim_project import pose2sim_files
from mvpose.archive.keypoint_import import OpenPoseImport, keypoints_of
from mvpose.scenes import ring4
from tests.archive.export.recordings import recording_of


def test_calibration_poses_and_markers_lie_where_they_are_looked_for(tmp_path):
    scene = ring4(num_frames=6)
    keypoints = scene.keypoints()
    for name, content in pose2sim_files(recording_of(scene.joints), keypoints, scene.rig):
        path = os.path.join(tmp_path, name)
        os.makedirs(os.path.dirname(path), exist_ok=True)
        with open(path, "wb") as file:
            file.write(content)
    assert sorted(os.listdir(tmp_path)) == ["calibration", "pose", "pose-3d"]
    assert os.listdir(os.path.join(tmp_path, "pose-3d")) == ["walk_person3.trc"]
    rig = read_calibration(os.path.join(tmp_path, "calibration", "Calib.toml"))
    assert rig.names == scene.rig.names
    sources = [os.path.join(tmp_path, "pose", f"{camera}_json") for camera in rig.names]
    read = keypoints_of(tuple((uri, "") for uri in sources), OpenPoseImport(skeleton="halpe26"), range(6))
    assert np.allclose(read.xy, keypoints.xy, atol=1e-3, equal_nan=True)

"""Export OpenPose JSON 1.3: the 2D joints of one camera and frame per file, in pixels of the decoded video.

Joints are in the order of the skeleton in which they were found; only BODY_25 is OpenPose's own. A joint that was not
found is 0, 0, 0, as in OpenPose. People are in no particular order, as `person_id` -1 states.

A Pose2Sim project is built from the same files, in the locations that Pose2Sim expects:

    calibration/Calib.toml              metres, Z up
    pose/<camera>_json/...              OpenPose JSON, in the order of the skeleton
    pose-3d/<name>_person<track>.trc    metres, Y up

Its `Config.toml` is not written: copy one from Pose2Sim, set `frame_rate` and `pose_model`, and continue with any stage
after pose estimation.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence

import numpy as np

from mvpose.exchange.calibration_export import pose2sim_toml
from mvpose.exchange.export.recording import File, Recording
from mvpose.exchange.export.trc import trc_files
from mvpose.geometry.camera import CameraRig
from mvpose.records import Keypoints2D
from mvpose.storage.locations import safe_path

_EMPTY = {
    f"{part}_keypoints_{d}d": [] for d in (2, 3) for part in ("pose", "face", "hand_left", "hand_right")
}  # fmt: skip


def openpose_files(keypoints: Keypoints2D, cameras: Sequence[str]) -> Iterator[File]:
    """`<camera>_json/<camera>_<frame>_keypoints.json` for every camera and frame, including those without people."""
    for view, name in enumerate(cameras):
        camera = safe_path([name])
        for frame in range(keypoints.box_score.shape[1]):
            content = json.dumps(_frame(keypoints, view, frame), separators=(",", ":"))
            yield f"{camera}_json/{camera}_{frame:012d}_keypoints.json", content.encode()


def _frame(keypoints: Keypoints2D, view: int, frame: int) -> dict:
    here = np.flatnonzero(keypoints.box_score[view, frame] > 0)
    confidence = keypoints.confidence[view, frame, here, :, None].astype(np.float64)
    xy = keypoints.xy[view, frame, here].astype(np.float64)
    found = (confidence > 0) & np.isfinite(xy).all(axis=-1, keepdims=True)
    triples = np.where(found, np.concatenate([xy, confidence], axis=-1), 0.0)
    rows = triples.round(5).reshape(len(here), 3 * xy.shape[1]).tolist()
    return {"version": 1.3, "people": [{"person_id": [-1], **_EMPTY, "pose_keypoints_2d": row} for row in rows]}


def pose2sim_files(recording: Recording, keypoints: Keypoints2D, rig: CameraRig) -> Iterator[File]:
    """The files of a project, relative to its folder."""
    yield "calibration/Calib.toml", pose2sim_toml(rig).encode()
    for name, content in openpose_files(keypoints, rig.names):
        yield f"pose/{name}", content
    for name, content in trc_files(recording):
        yield f"pose-3d/{name}", content

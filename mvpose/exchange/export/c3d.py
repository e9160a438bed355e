"""Export C3D through ezc3d: millimetres, Z up (X_SCREEN +X, Y_SCREEN +Z), floats. A missing point has residual -1, all
others 0. Neither `sigma_mm` nor camera masks are written: ezc3d 1.7 and other readers disagree on which byte is the
residual and which the mask, so that a sigma of 12 mm would read as views 3 and 4.

All people are in one file, as `person<track>:<joint>` if there are several. Labels beyond 255 go to LABELS2 and so on.
C3D counts frames in 16 bits, and beyond 65,535 readers silently see only a part of the file. Longer recordings are
split, and the file names state the frames of each part.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator

import ezc3d
import numpy as np

from mvpose.exchange.export.recording import File, Recording

MAX_FRAMES = 65_535


def c3d_files(recording: Recording, max_frames: int = MAX_FRAMES) -> Iterator[File]:
    """`<name>.c3d`, or `<name>_frames<first>-<last>.c3d` for each part of a recording above `max_frames`."""
    num_frames = len(recording.poses.xyz)
    if num_frames <= max_frames:
        yield f"{recording.name}.c3d", _c3d(recording, 0, num_frames)
        return
    for start in range(0, num_frames, max_frames):
        stop = min(start + max_frames, num_frames)
        yield f"{recording.name}_frames{start:07d}-{stop - 1:07d}.c3d", _c3d(recording, start, stop)


def _c3d(recording: Recording, start: int, stop: int) -> bytes:
    poses = recording.poses
    points = poses.xyz[start:stop].reshape(stop - start, -1, 3).transpose(2, 1, 0).astype(np.float64) * 1000.0
    several = len(poses.track_id) > 1
    labels = [
        f"person{track}:" * several + joint for track in poses.track_id.tolist() for joint in poses.skeleton.joints
    ]
    file = ezc3d.c3d()
    point = file["parameters"]["POINT"]
    point["RATE"]["value"] = [recording.fps]
    point["UNITS"]["value"] = ["mm"]
    point["LABELS"]["value"] = labels
    file.add_parameter("POINT", "X_SCREEN", ["+X"])
    file.add_parameter("POINT", "Y_SCREEN", ["+Z"])
    file.add_parameter("MANUFACTURER", "SOFTWARE", ["mvpose"])
    missing = ~np.isfinite(points).all(axis=0, keepdims=True)
    file["data"]["points"] = np.concatenate([points, np.ones_like(points[:1])])
    file["data"]["meta_points"]["residuals"] = np.where(missing, -1.0, 0.0)
    file["data"]["meta_points"]["camera_masks"] = np.zeros((7, *points.shape[1:]), dtype=bool)
    # ezc3d can only write to a local path.
    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, "poses.c3d")
        file.write(path)
        with open(path, "rb") as written:
            return written.read()

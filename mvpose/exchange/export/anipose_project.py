"""Export an Anipose project: its calibration, and its 3D result as one wide CSV per person. Metres, Z up.

    calibration/calibration.toml
    pose-3d/<name>_person<track>.csv

`<joint>_x _y _z _error _ncams _score` for each joint, then the change of axes (none: M_ij the identity, center_i zero),
and `fnum`. Missing values are empty. Errors are in pixels; Anipose has no column for `sigma_mm`.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pandas as pd

from mvpose.exchange.calibration_export import anipose_toml
from mvpose.exchange.export.recording import File, Recording
from mvpose.geometry.camera import CameraRig


def anipose_files(recording: Recording, rig: CameraRig) -> Iterator[File]:
    """The files of a project, relative to its folder."""
    yield "calibration/calibration.toml", anipose_toml(rig).encode()
    for name, place in recording.people():
        table = _table(recording, place)
        yield f"pose-3d/{name}.csv", table.to_csv(index=False, float_format="%.9g", lineterminator="\n").encode()


def _table(recording: Recording, place: int) -> pd.DataFrame:
    poses = recording.poses
    there = np.isfinite(poses.xyz[:, place, :, 0])
    columns: dict[str, np.ndarray | float] = {}
    for j, joint in enumerate(poses.skeleton.joints):
        for i, axis in enumerate("xyz"):
            columns[f"{joint}_{axis}"] = poses.xyz[:, place, j, i]
        columns[f"{joint}_error"] = poses.error_px[:, place, j]
        columns[f"{joint}_ncams"] = np.where(there[:, j], poses.num_views[:, place, j], np.nan)
        columns[f"{joint}_score"] = np.where(there[:, j], poses.confidence[:, place, j], np.nan)
    columns |= {f"M_{i}{j}": float(i == j) for i in range(3) for j in range(3)}
    columns |= {f"center_{i}": 0.0 for i in range(3)}
    return pd.DataFrame({**columns, "fnum": np.arange(len(poses.xyz))})

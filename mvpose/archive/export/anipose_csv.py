"""Anipose's 3D result: a wide CSV a person, in the unit and world of the calibration it goes with (metres, Z up here).

`<joint>_x _y _z _error _ncams _score` of each joint; then the change of axes, which is none (M_ij the identity,
center_i zero), and `fnum`. What is missing is empty.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pandas as pd

from mvpose.archive.export.recording import File, Recording


def anipose_csv_files(recording: Recording) -> Iterator[File]:
    """`pose-3d/<name>_person<track>.csv`, where Anipose keeps them."""
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

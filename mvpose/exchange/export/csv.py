"""Export CSV for pandas, R and spreadsheets: metres, Z up, with units in the column names. Missing values are empty.

long    one row per frame, person and joint, with confidence, error, sigma, views, and whether it was interpolated
wide    one row per frame; `<joint>_x_m` ... for each person, prefixed by `person<track>_` if there are several
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pandas as pd

from mvpose.exchange.export.recording import File, Recording


def long_csv_files(recording: Recording) -> Iterator[File]:
    """`<name>_long.csv`; a person without any joint in a frame has no rows there."""
    poses = recording.poses
    joints = len(poses.skeleton.joints)
    t, p = np.nonzero(np.isfinite(poses.xyz).all(axis=-1).any(axis=-1))
    here = (t, p)

    def per_joint(values: np.ndarray) -> np.ndarray:
        return values[here].ravel()

    table = pd.DataFrame(
        {
            "capture": recording.capture_id,
            "frame": np.repeat(t, joints),
            "time_s": np.repeat(recording.time_s[t], joints),
            "person": np.repeat(poses.track_id[p], joints),
            "joint": np.tile(np.array(poses.skeleton.joints), len(t)),
            **{f"{axis}_m": per_joint(poses.xyz[..., i]) for i, axis in enumerate("xyz")},
            "confidence": per_joint(poses.confidence),
            "error_px": per_joint(poses.error_px),
            "sigma_mm": per_joint(poses.sigma_mm),
            "views": per_joint(poses.num_views),
            "interpolated": per_joint(recording.filled).astype(int),
        }
    )
    yield f"{recording.name}_long.csv", _csv(table)


def wide_csv_files(recording: Recording) -> Iterator[File]:
    """`<name>_wide.csv`, one row per frame."""
    poses = recording.poses
    several = len(poses.track_id) > 1
    columns: dict[str, np.ndarray] = {"frame": np.arange(len(poses.xyz)), "time_s": recording.time_s}
    for p, track in enumerate(poses.track_id.tolist()):
        for j, joint in enumerate(poses.skeleton.joints):
            for i, axis in enumerate("xyz"):
                columns[f"person{track}_" * several + f"{joint}_{axis}_m"] = poses.xyz[:, p, j, i]
    yield f"{recording.name}_wide.csv", _csv(pd.DataFrame(columns))


def _csv(table: pd.DataFrame) -> bytes:
    """Nine significant digits, which preserve a float32 exactly."""
    return table.to_csv(index=False, float_format="%.9g", lineterminator="\n").encode()

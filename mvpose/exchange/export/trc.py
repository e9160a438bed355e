"""Export TRC, the marker file of OpenSim: metres, Y up, one file per person.

The format follows OpenSim 4's reader (TRCFileAdapter): eight header keys in fixed order, X1 Y1 Z1 ... below the names,
an empty line before the data, and a tab *after* every value, because the reader drops empty cells at the end of a line
and then misses a column. A missing marker is three empty cells, which OpenSim reads as NaN.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from mvpose.exchange.export.recording import File, Recording, y_up

_KEYS = (
    "DataRate", "CameraRate", "NumFrames", "NumMarkers", "Units",
    "OrigDataRate", "OrigDataStartFrame", "OrigNumFrames",
)  # fmt: skip


def trc_files(recording: Recording) -> Iterator[File]:
    """`<name>_person<track>.trc`; positions are precise to a micrometre."""
    for name, place in recording.people():
        yield f"{name}.trc", _trc(f"{name}.trc", recording, place).encode()


def _trc(file: str, recording: Recording, place: int) -> str:
    joints = recording.poses.skeleton.joints
    xyz = y_up(recording.poses.xyz[:, place].astype(np.float64))
    rate, frames = f"{recording.fps:.10g}", str(len(xyz))
    values = (rate, rate, frames, str(len(joints)), "m", rate, "1", frames)
    lines = [
        f"PathFileType\t4\t(X/Y/Z)\t{file}",
        "\t".join(_KEYS),
        "\t".join(values),
        "Frame#\tTime\t" + "".join(f"{joint}\t\t\t" for joint in joints),
        "\t\t" + "".join(f"X{i}\tY{i}\tZ{i}\t" for i in range(1, len(joints) + 1)),
        "",
    ]
    for frame, (time, pose) in enumerate(zip(recording.time_s, xyz, strict=True), start=1):
        cells = [
            "\t\t\t" if np.isnan(joint).any() else f"{joint[0]:.6f}\t{joint[1]:.6f}\t{joint[2]:.6f}\t" for joint in pose
        ]
        lines.append(f"{frame}\t{time:.9f}\t" + "".join(cells))
    return "\n".join([*lines, ""])

"""Data of the page's 3D viewer: frames of joints in whole millimetres, and the cameras."""

from __future__ import annotations

import json
import math
from typing import Any

import numpy as np
from jaxtyping import Float

from mvpose.report.figures import sides
from mvpose.report.room_plot import frusta, frustum_depth, widest_azimuth
from mvpose.report.subject import CaptureReport

# The joints nearest the centre set the scale: one distant joint must not shrink the people to a dot.
SHOWN_PERCENT = 98.0


def viewer_data(subject: CaptureReport, max_frames: int) -> dict[str, Any]:
    """Return plain numbers and names: at most `max_frames` frames, evenly sampled; a missing joint is None."""
    step = max(1, math.ceil(len(subject.frames) / max_frames))
    xyz = subject.poses.xyz[::step]
    skeleton, side = subject.poses.skeleton, sides(subject.poses.skeleton)
    joints = subject.poses.xyz[np.isfinite(subject.poses.xyz).all(axis=-1)]
    corners = frusta(subject.capture.rig, frustum_depth(subject))
    centre = np.median(joints, axis=0) if len(joints) else np.zeros(3)
    radius = float(np.percentile(np.linalg.norm(joints - centre, axis=1), SHOWN_PERCENT)) if len(joints) else 1.0
    # Rooms are flat and the view is wide: a radius of 0.7 times the farthest camera's distance is enough.
    room_radius = max(radius, 0.7 * float(np.linalg.norm(corners[:, 0] - centre, axis=1).max()))
    return {
        "fps": subject.capture.fps,
        "frames": [int(frame) for frame in subject.frames[::step]],
        "start": math.ceil(int(next(iter(subject.full_rows), 0)) / step),
        "tracks": [int(track) for track in subject.poses.track_id],
        "bones": [[a, b, side[b]] for a, b in skeleton.bone_indices],
        "xyz": _millimetres(xyz),
        "cameras": [
            {"name": name, "corners": _millimetres(c)}
            for name, c in zip(subject.capture.rig.names, corners, strict=True)
        ],
        "centre": _millimetres(centre),
        "radius": round(1000 * max(radius, 0.5)),
        "roomRadius": round(1000 * max(room_radius, 0.5)),
        # The plot's azimuth is the position of the eye; the viewer's is its direction.
        "azimuth": round(math.radians(widest_azimuth(subject) + 180.0), 4),
    }


def script_json(value: Any) -> str:
    """Serialise JSON for a <script> element, without `<`, so that no text can close the element."""
    text = json.dumps(value, separators=(",", ":"), ensure_ascii=True, allow_nan=False)
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def _millimetres(metres: Float[np.ndarray, "*n 3"]) -> Any:
    """Nested lists of points; a missing point is None."""
    if metres.ndim > 1:
        return [_millimetres(part) for part in metres]
    return [round(1000.0 * float(m)) for m in metres] if np.isfinite(metres).all() else None

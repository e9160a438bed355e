"""Recordings with what exports go wrong on: two people, holes in the middle and at the ends, a joint never seen."""

import numpy as np

from mvpose.exchange.export.recording import Recording
from mvpose.records import Poses3D
from mvpose.scenes import ring4, two_people_crossing
from mvpose.skeleton import HALPE26, Skeleton


def recording_of(
    xyz: np.ndarray, skeleton: Skeleton = HALPE26, fps: float = 60000 / 1001, capture_id: str = "day1/walk"
) -> Recording:
    there = np.isfinite(xyz).all(axis=-1)
    rng = np.random.default_rng(0)
    views = there[..., None] & (rng.random((*there.shape, 4)) < 0.8)
    poses = Poses3D(
        xyz=xyz.astype(np.float32),
        confidence=(there * rng.uniform(0.5, 1.0, there.shape)).astype(np.float32),
        error_px=np.where(there, rng.uniform(1.0, 5.0, there.shape), np.nan).astype(np.float32),
        sigma_mm=np.where(there, rng.uniform(8.0, 60.0, there.shape), np.nan).astype(np.float32),
        num_views=views.sum(axis=-1),
        views_used=views,
        track_id=np.arange(xyz.shape[1]) + 3,
        skeleton=skeleton,
    )
    filled = np.zeros(there.shape, dtype=bool)
    filled[4:5] = there[4:5]
    return Recording(capture_id=capture_id, fps=fps, poses=poses, filled=filled)


def whole() -> Recording:
    """One person, nothing missing."""
    return recording_of(ring4(num_frames=20).joints)


def broken() -> Recording:
    """Two people; holes at the start, in the middle, at the end of a row, and a joint that is never there."""
    xyz = two_people_crossing(num_frames=20).joints.copy()
    xyz[:3, 0, 5] = np.nan
    xyz[8:10, 1, 7] = np.nan
    xyz[12:, :, -1] = np.nan
    xyz[:, 0, 2] = np.nan
    xyz[15, 1] = np.nan
    return recording_of(xyz)

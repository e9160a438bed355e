"""Join the people of single frames into tracks over the clip, and choose the tracks to keep."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import torch
from jaxtyping import Float, Int
from scipy.optimize import linear_sum_assignment

from mvpose.reconstruction.association import Association

# Maximum distance of a body from its prediction (2D noise, joints that appear and disappear). It grows by `DRIFT_M_S`
# per second without observation, about as much as people change their speed in a second.
SLACK_M, DRIFT_M_S = 0.35, 2.0
# Weight of the newest step in the running estimate of a track's velocity.
VELOCITY_GAIN = 0.3


@dataclass(eq=False)
class Track:
    """One person through the clip, during construction."""

    frames: list[int]
    bodies: list[int]
    pose: Float[np.ndarray, "J 3"]
    """Joints when last seen; NaN if never known."""
    velocity: Float[np.ndarray, 3] = field(default_factory=lambda: np.zeros(3))
    """Metres per frame."""


def link(association: Association, fps: float, max_gap_s: float) -> list[Track]:
    """Join bodies frame by frame, by optimal assignment of bodies to tracks on the distance from the prediction.

    A track's last pose is extrapolated by its velocity; the track may be unobserved for up to `max_gap_s`.
    """
    bodies = np.where(association.known[..., None].numpy(), association.bodies.numpy(), np.nan)
    present = (association.places >= 0).any(dim=-1).numpy()
    tracks: list[Track] = []
    for t in range(len(bodies)):
        found = np.flatnonzero(present[t] & ~np.isnan(bodies[t]).all(axis=(1, 2)))
        live = [track for track in tracks if (t - track.frames[-1]) / fps <= max_gap_s]
        taken = set()
        for row, column in _matches(live, bodies[t, found], t, fps):
            _extend(live[row], t, int(found[column]), bodies[t, found[column]])
            taken.add(column)
        new = [body for column, body in enumerate(found) if column not in taken]
        tracks += [Track([t], [int(body)], bodies[t, body]) for body in new]
    return tracks


def strongest(tracks: list[Track], association: Association, count: int) -> Int[torch.Tensor, "T P V"]:
    """Slots (-1: none) of the `count` tracks with the most support from views and frames, strongest first.

    The support of a track is the sum of its views' agreement over its frames: a person seen by all cameras outranks a
    bystander seen by two, regardless of the sizes of their boxes.
    """
    support = association.support.sum(dim=-1).numpy()
    worth = [support[track.frames, track.bodies].sum() for track in tracks]
    best = np.argsort(-np.array(worth), kind="stable")[:count]
    num_frames, _, num_views = association.places.shape
    places = torch.full((num_frames, len(best), num_views), -1)
    for person, index in enumerate(best):
        track = tracks[index]
        places[track.frames, person] = association.places[track.frames, track.bodies]
    return places


def _matches(live: list[Track], poses: np.ndarray, frame: int, fps: float) -> list[tuple[int, int]]:
    """(track, pose) pairs of the assignment that matches as many as allowed, with the minimum total distance."""
    if not live or not len(poses):
        return []
    elapsed = np.array([frame - track.frames[-1] for track in live])
    expected = np.stack([t.pose + n * t.velocity for t, n in zip(live, elapsed, strict=True)])
    apart = np.linalg.norm(expected[:, None] - poses[None], axis=-1)
    shared = ~np.isnan(apart)
    distance = np.where(shared, apart, 0.0).sum(axis=-1) / np.maximum(shared.sum(axis=-1), 1)
    reach = SLACK_M + DRIFT_M_S * (elapsed - 1)[:, None] / fps
    allowed = shared.any(axis=-1) & (distance <= reach)
    # A forbidden pair costs more than all allowed pairs together, so it never displaces one.
    cost = np.where(allowed, distance, 1.0 + distance[allowed].sum())
    rows, columns = linear_sum_assignment(cost)
    return [(int(r), int(c)) for r, c in zip(rows, columns, strict=True) if allowed[r, c]]


def _extend(track: Track, frame: int, body: int, pose: Float[np.ndarray, "J 3"]) -> None:
    steps = frame - track.frames[-1]
    moved = pose - track.pose
    if not np.isnan(moved).all():
        gain = 1.0 - (1.0 - VELOCITY_GAIN) ** steps
        track.velocity = (1.0 - gain) * track.velocity + gain * np.nanmedian(moved, axis=0) / steps
    track.pose = np.where(np.isnan(pose), track.pose + steps * track.velocity, pose)
    track.frames.append(frame)
    track.bodies.append(body)

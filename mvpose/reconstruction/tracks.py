"""Join the people of single frames into tracks over the clip, and choose the tracks to keep."""

from __future__ import annotations

from dataclasses import dataclass, fields

import numpy as np
import torch
from jaxtyping import Bool, Float, Int

from mvpose.reconstruction.assignment import minimum_cost
from mvpose.reconstruction.association import Association

# Maximum distance of a body from its prediction (2D noise, joints that appear and disappear). It grows by `DRIFT_M_S`
# per second without observation, about as much as people change their speed in a second.
SLACK_M, DRIFT_M_S = 0.35, 2.0
# Weight of the newest step in the running estimate of a track's velocity.
VELOCITY_GAIN = 0.3


@dataclass(frozen=True, eq=False)
class Track:
    """One person through the clip."""

    frames: list[int]
    bodies: list[int]


@dataclass(frozen=True, eq=False)
class Ends:
    """The ends of tracks that may continue, one row each."""

    track: Int[np.ndarray, "n"]
    frame: Int[np.ndarray, "n"]
    """Frame in which it was last seen."""
    pose: Float[np.ndarray, "n J 3"]
    """Joints when last seen; NaN if never known."""
    velocity: Float[np.ndarray, "n 3"]
    """Metres per frame."""

    def of(self, rows: np.ndarray) -> Ends:
        """Some of the ends, by index or mask."""
        return Ends(self.track[rows], self.frame[rows], self.pose[rows], self.velocity[rows])

    def joined(self, others: Ends) -> Ends:
        """These ends, then the others."""
        return Ends(*(np.concatenate([getattr(self, f.name), getattr(others, f.name)]) for f in fields(Ends)))


def link(association: Association, fps: float, max_gap_s: float) -> list[Track]:
    """Join bodies frame by frame, by optimal assignment of bodies to tracks on the distance from the prediction.

    A track's last pose is extrapolated by its velocity; the track may be unobserved for up to `max_gap_s`.
    """
    bodies = np.where(association.known[..., None].numpy(), association.bodies.numpy(), np.nan)
    present = (association.places >= 0).any(dim=-1).numpy() & association.known.any(dim=-1).numpy()
    tracks: list[Track] = []
    ends = started(0, 0, bodies[0, :0])
    for t, (poses, there) in enumerate(zip(bodies, present, strict=True)):
        found = np.flatnonzero(there)
        ends = ends.of((t - ends.frame) / fps <= max_gap_s)
        rows, columns = _matches(ends, poses[found], t, fps)
        seen = extended(ends.of(rows), t, poses[found[columns]])
        for track, body in zip(seen.track.tolist(), found[columns].tolist(), strict=True):
            tracks[track].frames.append(t)
            tracks[track].bodies.append(body)
        ends = ends.of(_others(len(ends.frame), rows)).joined(seen) if len(rows) < len(ends.frame) else seen
        if len(columns) < len(found):
            new = found[_others(len(found), columns)]
            ends = ends.joined(started(len(tracks), t, poses[new]))
            tracks += [Track([t], [body]) for body in new.tolist()]
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


def started(first: int, frame: int, poses: Float[np.ndarray, "n J 3"]) -> Ends:
    """Tracks, numbered from `first`, that start in this frame."""
    number = len(poses)
    return Ends(np.arange(first, first + number), np.full(number, frame), poses, np.zeros((number, 3)))


def _others(number: int, rows: Int[np.ndarray, "k"]) -> Bool[np.ndarray, "n"]:
    others = np.ones(number, bool)
    others[rows] = False
    return others


def _matches(
    ends: Ends, poses: Float[np.ndarray, "m J 3"], frame: int, fps: float
) -> tuple[Int[np.ndarray, "k"], Int[np.ndarray, "k"]]:
    """Ends and poses of the assignment that matches as many as allowed, with the minimum total distance."""
    elapsed = frame - ends.frame
    expected = ends.pose + (elapsed[:, None] * ends.velocity)[:, None]
    apart = np.sqrt(np.square(expected[:, None] - poses[None]).sum(axis=-1))
    shared = ~np.isnan(apart)
    distance = np.where(shared, apart, 0.0).sum(axis=-1) / np.maximum(shared.sum(axis=-1), 1)
    reach = SLACK_M + DRIFT_M_S * (elapsed - 1)[:, None] / fps
    allowed = shared.any(axis=-1) & (distance <= reach)
    # A forbidden pair costs more than all allowed pairs together, so it never displaces one.
    cost = np.where(allowed, distance, 1.0 + distance[allowed].sum())
    rows, columns = minimum_cost(cost)
    kept = allowed[rows, columns]
    return rows[kept], columns[kept]


def extended(ends: Ends, frame: int, poses: Float[np.ndarray, "n J 3"]) -> Ends:
    """Ends of tracks after they are seen again in these poses."""
    steps = (frame - ends.frame)[:, None]
    step = _medians(poses - ends.pose)
    gain = np.where(np.isnan(step), 0.0, 1.0 - (1.0 - VELOCITY_GAIN) ** steps)
    velocity = (1.0 - gain) * ends.velocity + gain * np.nan_to_num(step) / steps
    expected = ends.pose + (steps * velocity)[:, None]
    return Ends(ends.track, np.full(len(steps), frame), np.where(np.isnan(poses), expected, poses), velocity)


def _medians(values: Float[np.ndarray, "n J 3"]) -> Float[np.ndarray, "n 3"]:
    """Medians over the joints that are not NaN. `np.nanmedian` takes 0.5 ms for one person."""
    ordered = np.sort(values, axis=1)  # NaN last
    count, person = values.shape[1] - np.isnan(values[..., 0]).sum(axis=1), np.arange(len(values))
    return (ordered[person, (count - 1) // 2] + ordered[person, count // 2]) / 2

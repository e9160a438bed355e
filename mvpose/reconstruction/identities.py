"""Who is who along a whole capture: people of single clips joined across clips, and the choice of whom to keep.

A clip alone cannot choose: of two people seen equally well it may keep the one and the next clip the other, and the
capture's one person would change from clip to clip (seen on the two-person demo). So clips keep everybody, and the
choice is made here, on what all clips together say.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float
from scipy.optimize import linear_sum_assignment

from mvpose.reconstruction.tracks import DRIFT_M_S, SLACK_M
from mvpose.records import Breaks, Poses3D

# People that a clip keeps beyond those wanted, so that the wanted ones are among them.
SPARE_PEOPLE = 4
# Frames at the end of a track that tell its velocity.
VELOCITY_FRAMES = 10


@dataclass(frozen=True, eq=False)
class Tracklet:
    """One track of one clip, as far as joining it to others needs."""

    clip_start: int
    track: int
    first: int
    last: int
    """First and last frame of the capture in which it has joints."""
    first_pose: Float[np.ndarray, "J 3"]
    last_pose: Float[np.ndarray, "J 3"]
    velocity: Float[np.ndarray, "3"]
    """Metres a frame, at the end."""
    support: float
    """Views beyond the first, summed over joints and frames: a person whom all cameras see beats a bystander whom two
    see, and two views that agree by chance count least."""


Identities = Mapping[tuple[int, int], int]
"""(first frame of a clip, track in it) -> person, 0 for the strongest; who is not in it is not kept."""


def tracklets_of(poses: Poses3D, start: int) -> list[Tracklet]:
    """The tracks of a clip that begins at frame `start` of its capture."""
    found = np.isfinite(poses.xyz[..., 0])
    tracklets = []
    for p, track in enumerate(poses.track_id):
        frames = np.flatnonzero(found[:, p].any(axis=1))
        if not len(frames):
            continue
        tail = frames[-VELOCITY_FRAMES:]
        steps = np.diff(poses.xyz[tail, p], axis=0) / np.diff(tail)[:, None, None]
        known = steps[np.isfinite(steps).all(axis=-1)]
        tracklets.append(
            Tracklet(
                clip_start=start,
                track=int(track),
                first=start + int(frames[0]),
                last=start + int(frames[-1]),
                first_pose=poses.xyz[frames[0], p].astype(np.float64),
                last_pose=poses.xyz[frames[-1], p].astype(np.float64),
                velocity=np.median(known, axis=0).astype(np.float64) if len(known) else np.zeros(3),
                support=float(np.maximum(poses.num_views[:, p] - 1, 0).sum()),
            )
        )
    return tracklets


def identify(
    clips: Iterable[Sequence[Tracklet]], fps: float, max_people: int, max_gap_s: float, breaks: Breaks = ()
) -> Identities:
    """Join the tracks of consecutive clips into people and keep the `max_people` with the most support.

    Clips come one by one; of those before, the tracks that may still go on are in memory.
    A track goes on in another if that begins within `max_gap_s` of its end, near where its velocity leads; pairs are
    those of the assignment with the least total distance, clip by clip. No track goes on across a break in time: who
    is who is not known there, and between two breaks people are chosen and numbered anew.
    """
    first_frames = [frame for frame, _ in breaks]
    person_of: dict[tuple[int, int], int] = {}
    support: list[float] = []
    segment: list[int] = []
    open_ends: list[Tracklet] = []
    for tracklets in clips:
        earliest = min((t.first for t in tracklets), default=0) - round(max_gap_s * fps)
        open_ends = [t for t in open_ends if t.last >= earliest] + list(tracklets)
        before = _predecessors(open_ends, tracklets, fps, max_gap_s, first_frames)
        for tracklet in sorted(tracklets, key=lambda t: t.first):
            key = (tracklet.clip_start, tracklet.track)
            previous = before.get(key)
            if previous is None:
                support.append(0.0)
                segment.append(bisect_right(first_frames, tracklet.first))
            person_of[key] = len(support) - 1 if previous is None else person_of[previous.clip_start, previous.track]
            support[person_of[key]] += tracklet.support
        ended = {(t.clip_start, t.track) for t in before.values()}
        open_ends = [t for t in open_ends if (t.clip_start, t.track) not in ended]
    stronger = [0] * (len(breaks) + 1)
    number = [0] * len(support)
    for person in np.argsort(-np.array(support), kind="stable").tolist():
        number[person] = stronger[segment[person]]
        stronger[segment[person]] += 1
    return {key: number[person] for key, person in person_of.items() if number[person] < max_people}


def _predecessors(
    ends: Sequence[Tracklet], starts: Sequence[Tracklet], fps: float, max_gap_s: float, first_frames: Sequence[int]
) -> dict[tuple[int, int], Tracklet]:
    """By (clip, track) of a track that begins, the track that it goes on from."""
    if not ends or not starts:
        return {}
    gap = np.array([[b.first - a.last for b in starts] for a in ends])
    expected = (
        np.stack([a.last_pose for a in ends])[:, None]
        + gap[..., None, None] * np.stack([a.velocity for a in ends])[:, None, None]
    )
    apart = np.linalg.norm(expected - np.stack([b.first_pose for b in starts])[None], axis=-1)
    shared = np.isfinite(apart)
    distance = np.where(shared, apart, 0.0).sum(axis=-1) / np.maximum(shared.sum(axis=-1), 1)
    reach = SLACK_M + DRIFT_M_S * np.maximum(gap - 1, 0) / fps
    allowed = shared.any(axis=-1) & (gap > 0) & (gap <= max_gap_s * fps) & (distance <= reach)
    segment = [np.array([bisect_right(first_frames, t.first) for t in tracklets]) for tracklets in (ends, starts)]
    allowed &= segment[0][:, None] == segment[1][None]
    # A forbidden pair costs more than all allowed pairs together, so that it never displaces one.
    cost = np.where(allowed, distance, 1.0 + distance[allowed].sum())
    rows, columns = linear_sum_assignment(cost)
    pairs = [(ends[r], starts[c]) for r, c in zip(rows, columns, strict=True) if allowed[r, c]]
    return {(b.clip_start, b.track): a for a, b in pairs}

"""Identify people over a whole capture: join the tracks of clips, and choose the people to keep.

A single clip cannot choose. Of two people seen equally well, it may keep one and the next clip the other, and the
capture's one person would change from clip to clip (seen on the two-person demo). Clips therefore keep all people, and
the choice is made here, from all clips together.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from mvpose.reconstruction.assignment import minimum_cost
from mvpose.reconstruction.tracks import DRIFT_M_S, SLACK_M
from mvpose.records import Breaks, Poses3D

SPARE_PEOPLE = 4
"""Number of people that views and clips keep in addition to those requested, so that the requested ones are among them
and the others are reported."""
# A person is seen by two cameras for at least this time, or for half of a shorter stretch of footage. With 2 or 5
# synthetic walkers before 3 to 5 cameras, each overlooked up to half of the time, nobody was made up; pieces of people
# who were lost for over a second and found elsewhere were 5 to 15 frames of 30 Hz. The demos have neither.
BRIEF_S = 0.2
# Number of frames at the end of a track from which its velocity is estimated.
VELOCITY_FRAMES = 10


@dataclass(frozen=True, eq=False)
class Tracklet:
    """The data of one track of one clip that are needed for joining it to others."""

    clip_start: int
    track: int
    first: int
    last: int
    """First and last frame of the capture in which the track has joints."""
    first_pose: Float[np.ndarray, "J 3"]
    last_pose: Float[np.ndarray, "J 3"]
    frames: int
    """Number of frames in which it has joints."""
    velocity: Float[np.ndarray, "3"]
    """Velocity at the end, in metres per frame."""
    support: float
    """Number of views beyond the first, summed over joints and frames. A person seen by all cameras outranks a
    bystander seen by two, and two views that agree by chance count little."""


Identities = Mapping[tuple[int, int], int]
"""(first frame of a clip, track in it) -> person, 0 for the strongest; people not in it are not kept."""


@dataclass(frozen=True)
class Identified:
    """The people kept of a capture, and what was seen of others. `brief` people were seen for under `BRIEF_S`."""

    kept: Identities
    left_out: int = 0
    """Number of other people."""
    left_out_frames: int = 0
    """Number of frames of the one seen longest."""
    brief: int = 0

    def figures(self) -> dict[str, float]:
        """Figures of merit about people, by name."""
        return {
            "people": float(len(set(self.kept.values()))),
            "people_left_out": float(self.left_out),
            "people_left_out_frames": float(self.left_out_frames),
            "people_brief": float(self.brief),
        }


def tracklets_of(poses: Poses3D, start: int) -> list[Tracklet]:
    """The tracks of a clip that starts at frame `start` of its capture."""
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
                frames=len(frames),
                velocity=np.median(known, axis=0).astype(np.float64) if len(known) else np.zeros(3),
                support=float(np.maximum(poses.num_views[:, p] - 1, 0).sum()),
            )
        )
    return tracklets


def identify(
    clips: Iterable[Sequence[Tracklet]],
    fps: float,
    max_people: int | None,
    max_gap_s: float,
    num_frames: int,
    breaks: Breaks = (),
) -> Identified:
    """Join the tracks of consecutive clips into people and keep the `max_people` (None: all) with the most support.

    Clips are consumed one by one; of earlier clips, only tracks that may still continue are in memory.
    A track is continued by another one that starts within `max_gap_s` of its end, near the position predicted by its
    velocity. Pairs are the assignment with the minimum total distance, clip by clip. No track continues across a break
    in time: identities are unknown there, and people are chosen and numbered separately between two breaks. People seen
    briefly are not kept, except the strongest between two breaks.
    """
    first_frames = [frame for frame, _ in breaks]
    person_of: dict[tuple[int, int], int] = {}
    support: list[float] = []
    frames: list[int] = []
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
                frames.append(0)
                segment.append(bisect_right(first_frames, tracklet.first))
            person_of[key] = len(support) - 1 if previous is None else person_of[previous.clip_start, previous.track]
            support[person_of[key]] += tracklet.support
            frames[person_of[key]] += tracklet.frames
        ended = {(t.clip_start, t.track) for t in before.values()}
        open_ends = [t for t in open_ends if (t.clip_start, t.track) not in ended]
    lengths = np.diff([0, *first_frames, num_frames])
    stronger = [0] * len(lengths)
    number: dict[int, int] = {}
    for person in np.argsort(-np.array(support), kind="stable").tolist():
        own = segment[person]
        if stronger[own] == 0 or frames[person] >= min(BRIEF_S * fps, lengths[own] / 2):
            number[person] = stronger[own]
            stronger[own] += 1
    limit = len(number) if max_people is None else max_people
    others = [person for person, place in number.items() if place >= limit]
    return Identified(
        kept={key: number[p] for key, p in person_of.items() if number.get(p, limit) < limit},
        left_out=max((count - limit for count in stronger), default=0) if others else 0,
        left_out_frames=max((frames[person] for person in others), default=0),
        brief=len(support) - len(number),
    )


def _predecessors(
    ends: Sequence[Tracklet], starts: Sequence[Tracklet], fps: float, max_gap_s: float, first_frames: Sequence[int]
) -> dict[tuple[int, int], Tracklet]:
    """For each starting track, by (clip, track), the track that it continues."""
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
    if not allowed.any():
        return {}
    # A forbidden pair costs more than all allowed pairs together, so it never displaces one.
    cost = np.where(allowed, distance, 1.0 + distance[allowed].sum())
    rows, columns = minimum_cost(cost)
    pairs = [(ends[r], starts[c]) for r, c in zip(rows, columns, strict=True) if allowed[r, c]]
    return {(b.clip_start, b.track): a for a, b in pairs}

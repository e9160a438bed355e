"""Two cameras with each other's names: the exchange under which the cameras agree on far more of what they show."""

from __future__ import annotations

import itertools
from dataclasses import dataclass, replace

import numpy as np

from mvpose.geometry.camera import CameraRig
from mvpose.quality.sightings import MIN_CONFIDENCE, everybody, misfits_px
from mvpose.reconstruction.view_errors import keypoints_at
from mvpose.records import Keypoints2D
from mvpose.skeleton import BODY_JOINTS

FRAMES = 24
SUSPECTS = 4
# A joint this far from where the other cameras say, in persons' heights, is not explained by them at all.
FAR = 0.1


@dataclass(frozen=True)
class Exchange:
    """Two views whose cameras are exchanged, and how much of the joints the other cameras explain before and after."""

    views: tuple[int, int]
    explained: float
    explained_exchanged: float


def best_exchange(keypoints: Keypoints2D, rig: CameraRig) -> Exchange:
    """Of all exchanges of two of the views that fit worst, the one that explains most."""
    frames = np.unique(np.linspace(0, keypoints.xy.shape[1] - 1, FRAMES).round().astype(int))
    some = keypoints_at(keypoints, frames)
    as_named = _explained(some, rig)
    suspects = np.argsort(as_named / _shown(some))[:SUSPECTS]
    tried = {
        (a, b): _explained(some, exchanged(rig, a, b)).sum()
        for a, b in itertools.combinations(sorted(suspects.tolist()), 2)
    }
    views = max(tried, key=lambda pair: tried[pair])
    everything = float(_shown(some).sum())
    return Exchange(views, float(as_named.sum()) / everything, float(tried[views]) / everything)


def exchanged(rig: CameraRig, one: int, other: int) -> CameraRig:
    """The rig in which two cameras have each other's calibration; names and their order stay."""
    names = list(rig.names)
    names[one], names[other] = names[other], names[one]
    return replace(rig.select(tuple(names)), names=rig.names)


def _explained(keypoints: Keypoints2D, rig: CameraRig) -> np.ndarray:
    """By view, how many joints lie where the other views say: 1 for one exactly there, 0 for one that is far."""
    seen = everybody(keypoints, rig).body
    far = FAR * seen.person_px
    parts = [(1.0 - (m / f) ** 2).clamp_min(0.0).nansum() for m, f in zip(misfits_px(seen, rig), far, strict=True)]
    return np.array([float(part) for part in parts])


def _shown(keypoints: Keypoints2D) -> np.ndarray:
    """By view the joints that could be explained."""
    body = [i for i, joint in enumerate(keypoints.skeleton.joints) if joint in BODY_JOINTS] or slice(None)
    return np.maximum((keypoints.confidence[..., body] >= MIN_CONFIDENCE).sum(axis=(1, 2, 3)), 1).astype(float)

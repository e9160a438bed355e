"""Detect two cameras with exchanged names: the exchange after which the cameras agree on far more joints."""

from __future__ import annotations

import itertools
from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Float

from mvpose.geometry.camera import CameraRig
from mvpose.quality.sightings import MIN_CONFIDENCE, all_people, misfits_px
from mvpose.reconstruction.view_errors import keypoints_at
from mvpose.records import Keypoints2D
from mvpose.skeleton import BODY_JOINTS

FRAMES = 24
SUSPECTS = 4
# A joint farther than this from its expected position, in persons' heights, counts as not explained.
FAR = 0.1


@dataclass(frozen=True, eq=False)
class Explained:
    """How many joints of each view the other cameras explain, on some frames of a take."""

    joints: Float[np.ndarray, " V"]
    """Explained joints: 1 for a joint exactly at its expected position, falling to 0 for one that is far."""
    shown: Float[np.ndarray, " V"]
    """Number of joints that could be explained; at least 1."""

    @staticmethod
    def of(keypoints: Keypoints2D, rig: CameraRig) -> Explained:
        """Of `FRAMES` frames spread over the take."""
        frames = np.unique(np.linspace(0, keypoints.xy.shape[1] - 1, FRAMES).round().astype(int))
        some = keypoints_at(keypoints, frames)
        return Explained(_explained(some, rig), _shown(some))

    @property
    def shares(self) -> Float[np.ndarray, " V"]:
        """Explained share of each view's joints."""
        return self.joints / self.shown

    @property
    def share(self) -> float:
        """Explained share of all views' joints."""
        return float(self.joints.sum() / self.shown.sum())


@dataclass(frozen=True, eq=False)
class Exchange:
    """Two exchanged views, what the other cameras explain before, and the fraction of joints after."""

    views: tuple[int, int]
    as_named: Explained
    explained_exchanged: float

    @property
    def explained(self) -> float:
        """The fraction before."""
        return self.as_named.share


def best_exchange(keypoints: Keypoints2D, rig: CameraRig) -> Exchange:
    """The best exchange of two of the views with the largest misfit."""
    as_named = Explained.of(keypoints, rig)
    suspects = np.argsort(as_named.shares)[:SUSPECTS]
    tried = {
        (a, b): Explained.of(keypoints, exchanged(rig, a, b)).share
        for a, b in itertools.combinations(sorted(suspects.tolist()), 2)
    }
    views = max(tried, key=lambda pair: tried[pair])
    return Exchange(views, as_named, tried[views])


def exchanged(rig: CameraRig, one: int, other: int) -> CameraRig:
    """The rig with the calibrations of two cameras exchanged; names and order are kept."""
    names = list(rig.names)
    names[one], names[other] = names[other], names[one]
    return replace(rig.select(tuple(names)), names=rig.names)


def _explained(keypoints: Keypoints2D, rig: CameraRig) -> Float[np.ndarray, " V"]:
    seen = all_people(keypoints, rig).body
    far = FAR * seen.person_px
    parts = [(1.0 - (m / f) ** 2).clamp_min(0.0).nansum() for m, f in zip(misfits_px(seen, rig), far, strict=True)]
    return np.array([float(part) for part in parts])


def _shown(keypoints: Keypoints2D) -> Float[np.ndarray, " V"]:
    body = [i for i, joint in enumerate(keypoints.skeleton.joints) if joint in BODY_JOINTS] or slice(None)
    return np.maximum((keypoints.likelihood[..., body] >= MIN_CONFIDENCE).sum(axis=(1, 2, 3)), 1).astype(float)

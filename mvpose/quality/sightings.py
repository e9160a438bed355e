"""Track 2D joints of people through runs of frames, and predict each camera's joints from the other cameras.

This is the basis of the checks before a job; it contains no thresholds for what is good enough.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from mvpose.errors import NoPersonError
from mvpose.geometry.camera import CameraRig
from mvpose.geometry.epipolar import epipolar_distances, fundamental_of
from mvpose.geometry.triangulation import triangulate
from mvpose.reconstruction.association import Association, associate, shown_by
from mvpose.reconstruction.observations import Observations, at_places, observe
from mvpose.reconstruction.tracks import link, strongest
from mvpose.records import Keypoints2D
from mvpose.skeleton import BODY_JOINTS, Skeleton

MIN_CONFIDENCE = 0.3
# Errors of 2D joints, in shares of the person's size. Wide enough that a camera rotated by 4 degrees, or 20 frames late
# with a walking person, still agrees with the others at a distance of 5 m, so that it can be reported.
EXPECTED_ERROR, GATE = 0.15, 0.16
# A camera may show a body that the others agree on up to half of the person's size off (6 times this). By likelihood
# alone, which ends at 0.27, a camera 20 frames late agrees in 58 % of the frames.
SHOWN_ERROR = 0.085
MAX_PEOPLE, MAX_GAP_S = 4, 0.5


@dataclass(frozen=True, eq=False)
class Sightings:
    """The same joints of the same people in all views; K is the maximum number of people tracked in any run."""

    ideal: Float[Tensor, "T K J V 2"]
    """Undistorted pixels; undefined where the weight is 0."""
    weight: Float[Tensor, "T K J V"]
    run: Int[Tensor, " T"]
    """Run of each frame, from 0. Frames of one run are consecutive; person k differs from run to run."""
    person_px: Float[Tensor, " V"]
    """Median of the larger side of these people's boxes: their size in each view's images. NaN if there are none."""
    skeleton: Skeleton

    @property
    def body(self) -> Sightings:
        """Only the joints on which image data sets agree (all, if the skeleton has none of them)."""
        names = tuple(joint for joint in self.skeleton.joints if joint in BODY_JOINTS) or self.skeleton.joints
        kept = self.skeleton.indices(*names)
        return replace(
            self,
            ideal=self.ideal[:, :, kept],
            weight=self.weight[:, :, kept],
            skeleton=Skeleton(f"{self.skeleton.name} body", names, ()),
        )

    def at(self, frames: Int[Tensor, " n"]) -> Sightings:
        """Only these frames, in ascending order. Their runs are numbered from 0."""
        run = torch.unique(self.run[frames], return_inverse=True)[1]
        return replace(self, ideal=self.ideal[frames], weight=self.weight[frames], run=run)

    def shifted(self, frames: Int[Tensor, "V R"]) -> Sightings:
        """The same, with frame t of view v in run r replaced by its frame t + `frames[v, r]`.

        The weight is 0 if the run has no such frame.
        """
        ideal, weight = self.ideal.clone(), self.weight.clone()
        for view, by_run in enumerate(frames):
            source, there = shifted_frames(self.run, by_run[self.run])
            ideal[..., view, :] = self.ideal[source][..., view, :]
            weight[..., view] = self.weight[source][..., view] * there[:, None, None]
        return replace(self, ideal=ideal, weight=weight)


@dataclass(frozen=True, eq=False)
class Expectation:
    """Positions of one view's joints expected from the other views: points, or (with one other view) lines."""

    point: Float[Tensor, "T K J 2"]
    normal: Float[Tensor, "T K J 2"] | None
    """Unit normal of the epipolar line through `point`; None if the point itself is known."""
    known: Bool[Tensor, "T K J"]

    def offsets(self, pixels: Float[Tensor, "T K J 2"]) -> Float[Tensor, "T K J 2"]:
        """Offsets of the pixels from the expected point, or from the nearest point on its line."""
        apart = pixels - self.point
        return apart if self.normal is None else (apart * self.normal).sum(dim=-1, keepdim=True) * self.normal


def sighted(keypoints: Keypoints2D, run: Int[np.ndarray, " T"], rig: CameraRig, fps: float) -> Sightings:
    """The people that the views agree on most, run by run. Raises NoPersonError if no two views agree on anyone."""
    seen = observe(keypoints, rig, MIN_CONFIDENCE)
    places = torch.full((len(run), 0, len(rig)), -1)
    if seen.weight.any():
        people = _people(seen, rig)
        parts = [_followed(people, torch.from_numpy(np.flatnonzero(run == r)), fps) for r in np.unique(run)]
        maximum = max(part.shape[1] for part in parts)
        places = torch.cat([torch.nn.functional.pad(p, (0, 0, 0, maximum - p.shape[1]), value=-1) for p in parts])
    if not places.shape[1]:
        raise NoPersonError(
            f"no two of the cameras {', '.join(rig.names)} agree on a person in {len(run)} frames: the calibration "
            "does not match the footage, or there are no people"
        )
    ideal, weight = seen.of(places)
    return Sightings(ideal, weight, torch.from_numpy(run), _person_px(keypoints, places), keypoints.skeleton)


def all_people(keypoints: Keypoints2D, rig: CameraRig) -> Sightings:
    """All people that two or more views agree on, frame by frame, without tracking: each frame is a run."""
    seen = observe(keypoints, rig, MIN_CONFIDENCE)
    places = _people(seen, rig).places
    ideal, weight = seen.of(places)
    return Sightings(ideal, weight, torch.arange(len(ideal)), _person_px(keypoints, places), keypoints.skeleton)


def expectation(sightings: Sightings, rig: CameraRig, view: int) -> Expectation:
    """Expected positions from all other views together; a rig of two gives a line for each joint."""
    if len(rig) == 2:
        other = 1 - view
        fundamental = fundamental_of(rig.projections[other], rig.projections[view])
        pixels = sightings.ideal[..., other, :]
        line = torch.cat([pixels, torch.ones_like(pixels[..., :1])], dim=-1) @ fundamental.T
        length = line[..., :2].norm(dim=-1, keepdim=True).clamp_min(1e-30)
        normal = line[..., :2] / length
        return Expectation(-line[..., 2:] / length * normal, normal, sightings.weight[..., other] > 0)
    others = sightings.weight.clone()
    others[..., view] = 0.0
    found = triangulate(sightings.ideal, rig.projections, others, check=False)
    projection = rig.projections[view]
    image = found.points @ projection[:, :3].T + projection[:, 3]
    known = found.valid & (image[..., 2] > 0)
    return Expectation(image[..., :2] / torch.where(known, image[..., 2], 1.0)[..., None], None, known)


def misfits_px(sightings: Sightings, rig: CameraRig) -> Iterator[Float[Tensor, "T K J"]]:
    """For each view, the distance of its joints from their expected positions; NaN if there is none."""
    for view in range(len(rig)):
        yield misfit_px(sightings, rig, view)


def misfit_px(sightings: Sightings, rig: CameraRig, view: int) -> Float[Tensor, "T K J"]:
    """Distance of one view's joints from their expected positions; NaN if there is none."""
    expected = expectation(sightings, rig, view)
    known = expected.known & (sightings.weight[..., view] > 0)
    return torch.where(known, expected.offsets(sightings.ideal[..., view, :]).norm(dim=-1), torch.nan)


def median_misfits_px(sightings: Sightings, rig: CameraRig) -> Float[Tensor, " V"]:
    """Median of `misfits_px` per view; NaN for a view without any."""
    return torch.stack([misfit.nanmedian() for misfit in misfits_px(sightings, rig)])


def pair_residuals_px(sightings: Sightings, rig: CameraRig) -> dict[tuple[int, int], float]:
    """Median epipolar distance of every pair of views; NaN for two that never show the same joint."""
    residuals = {}
    for one, other in itertools.combinations(range(len(rig)), 2):
        fundamental = fundamental_of(rig.projections[one], rig.projections[other])
        both = (sightings.weight[..., one] > 0) & (sightings.weight[..., other] > 0)
        pixels = (sightings.ideal[..., one, :][both], sightings.ideal[..., other, :][both])
        residuals[one, other] = float(epipolar_distances(*pixels, fundamental).nanmedian())
    return residuals


def shifted_frames(
    run: Int[Tensor, " T"], frames: int | Int[Tensor, " T"]
) -> tuple[Int[Tensor, " T"], Bool[Tensor, " T"]]:
    """The index of frame t + `frames` for each t, and whether it is in the same run."""
    wanted = torch.arange(len(run)) + frames
    source = wanted.clamp(0, len(run) - 1)
    return source, (source == wanted) & (run[source] == run)


def _people(seen: Observations, rig: CameraRig) -> Association:
    found = associate(seen, rig, EXPECTED_ERROR, GATE)
    places, support = shown_by(seen, found.bodies, found.known, SHOWN_ERROR)
    return Association(places, support, found.bodies, found.known)


def _followed(people: Association, frames: Int[Tensor, " n"], fps: float) -> Int[Tensor, "n K V"]:
    part = Association(people.places[frames], people.support[frames], people.bodies[frames], people.known[frames])
    return strongest(link(part, fps, MAX_GAP_S), part, MAX_PEOPLE)


def _person_px(keypoints: Keypoints2D, places: Int[Tensor, "T K V"]) -> Float[Tensor, " V"]:
    box = torch.from_numpy(keypoints.box).double().movedim(0, 1)
    side = at_places((box[..., 2:] - box[..., :2]).amax(dim=-1), places)
    sides = torch.where(places >= 0, side, torch.nan).flatten(0, 1)
    return sides.nanmedian(dim=0).values if len(sides) else torch.full(sides.shape[1:], torch.nan).double()

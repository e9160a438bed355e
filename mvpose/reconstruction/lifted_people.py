"""People of one camera in 3D: tracked in the image, lifted by a network, and put where they are seen.

No second view confirms anything: a joint's depth is the network's guess, and a person's distance follows from the size
that the network gives them (a lifter: `models.single_view.lifting.root_positions`; a network of images:
`models.single_view.monocular`). Such poses have one view per joint and an unknown sigma.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from mvpose.errors import ConfigError
from mvpose.geometry.camera import CameraRig
from mvpose.geometry.lens import radii
from mvpose.models.network_settings import LiftingMethod
from mvpose.models.saved import SavedModel
from mvpose.models.single_view.lifting import Lifter, root_positions
from mvpose.reconstruction.association import Association
from mvpose.reconstruction.clip import ReconstructionConfig, without_people
from mvpose.reconstruction.observations import Observations, at_places, observe
from mvpose.reconstruction.tracks import link, strongest
from mvpose.records import Keypoints2D, Poses3D
from mvpose.skeleton import SKELETONS, Skeleton

STATURE_M = 1.7
"""Assumed height of the median person, for the distance at which people are tracked in the image."""

Lift = Callable[
    [Float[Tensor, "T J 2"], Bool[Tensor, "T J"], Skeleton, float],
    tuple[Float[Tensor, "T J 3"], Bool[Tensor, "T J"]],
]
"""From a person's 2D joints on the plane z = 1, those seen, their joint set and frames per second to joints in the axes
of the camera, metres, of the same joint set, and those that have one."""


@dataclass(frozen=True, eq=False)
class TrackLifter:
    """A lifter and what it was trained on: a `Lift` for tracks of any length."""

    network: Lifter
    skeleton: Skeleton
    fps: float

    @staticmethod
    def of(model: SavedModel) -> TrackLifter:
        """The lifter of a model; ConfigError if it is another network."""
        network, config = model.network, model.config
        if not (isinstance(config, LiftingMethod) and isinstance(network, Lifter)):
            raise ConfigError(f"a network of the method {config.method} is no lifter.")
        return TrackLifter(network, SKELETONS[config.skeleton], config.lifter.fps)

    @torch.inference_mode()
    def __call__(
        self, points: Float[Tensor, "T J 2"], seen: Bool[Tensor, "T J"], skeleton: Skeleton, fps: float
    ) -> tuple[Float[Tensor, "T J 3"], Bool[Tensor, "T J"]]:
        """The joints seen in frames with enough of them; each frame is near the middle of a window."""
        source, there = (torch.from_numpy(values) for values in skeleton.remap(self.skeleton))
        own, own_seen = points[:, source].float(), seen[:, source] & there
        poses = self._relative(own, own_seen, max(1, round(fps / self.fps)))
        roots, placed = root_positions(poses, own, own_seen)
        back, known = (torch.from_numpy(values) for values in self.skeleton.remap(skeleton))
        joints = (poses + roots[:, None])[:, back]
        return joints, seen & known & placed[:, None] & (joints[..., 2] > 0)

    def _relative(self, points: Float[Tensor, "T J 2"], seen: Bool[Tensor, "T J"], step: int) -> Float[Tensor, "T J 3"]:
        """Poses relative to the root. Windows take every `step`-th frame, and overlap by two thirds."""
        window, count = self.network.window, len(points)
        hop = max(1, window // 3)
        frame = torch.arange(count)
        place, phase = frame // step, frame % step
        windows = -(-count // step) // hop + 2
        middles = (torch.arange(windows) * hop)[:, None] + torch.arange(window) - window // 2
        index = middles[None] * step + torch.arange(step)[:, None, None]
        inside = (index >= 0) & (index < count)
        index = index.clamp(0, count - 1)
        found = self.network(points[index].flatten(0, 1), (seen[index] & inside[..., None]).flatten(0, 1))
        nearest = (place + hop // 2) // hop
        return found.unflatten(0, (step, windows))[phase, nearest, place - nearest * hop + window // 2]


def lift_people(
    keypoints: Keypoints2D, rig: CameraRig, lift: Lift | None, config: ReconstructionConfig, fps: float, max_people: int
) -> Poses3D:
    """The people of a clip of one camera, as `reconstruct` has those of several. The rig is in pixels of the video.

    Without `lift`, their poses are those that a network of images has given them (`Keypoints2D.lifted`). Joints that
    the camera does not see are missing.
    """
    seen = observe(keypoints, rig, config.min_confidence)
    if not seen.weight.any():
        return without_people(keypoints, rig)
    people = _in_image(seen, rig)
    places = strongest(link(people, fps, config.max_gap_s), people, max_people)
    pixels, weights = (values[:, :, :, 0] for values in seen.of(places))
    if lift is None:
        assert keypoints.lifted is not None
        in_camera = at_places(torch.from_numpy(keypoints.lifted).movedim(0, 1), places)[:, :, 0]
        valid = (weights > 0) & in_camera.isfinite().all(dim=-1)
    else:
        points, shown = (pixels - rig.centre[0]) / rig.focal[0], weights > 0
        found = [lift(points[:, p], shown[:, p], keypoints.skeleton, fps) for p in range(places.shape[1])]
        in_camera, valid = (torch.stack(values, dim=1) for values in zip(*found, strict=True))
    world = rig.camera_from_world.inverse().apply(in_camera.double().reshape(1, -1, 3)).reshape(in_camera.shape)
    drawn = at_places(torch.from_numpy(keypoints.xy).double().movedim(0, 1), places)[:, :, 0]
    error = radii(rig.project(world)[0][0] - drawn.nan_to_num())
    unknown = torch.full_like(error, torch.nan)
    return Poses3D(
        xyz=torch.where(valid[..., None], world, torch.nan).float().numpy(),
        confidence=(weights * valid).float().numpy(),
        error_px=torch.where(valid, error, unknown).float().numpy(),
        sigma_mm=unknown.float().numpy(),
        num_views=valid.long().numpy(),
        views_used=valid[..., None].numpy(),
        track_id=np.arange(places.shape[1]),
        skeleton=keypoints.skeleton,
    )


def _in_image(seen: Observations, rig: CameraRig) -> Association:
    """The detections as bodies in a plane, at the distance at which the median person is `STATURE_M` tall.

    Tracks are thus joined in the image, in metres. A lifted depth jumps by more than a person moves.
    """
    known = seen.weight[:, 0] > 0
    shown = known.any(dim=-1)
    distance = STATURE_M / seen.extent[:, 0][shown].median().clamp_min(1e-3)
    plane = (seen.ideal[:, 0] - rig.centre[0]) / rig.focal[0]
    bodies = torch.cat([plane * distance, torch.zeros_like(plane[..., :1])], dim=-1)
    slot = torch.arange(known.shape[1]).expand(known.shape[:2])
    return Association(
        places=torch.where(shown, slot, -1)[..., None],
        support=seen.weight[:, 0].mean(dim=-1, keepdim=True),
        bodies=bodies,
        known=known,
    )

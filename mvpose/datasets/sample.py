"""One person in one frame, as all cameras of a dataset saw them."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from jaxtyping import Bool, Float, Int

from mvpose.geometry.camera import CameraRig
from mvpose.skeleton import Skeleton

TRAIN, VALIDATION, TEST, NEITHER = "train", "validation", "test", ""
"""Splits as the datasets' authors or their first users made them; NEITHER is for what they left out."""


@dataclass(frozen=True)
class Picture:
    """One camera's picture: where it is, or the person cut out of it."""

    uri: str = ""
    """A picture, or a video of which `frame` is meant; empty where there is but the crop."""
    frame: int = -1
    """Frame of the video; -1 where `uri` is a picture."""
    crop: bytes | None = None
    """JPEG or PNG. Where there is one, the sample's camera and box are told in its pixels."""


@dataclass(frozen=True, eq=False, kw_only=True)
class Sample:
    """One person in one frame of a capture, seen by the V cameras that recorded it."""

    capture_id: str
    frame: int
    """Frame of the capture, from 0, in the numbering of its full-rate recording."""
    position: int
    """How many annotated frames of the capture come before, by which protocols count ("every 12th")."""
    person: int
    """The same for the same person throughout a capture."""
    subject: str
    action: str
    split: str
    damaged: bool
    """Ground truth known to be wrong."""
    rig: CameraRig
    """Cameras of the pictures as they are stored, distortion included."""
    pictures: tuple[Picture, ...]
    xyz: Float[np.ndarray, "J 3"]
    """World, metres, Z up; NaN where the dataset has no joint."""
    visible: Bool[np.ndarray, "V J"]
    """Known to be in the picture. Datasets without annotated occlusion count a hidden joint as visible."""
    box: Float[np.ndarray, "V 4"]
    """left, top, right, bottom in pixels; NaN where the person is not in the picture."""
    skeleton: Skeleton
    fps: float = math.nan
    """Frames per second of the full-rate recording; NaN where nobody said."""

    @property
    def valid(self) -> Bool[np.ndarray, "J"]:
        """Which joints the dataset has."""
        return np.all(np.isfinite(self.xyz), axis=-1)

    def select(self, cameras: Sequence[str]) -> Sample:
        """The same sample by these cameras, in this order; KeyError for one that did not record it."""
        position = {name: i for i, name in enumerate(self.rig.names)}
        chosen = [position[name] for name in cameras]
        return replace(
            self,
            rig=self.rig.select(tuple(cameras)),
            pictures=tuple(self.pictures[i] for i in chosen),
            visible=self.visible[chosen],
            box=self.box[chosen],
        )


@dataclass(frozen=True, eq=False, kw_only=True)
class Scene:
    """What all samples of a capture have in common."""

    capture_id: str
    subject: str
    action: str
    split: str
    rig: CameraRig
    skeleton: Skeleton
    damaged: bool = False
    fps: float = math.nan
    """See `Sample.fps`."""


@dataclass(frozen=True, eq=False, kw_only=True)
class Labels:
    """The N annotations of a scene."""

    frame: Int[np.ndarray, " N"]
    position: Int[np.ndarray, " N"]
    xyz: Float[np.ndarray, "N J 3"]
    """World, metres, Z up; NaN where there is no joint."""
    person: Int[np.ndarray, " N"] | None = None
    """None where the scene has one person."""
    box: Float[np.ndarray, "N V 4"] | None = None
    """None where the dataset has no boxes: then those about the joints in the picture are taken."""
    recorded: Bool[np.ndarray, "N V"] | None = None
    """Which cameras recorded the frame; None where all did."""


def scene_samples(scene: Scene, labels: Labels, pictures: Callable[[int], Mapping[str, Picture]]) -> Iterator[Sample]:
    """Samples of a scene in the order of its labels. `pictures(frame)` names the picture of each camera.

    Annotations without any joint, and those that fewer than one camera recorded, are left out.
    """
    visible, box = observed(scene.rig, labels.xyz)
    if labels.box is not None:
        box = labels.box
    names = np.array(scene.rig.names)
    rigs: dict[tuple[str, ...], CameraRig] = {tuple(names): scene.rig}
    for i in range(len(labels.frame)):
        views = slice(None) if labels.recorded is None else labels.recorded[i]
        present = tuple(names[views].tolist())
        if not present or not np.isfinite(labels.xyz[i]).any():
            continue
        if present not in rigs:
            rigs[present] = scene.rig.select(present)
        by_camera = pictures(int(labels.frame[i]))
        yield Sample(
            capture_id=scene.capture_id,
            frame=int(labels.frame[i]),
            position=int(labels.position[i]),
            person=0 if labels.person is None else int(labels.person[i]),
            subject=scene.subject,
            action=scene.action,
            split=scene.split,
            damaged=scene.damaged,
            rig=rigs[present],
            pictures=tuple(by_camera[name] for name in present),
            xyz=labels.xyz[i],
            visible=visible[i, views],
            box=box[i, views],
            skeleton=scene.skeleton,
            fps=scene.fps,
        )


def observed(
    rig: CameraRig, xyz: Float[np.ndarray, "N J 3"]
) -> tuple[Bool[np.ndarray, "N V J"], Float[np.ndarray, "N V 4"]]:
    """Which joints fall into each picture, in front of its camera, and the box about those (NaN without any)."""
    valid = np.all(np.isfinite(xyz), axis=-1)
    pixels, seen = rig.project(torch.from_numpy(np.where(valid[..., None], xyz, 0.0)))
    visible = (seen & rig.inside(pixels)).numpy().swapaxes(0, 1) & valid[:, None]
    points = pixels.numpy().swapaxes(0, 1)
    corners = [
        np.where(visible[..., None], points, np.inf).min(axis=2),
        np.where(visible[..., None], points, -np.inf).max(axis=2),
    ]
    box = np.concatenate(corners, axis=-1)
    return visible, np.where(np.isfinite(box), box, np.nan)

"""Rigs and figures of merit as tables: the files in `rigs/` and `quality/`."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping

import numpy as np
import pyarrow as pa
import torch

from mvpose.errors import VideoError
from mvpose.geometry.camera import CameraRig
from mvpose.geometry.lens import Lens, LensModel
from mvpose.geometry.rigid import Rigid
from mvpose.records import Video
from mvpose.storage.locations import stamp

_FIGURES_KEY = b"mvpose.figures"


def rig_to_table(rig: CameraRig, figures: Mapping[str, float]) -> pa.Table:
    """One row per camera, exact in float64; figures about the rig go to the table's metadata."""
    vectors = {
        "focal": rig.focal,
        "centre": rig.centre,
        "lens_coefficients": rig.lens.coefficients,
        "rotation": rig.camera_from_world.rotation.flatten(1),
        "translation": rig.camera_from_world.translation,
        "size": rig.size,
    }
    columns = {name: _vectors(value.cpu().numpy()) for name, value in vectors.items()}
    names = {"camera": pa.array(rig.names), "lens_model": pa.array([str(m) for m in rig.lens.models])}
    metadata = {_FIGURES_KEY: json.dumps(dict(figures)).encode()}
    return pa.table({**names, **columns}).replace_schema_metadata(metadata)


def rig_from_table(table: pa.Table) -> CameraRig:
    """The inverse of `rig_to_table`."""

    def tensor(name: str) -> torch.Tensor:
        return torch.from_numpy(np.array(table.column(name).to_pylist()))

    return CameraRig(
        names=tuple(table.column("camera").to_pylist()),
        focal=tensor("focal"),
        centre=tensor("centre"),
        lens=Lens(tuple(map(LensModel, table.column("lens_model").to_pylist())), tensor("lens_coefficients")),
        camera_from_world=Rigid(tensor("rotation").unflatten(1, (3, 3)), tensor("translation")),
        size=tensor("size"),
    )


def figures_to_table(capture_id: str, figures: Mapping[str, float]) -> pa.Table:
    """One row per figure: capture, figure, value."""
    names = list(figures)
    return pa.table(
        {"capture": [capture_id] * len(names), "figure": names, "value": [float(figures[n]) for n in names]}
    )


def figures_from_table(table: pa.Table) -> dict[str, float]:
    """The inverse of `figures_to_table`."""
    return dict(zip(table.column("figure").to_pylist(), table.column("value").to_pylist(), strict=True))


def _vectors(values: np.ndarray) -> pa.Array:
    return pa.FixedSizeListArray.from_arrays(pa.array(values.ravel()), values.shape[1])


def footage_identity(video: Video) -> str:
    """Content identity of a video: size and modification time (local) or ETag (S3); for a folder, a digest over images.

    Taken from the listing that found the video, otherwise looked up now. No content is read, and the result does not
    depend on the location. Raises VideoError if the file does not exist.
    """
    try:
        return video.stamp or stamp(video.uri)
    except OSError as error:
        raise VideoError(f"{video.uri} no longer exists: {error.strerror or error}") from error


def rig_digest(rig: CameraRig) -> str:
    """SHA-256 (hex) of a rig's cameras, exact to the last bit of float64."""
    pose = rig.camera_from_world
    tensors = (rig.focal, rig.centre, rig.lens.coefficients, pose.rotation, pose.translation, rig.size)
    digest = hashlib.sha256(repr((rig.names, [str(m) for m in rig.lens.models])).encode())
    for tensor in tensors:
        digest.update(tensor.detach().cpu().to(torch.float64).contiguous().numpy().tobytes())
    return digest.hexdigest()

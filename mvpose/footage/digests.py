"""What tells two versions of footage or of a rig apart, for fingerprints."""

from __future__ import annotations

import hashlib

import torch

from mvpose.errors import VideoError
from mvpose.geometry.camera import CameraRig
from mvpose.records import Video
from mvpose.storage.locations import stamp


def footage_identity(video: Video) -> str:
    """Size with modification time (local) or ETag (S3) of the file, or a digest of those of all pictures of a folder.

    As the listing told it by which the video was found, else asked for now. Nothing is read, and it does not depend on
    where the file lies. VideoError if it is not there.
    """
    try:
        return video.stamp or stamp(video.uri)
    except OSError as error:
        raise VideoError(f"{video.uri} cannot be found any more: {error.strerror or error}") from error


def rig_digest(rig: CameraRig) -> str:
    """SHA-256 (hex) of a rig's cameras, exact to the last bit of float64."""
    pose = rig.camera_from_world
    tensors = (rig.focal, rig.centre, rig.lens.coefficients, pose.rotation, pose.translation, rig.size)
    digest = hashlib.sha256(repr((rig.names, [str(m) for m in rig.lens.models])).encode())
    for tensor in tensors:
        digest.update(tensor.detach().cpu().to(torch.float64).contiguous().numpy().tobytes())
    return digest.hexdigest()

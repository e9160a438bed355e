"""2D joints found by other tools, to Keypoints2D: OpenPose JSON, DeepLabCut h5, SLEAP analysis h5.

With them the detector is skipped. Each camera has a source of its own: a folder of JSON files, or an h5 file.
"""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence

import h5py

from mvpose.archive.keypoint_import.deeplabcut import read_deeplabcut
from mvpose.archive.keypoint_import.guarded import guarded
from mvpose.archive.keypoint_import.openpose import read_openpose
from mvpose.archive.keypoint_import.sleap import read_sleap
from mvpose.archive.keypoint_import.view import ViewKeypoints, stacked
from mvpose.archive.locations import is_folder, read_bytes
from mvpose.errors import ConfigError
from mvpose.records import Keypoints2D
from mvpose.skeleton import Skeleton

__all__ = ["ViewKeypoints", "import_keypoints", "read_view"]


def import_keypoints(
    sources: Sequence[str],
    skeleton: Skeleton,
    *,
    names: Mapping[str, str] | None = None,
    first_number: int = 0,
    num_frames: int | None = None,
) -> Keypoints2D:
    """The 2D joints of a capture, `sources` in the order of its cameras.

    `names` renames a file's joints to the skeleton's. Joints that the skeleton does not have are left out, those that
    a file does not have are missing. `num_frames` is by default what the longest source has; shorter ones are empty at
    their end. `first_number` is the number of an OpenPose file that is frame 0. ConfigError names the source that
    cannot be read.
    """
    views = [read_view(uri, skeleton, first_number) for uri in sources]
    return stacked(views, skeleton, names or {}, num_frames)


def read_view(uri: str, skeleton: Skeleton, first_number: int = 0) -> ViewKeypoints:
    """One camera's joints; OpenPose files name no joints and are taken to be in the skeleton's order."""
    try:
        if is_folder(uri):
            return read_openpose(uri, skeleton, first_number)
        return guarded(_read_hdf5, read_bytes(uri))
    except OSError as error:
        raise ConfigError(f"keypoints {uri} cannot be read: {error}") from error
    except ConfigError as error:
        raise ConfigError(f"keypoints {uri}: {error}") from error


def _read_hdf5(data: bytes) -> ViewKeypoints:
    if data[:8] != b"\x89HDF\r\n\x1a\n":
        raise ConfigError("it is neither a folder of OpenPose JSON nor an HDF5 file.")
    with h5py.File(io.BytesIO(data), "r") as file:
        return read_sleap(file) if "node_names" in file else read_deeplabcut(file)

"""Reading of dataset files; errors name the path and the reason."""

from __future__ import annotations

import io
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
from jaxtyping import Float
from scipy.io import loadmat
from scipy.io.matlab import MatReadError

from mvpose.errors import MvposeError
from mvpose.footage.calibration.file_cameras import FILE_FROM_WORLD, METRES, FileCamera, Unit, UpAxis
from mvpose.storage import locations
from mvpose.storage.plain_data import load_plain


class DatasetError(MvposeError):
    """A dataset file is missing, damaged, or has an unexpected layout."""


@contextmanager
def errors_naming(uri: str) -> Iterator[None]:
    """Add the file to errors raised inside; errors from malformed content become a DatasetError."""
    try:
        yield
    except MvposeError as error:
        raise type(error)(f"{uri}: {error}") from error
    except OSError as error:
        raise DatasetError(f"{uri} cannot be read: {error.strerror or error}") from error
    except KeyError as error:
        raise DatasetError(f"{uri}: it has no {error.args[0]!r}.") from error
    except (ValueError, TypeError, IndexError, OverflowError, RecursionError) as error:
        raise DatasetError(f"{uri} does not have the expected layout: {error}") from error


def read_bytes(uri: str) -> bytes:
    """Return the content of a file; DatasetError if it cannot be read."""
    with errors_naming(uri):
        return locations.read_bytes(uri)


def read_text(uri: str) -> str:
    """Return the content of a UTF-8 file; DatasetError if it cannot be read."""
    with errors_naming(uri):
        return locations.read_text(uri)


def read_matlab(uri: str, names: tuple[str, ...]) -> dict[str, Any]:
    """Read variables of a MATLAB file up to version 7.2; DatasetError for another format or a missing variable."""
    content = read_bytes(uri)
    with errors_naming(uri):
        try:
            found = loadmat(io.BytesIO(content), variable_names=names)
        except (MatReadError, NotImplementedError, zlib.error) as error:
            raise DatasetError(f"it is not a MATLAB file up to version 7.2 ({error}).") from error
        return {name: found[name] for name in names}


def folders(uri: str) -> list[str]:
    """Names of the folders in a folder, sorted; DatasetError if it cannot be listed."""
    with errors_naming(uri):
        return [locations.name(entry.uri) for entry in locations.inputs(uri) if entry.is_folder]


def file_names(uri: str) -> list[str]:
    """Names of the files in a folder, sorted; DatasetError if it cannot be listed."""
    with errors_naming(uri):
        return [locations.name(entry.uri) for entry in locations.inputs(uri) if not entry.is_folder]


def array(value: Any, shape: tuple[int, ...], what: str) -> Float[np.ndarray, "..."]:
    """Convert nested or flat numbers to a shape (-1: any length); DatasetError names `what` if they do not fit."""
    try:
        numbers = np.asarray(value, dtype=np.float64)
        return numbers.reshape(shape)
    except (TypeError, ValueError) as error:
        raise DatasetError(f"{what} is not {' x '.join(map(str, shape))} numbers ({error}).") from error


# Cameras that are mounted upright and look down by 45 degrees still have 71 % of their up axis along the world's.
MIN_UPRIGHT = 0.7


def to_world(points: Float[np.ndarray, "*n 3"], unit: Unit, up: UpAxis) -> Float[np.ndarray, "*n 3"]:
    """Points in metres, Z up, from a file's unit and axes; NaN stays NaN."""
    return points @ np.array(FILE_FROM_WORLD[up], np.float64) * METRES[unit]


def up_of(cameras: tuple[FileCamera, ...]) -> UpAxis:
    """The file's up axis, inferred from cameras mounted upright; DatasetError if no axis fits."""
    mean = -np.mean([camera.rotation[1] for camera in cameras], axis=0)
    axis = int(np.abs(mean).argmax())
    if np.abs(mean[axis]) < MIN_UPRIGHT:
        raise DatasetError("its cameras do not agree on an up axis.")
    axes: tuple[UpAxis, UpAxis, UpAxis] = ("x", "y", "z") if mean[axis] > 0 else ("-x", "-y", "-z")
    return axes[axis]


def read_pickle(uri: str) -> Any:
    """Return the content of a pickle; DatasetError if it cannot be read or contains anything but data."""
    with errors_naming(uri):
        return load_plain(io.BytesIO(read_bytes(uri)))


def read_npy_dict(uri: str) -> dict[str, Any]:
    """Return the dict that `numpy.save` pickled into a .npy file; DatasetError as for `read_pickle`."""
    file = io.BytesIO(read_bytes(uri))
    with errors_naming(uri):
        major, _ = np.lib.format.read_magic(file)
        read_header = np.lib.format.read_array_header_1_0 if major == 1 else np.lib.format.read_array_header_2_0
        shape, _, dtype = read_header(file)
        if dtype.kind != "O" or shape != ():
            raise DatasetError(f"it holds an array of {dtype}, shape {shape}, not a dict.")
        content = load_plain(file)
    value = content.item() if isinstance(content, np.ndarray) and content.shape == () else None
    if not isinstance(value, dict):
        raise DatasetError(f"{uri} does not contain a dict.")
    return value

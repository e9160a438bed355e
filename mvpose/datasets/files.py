"""Files of a dataset: read, and refused with their path and the reason."""

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

from mvpose.archive import locations
from mvpose.errors import MvposeError


class DatasetError(MvposeError):
    """A file of a dataset is missing, damaged, or not laid out as its dataset has it."""


@contextmanager
def told_with(uri: str) -> Iterator[None]:
    """Errors met inside name the file; what reading a malformed file raises becomes a DatasetError."""
    try:
        yield
    except MvposeError as error:
        raise type(error)(f"{uri}: {error}") from error
    except OSError as error:
        raise DatasetError(f"{uri} cannot be read: {error.strerror or error}") from error
    except KeyError as error:
        raise DatasetError(f"{uri}: it has no {error.args[0]!r}.") from error
    except (ValueError, TypeError, IndexError, OverflowError, RecursionError) as error:
        raise DatasetError(f"{uri} is not laid out as expected: {error}") from error


def read_bytes(uri: str) -> bytes:
    """The content of a file; DatasetError where it cannot be read."""
    with told_with(uri):
        return locations.read_bytes(uri)


def read_text(uri: str) -> str:
    """The content of a UTF-8 file; DatasetError where it cannot be read."""
    with told_with(uri):
        return locations.read_text(uri)


def read_matlab(uri: str, names: tuple[str, ...]) -> dict[str, Any]:
    """Some variables of a MATLAB file up to version 7.2; DatasetError where it is none or lacks one."""
    content = read_bytes(uri)
    with told_with(uri):
        try:
            found = loadmat(io.BytesIO(content), variable_names=names)
        except (MatReadError, NotImplementedError, zlib.error) as error:
            raise DatasetError(f"it is no MATLAB file up to version 7.2 ({error}).") from error
        return {name: found[name] for name in names}


def folders(uri: str) -> list[str]:
    """Names of the folders in a folder, sorted; DatasetError where it cannot be listed."""
    with told_with(uri):
        return [locations.name(entry.uri) for entry in locations.inputs(uri) if entry.is_folder]


def file_names(uri: str) -> list[str]:
    """Names of the files in a folder, sorted; DatasetError where it cannot be listed."""
    with told_with(uri):
        return [locations.name(entry.uri) for entry in locations.inputs(uri) if not entry.is_folder]


def array(value: Any, shape: tuple[int, ...], what: str) -> Float[np.ndarray, "..."]:
    """Numbers of a shape (-1: any length), nested or flat as the file has them; DatasetError says `what` is not so."""
    try:
        numbers = np.asarray(value, dtype=np.float64)
        return numbers.reshape(shape)
    except (TypeError, ValueError) as error:
        raise DatasetError(f"{what} is not {' x '.join(map(str, shape))} numbers ({error}).") from error

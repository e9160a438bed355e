"""Pickled labels of datasets, read as data alone: see `mvpose.storage.plain_pickle`."""

from __future__ import annotations

import io
from typing import Any

import numpy as np

from mvpose.datasets.files import DatasetError, read_bytes, told_with
from mvpose.storage.plain_pickle import load_plain


def read_pickle(uri: str) -> Any:
    """What a pickle holds; DatasetError where it cannot be read or asks for anything but data."""
    with told_with(uri):
        return load_plain(io.BytesIO(read_bytes(uri)))


def read_npy_dict(uri: str) -> dict[str, Any]:
    """The dict that `numpy.save` pickled into a .npy file; DatasetError as for `read_pickle`."""
    file = io.BytesIO(read_bytes(uri))
    with told_with(uri):
        major, _ = np.lib.format.read_magic(file)
        read_header = np.lib.format.read_array_header_1_0 if major == 1 else np.lib.format.read_array_header_2_0
        shape, _, dtype = read_header(file)
        if dtype.kind != "O" or shape != ():
            raise DatasetError(f"it holds an array of {dtype}, shape {shape}, not a dict.")
        content = load_plain(file)
    value = content.item() if isinstance(content, np.ndarray) and content.shape == () else None
    if not isinstance(value, dict):
        raise DatasetError(f"{uri} holds no dict.")
    return value

"""Arrays of an HDF5 file that somebody else wrote."""

from __future__ import annotations

import h5py
import numpy as np

from mvpose.errors import ConfigError

MAX_BYTES = 2 << 30
"""Of one array. What a file says of an array's size needs no room in it."""


def dataset(group: h5py.Group, name: str) -> h5py.Dataset:
    """The dataset of that name; ConfigError if there is none, if it is kept in other files, and above MAX_BYTES."""
    found = group.get(name) if isinstance(group.get(name, getlink=True), (h5py.HardLink, h5py.SoftLink)) else None
    if not isinstance(found, h5py.Dataset):
        raise ConfigError(f"it has no dataset `{name}`.")
    if found.external or found.is_virtual:
        raise ConfigError(f"its `{name}` is kept in other files, which are never opened: write it into this one.")
    if found.size is None or found.size * found.dtype.itemsize > MAX_BYTES:
        raise ConfigError(f"its `{name}` has more than {MAX_BYTES >> 30} GiB, or no size.")
    return found


def strings(group: h5py.Group, name: str) -> list[str]:
    """A dataset of text."""
    values = np.asarray(dataset(group, name))
    return [value.decode(errors="replace") if isinstance(value, bytes) else str(value) for value in values.tolist()]

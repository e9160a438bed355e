"""Arrays of an HDF5 file that somebody else wrote."""

from __future__ import annotations

import h5py
import numpy as np

from mvpose.errors import ConfigError


def dataset(group: h5py.Group, name: str) -> h5py.Dataset:
    """The dataset of that name; ConfigError if there is none."""
    found = group.get(name)
    if not isinstance(found, h5py.Dataset):
        raise ConfigError(f"it has no dataset `{name}`.")
    return found


def strings(group: h5py.Group, name: str) -> list[str]:
    """A dataset of text."""
    values = np.asarray(dataset(group, name))
    return [value.decode(errors="replace") if isinstance(value, bytes) else str(value) for value in values.tolist()]

"""SLEAP's analysis HDF5, also as sleap-io writes it: dense arrays of tracks, nodes and frames.

SLEAP stores `tracks` as (track, xy, node, frame). sleap-io may store another order, and says which in `dims`. Frames
are counted from 0, that of the video.
"""

from __future__ import annotations

import json
from collections.abc import Sequence

import h5py
import numpy as np

from mvpose.archive.keypoint_import.hdf5 import dataset, strings
from mvpose.archive.keypoint_import.view import ViewKeypoints, view_of
from mvpose.errors import ConfigError

_POINTS = ("track", "xy", "node", "frame")
_SCORES = ("track", "node", "frame")


def read_sleap(file: h5py.File) -> ViewKeypoints:
    """Points and their scores; a point without a score (placed by hand) has confidence 1."""
    joints = strings(file, "node_names")
    xy = _ordered(file, "tracks", _POINTS, ("frame", "track", "node", "xy"))
    if xy.shape[2:] != (len(joints), 2):
        raise ConfigError(f"its `tracks` have {xy.shape[2]} nodes, and {len(joints)} are named.")
    confidence = np.ones(xy.shape[:-1])
    if "point_scores" in file:
        scores = _ordered(file, "point_scores", _SCORES, ("frame", "track", "node"))
        confidence = np.where(np.isfinite(scores), scores, 1.0)
    return view_of(joints, np.arange(len(xy)), xy, confidence)


def _ordered(file: h5py.File, name: str, default: Sequence[str], wanted: Sequence[str]) -> np.ndarray:
    """A dataset with its axes in the wanted order."""
    values = dataset(file, name)
    said = values.attrs.get("dims")
    dims = tuple(json.loads(said)) if isinstance(said, str | bytes) else tuple(default)
    if sorted(dims) != sorted(wanted) or len(dims) != len(values.shape):
        raise ConfigError(f"its `{name}` has the axes {', '.join(dims)}, and {', '.join(wanted)} are needed.")
    return np.asarray(values, dtype=np.float64).transpose([dims.index(axis) for axis in wanted])

"""Evaluation protocols of published figures, as named configurations.

Two figures on one dataset are comparable only under the same protocol: frames, cameras, handling of captures with
damaged ground truth, joints, and alignment. A protocol selects rows of a table of samples. The table must contain the
frames that it selects (converted with a stride that divides the protocol's).
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import numpy as np
import pandas as pd
import pyarrow as pa
from jaxtyping import Bool

from mvpose.config import nearest
from mvpose.datasets import human36m_facts, mpi_inf_3dhp, panoptic
from mvpose.datasets.sample import TEST, TRAIN, VALIDATION, Sample
from mvpose.datasets.sample_table import KEY_COLUMNS, read_tables, sample_files, samples_from_table, table_subject
from mvpose.errors import ConfigError

Alignment = Literal["absolute", "root_relative", "procrustes", "scaled"]


@dataclass(frozen=True, kw_only=True)
class Protocol:
    """Selection of samples and cameras, and the form of the error."""

    dataset: str
    """Name in the table; tables of other datasets are refused. Empty for any."""
    split: str
    source: str
    """Origin of the protocol."""
    cameras: tuple[str, ...] | None = None
    """Use only these cameras, in this order, and only frames that all of them recorded; None uses all."""
    views: int = 0
    """Use only frames that at least this many cameras recorded."""
    captures: tuple[str, ...] | None = None
    damaged: bool = False
    """Include captures with damaged ground truth."""
    every_frame: int = 1
    """Use frames whose number in the full-rate recording is a multiple of this."""
    every_position: int = 1
    """Use every n-th of each capture's annotated frames."""
    every_group: int = 1
    """Use every n-th of all remaining frames, in the dataset's order; the table must have the full rate."""
    required_joint: str | None = None
    """Exclude people without this joint."""
    people: tuple[int, ...] | None = None
    joints: tuple[str, ...] | None = None
    """Joints that the error is averaged over; None for all."""
    root: str = "hip"
    """Origin of relative errors."""
    alignment: Alignment = "absolute"
    """Alignment of the protocol's main figure."""


_PANOPTIC15 = panoptic.PANOPTIC19.joints[:15]
_QIU = {"dataset": "human36m", "split": TEST, "views": 4, "damaged": True, "every_group": 64}
_ISKAKOV = {"dataset": "human36m", "split": TEST, "every_frame": 5}
_VOXELPOSE = {
    "dataset": "panoptic",
    "split": VALIDATION,
    "captures": panoptic.VALIDATION_SEQUENCES,
    "required_joint": "hip",
    "joints": _PANOPTIC15,
}
_FUSION_CAMERAS = ("cam1", "cam3", "cam5", "cam7")

PROTOCOLS: dict[str, Protocol] = {
    "human36m-every64": Protocol(**_QIU, source="Qiu et al. 2019; AdaFuse: every 64th complete group of 4 views"),
    "human36m-every64-filtered": Protocol(
        **{**_QIU, "damaged": False}, source="Epipolar Transformers 2020, TransFusion 2021: S9's damaged scenes removed"
    ),
    "human36m-every64-relative": Protocol(
        **_QIU,
        alignment="root_relative",
        source="EpipolarPose 2019, integral regression: every 64th, relative to the hip",
    ),
    "human36m-every5-filtered": Protocol(
        **_ISKAKOV, source="Iskakov et al. 2019, absolute: every 5th frame, damaged scenes removed"
    ),
    "human36m-every5-relative": Protocol(
        **_ISKAKOV, damaged=True, alignment="root_relative", source="Iskakov et al. 2019, relative to the hip"
    ),
    "human36m-train": Protocol(dataset="human36m", split=TRAIN, every_frame=5, source="S1, S5, S6, S7, S8"),
    "total_capture-seen": Protocol(
        dataset="total_capture", split=TEST, cameras=_FUSION_CAMERAS, source="Qiu et al. 2019; Remelli et al. 2020"
    ),
    "total_capture-unseen-cameras": Protocol(
        dataset="total_capture",
        split=TEST,
        cameras=("cam2", "cam4", "cam6", "cam8"),
        source="Remelli et al. 2020: cameras that training has not seen",
    ),
    "total_capture-train": Protocol(
        dataset="total_capture", split=TRAIN, cameras=_FUSION_CAMERAS, source="Qiu et al. 2019, as the toolbox has it"
    ),
    **{
        f"panoptic-{name.lower()}": Protocol(
            **_VOXELPOSE,
            every_position=12,
            cameras=panoptic.camera_names(name),
            source="VoxelPose 2020: every 12th annotated frame" if name == "CMU0" else "MVGFormer 2024: other cameras",
        )
        for name in ("CMU0", "CMU1", "CMU2", "CMU3", "CMU4")
    },
    "panoptic-train": Protocol(
        **{**_VOXELPOSE, "split": TRAIN, "captures": panoptic.TRAIN_SEQUENCES},
        every_position=3,
        cameras=panoptic.camera_names("CMU0"),
        source="VoxelPose 2020: every 3rd annotated frame",
    ),
    "mpi_inf_3dhp-chest-train": Protocol(
        dataset="mpi_inf_3dhp",
        split=TRAIN,
        cameras=tuple(map(str, mpi_inf_3dhp.CAMERA_SUBSETS["chest_height"])),
        source="EpipolarPose 2019: the five cameras at chest height",
    ),
    "mpi_inf_3dhp-test": Protocol(
        dataset="mpi_inf_3dhp", split=TEST, alignment="root_relative", source="Mehta et al. 2017: valid frames, 3D-PCK"
    ),
    "shelf": Protocol(
        dataset="shelf", split=TEST, people=(0, 1, 2), source="Belagiannis 2014: frames 300 to 600, actors 1 to 3, PCP"
    ),
    "campus": Protocol(
        dataset="campus", split=TEST, people=(0, 1, 2), source="Belagiannis 2014: frames 350-470 and 650-750, PCP"
    ),
}

MISLABELLED_ACTIONS = {
    "Direction": "Directions", "Discuss": "Discussion", "Eating": "Eating", "Greet": "Greeting", "Phone": "Phoning",
    "Photo": "Posing", "Pose": "Purchases", "Purchase": "Sitting", "Sitting": "SittingDown", "SittingDown": "Smoking",
    "Smoke": "TakingPhoto", "Wait": "Waiting", "WalkDog": "Walking", "Walk": "WalkingDog", "WalkTwo": "WalkingTogether",
}  # fmt: skip
"""Actual meaning of the per-action columns printed by the code of cross-view fusion and AdaFuse: their table of names
has another order than `metadata.xml`, whose numbers the images carry."""


def protocol_named(name: str) -> Protocol:
    """Return a protocol by name; ConfigError lists similar names."""
    if name not in PROTOCOLS:
        raise ConfigError(f"no protocol is named {name!r} ({nearest(name, PROTOCOLS)}).")
    return PROTOCOLS[name]


def read_protocol(uri: str, protocol: Protocol) -> Iterator[Sample]:
    """Samples of a table that a protocol selects, with its cameras. One pass over the keys, one over the files.

    ConfigError if no sample is selected.
    """
    keys = table_keys(uri)
    chosen = _selected(keys, protocol, uri)
    for file, places in keys.groupby("file", sort=False).indices.items():
        if chosen[places].any():
            yield from _chosen_samples(str(file), chosen[places], protocol)


def protocol_keys(uri: str, protocol: Protocol | None) -> pd.DataFrame:
    """The key columns and `dataset` of the samples of a table, or of those that a protocol selects.

    ConfigError if no sample is selected.
    """
    keys = table_keys(uri)
    return keys if protocol is None else keys.loc[_selected(keys, protocol, uri)]


def table_keys(uri: str) -> pd.DataFrame:
    """`KEY_COLUMNS`, `dataset` and `file` of all rows of a table, in order; no image is read."""
    keys = [_keys(table).assign(file=file) for file in sample_files(uri) for table in read_tables(file, KEY_COLUMNS)]
    return pd.concat(keys or [_no_keys()], ignore_index=True)


def of_split(split: str) -> Protocol:
    """All samples of one split of any dataset."""
    return Protocol(dataset="", split=split, damaged=True, source=f"every sample of split {split or 'none'}")


def _selected(keys: pd.DataFrame, protocol: Protocol, uri: str) -> Bool[np.ndarray, " n"]:
    chosen = selected(keys, protocol)
    if not chosen.any():
        there = ", ".join(f"{d} {s or 'none'}" for d, s in sorted(set(zip(keys.dataset, keys.split, strict=True))))
        raise ConfigError(
            f"{uri} has no sample for this protocol: it needs {protocol.dataset or 'any dataset'}, split "
            f"{protocol.split or 'none'}, cameras {', '.join(protocol.cameras or ('all',))}; it has the splits {there}."
        )
    return chosen


def selected(keys: pd.DataFrame, protocol: Protocol) -> Bool[np.ndarray, " n"]:
    """Mask of the selected rows, from the key columns of a whole table (and its `dataset`); row order is irrelevant."""
    cameras = set(protocol.cameras or ())
    kept = (
        (keys.dataset.isin([protocol.dataset] if protocol.dataset else keys.dataset))
        & (keys.split == protocol.split)
        & (protocol.damaged | ~keys.damaged)
        & (keys.frame % protocol.every_frame == 0)
        & (keys.position % protocol.every_position == 0)
        & keys.camera.map(lambda names: cameras <= set(names) and len(names) >= protocol.views).astype(bool)
    )
    if protocol.captures is not None:
        kept &= keys.capture.isin(protocol.captures)
    if protocol.people is not None:
        kept &= keys.person.isin(protocol.people)
    if protocol.every_group > 1:
        groups = list(zip(keys.capture, keys.frame, strict=True))
        _check_rate(groups)
        order = sorted(set(itertools.compress(groups, kept)), key=lambda g: (_capture_order(g[0]), g[1]))
        wanted = set(order[:: protocol.every_group])
        kept &= np.array([group in wanted for group in groups], bool)
    return kept.to_numpy(bool)


def _check_rate(groups: list[tuple[str, int]]) -> None:
    """Check the rate: counting groups over all captures gives the published frames only if every frame is present."""
    steps = [b[1] - a[1] for a, b in itertools.pairwise(sorted(set(groups))) if a[0] == b[0]]
    if steps and min(steps) > 1:
        raise ConfigError(
            f"this protocol counts frames of the full rate, but the table has only every {min(steps)}th: convert the "
            "dataset with stride 1."
        )


def _capture_order(capture: str) -> tuple:
    """Sort key of the datasets' own lists: subjects and actions of Human3.6M by number, others by name."""
    subject, _, take = capture.partition("/")
    action, _, trial = take.rpartition("-")
    actions = {name: number for number, name in human36m_facts.ACTIONS.items()}
    if subject in human36m_facts.SUBJECTS and action in actions:
        return (human36m_facts.SUBJECTS.index(subject), actions[action], trial)
    return (len(human36m_facts.SUBJECTS), 0, capture)


def _chosen_samples(file: str, chosen: Bool[np.ndarray, " n"], protocol: Protocol) -> Iterator[Sample]:
    start = 0
    for table in read_tables(file):
        mine = chosen[start : start + table.num_rows]
        start += table.num_rows
        for sample in samples_from_table(table.filter(pa.array(mine))):
            required = protocol.required_joint
            if required is None or sample.valid[sample.skeleton.index(required)]:
                yield sample.select(protocol.cameras) if protocol.cameras else sample


def _keys(table: pa.Table) -> pd.DataFrame:
    frame = table.to_pandas()
    frame["dataset"] = table_subject(table.schema)[1]
    return frame


def _no_keys() -> pd.DataFrame:
    return pd.DataFrame({name: [] for name in (*KEY_COLUMNS, "dataset", "file")})

import warnings
from typing import Any

import h5py
import numpy as np
import pynwb
import pytest

from mvpose.exchange.export.nwb import nwb_files
from mvpose.exchange.export.recording import Recording
from tests.exchange.export.recordings import broken


@pytest.fixture(scope="module")
def written() -> Recording:
    return broken()


@pytest.fixture(scope="module")
def read_back(written, tmp_path_factory) -> Any:
    """The file as pynwb reads it, valid by its own schema."""
    [(name, data)] = list(nwb_files(written))
    path = str(tmp_path_factory.mktemp("nwb") / name)
    with open(path, "wb") as file:
        file.write(data)
    validate: Any = pynwb.validate
    assert not validate(path=path)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        reader: Any = pynwb.NWBHDF5IO
        return reader(path, "r", load_namespaces=True).read()


def test_pynwb_reads_every_value_back_and_missing_stays_missing(written, read_back):
    poses = written.poses
    behavior = read_back.processing["behavior"]
    assert np.isnan(poses.xyz).any()
    for p, track in enumerate(poses.track_id.tolist()):
        person = behavior[f"person{track}"]
        assert set(person.pose_estimation_series) == set(poses.skeleton.joints)
        for j, joint in enumerate(poses.skeleton.joints):
            series = person[joint]
            np.testing.assert_array_equal(series.data[:], poses.xyz[:, p, j])
            np.testing.assert_array_equal(series.confidence[:], poses.confidence[:, p, j])
            assert (series.rate, series.unit, series.starting_time) == (written.fps, "meters", 0.0)
            assert "Z up" in series.reference_frame
        np.testing.assert_array_equal(behavior[f"person{track}_sigma_mm"].data[:], poses.sigma_mm[:, p])
        assert behavior[f"person{track}_sigma_mm"].unit == "millimeters"
        np.testing.assert_array_equal(behavior[f"person{track}_views"].data[:], poses.num_views[:, p])
        np.testing.assert_array_equal(behavior[f"person{track}_interpolated"].data[:], written.filled[:, p])


def test_the_skeleton_comes_back_with_its_bones(written, read_back):
    skeletons = read_back.processing["behavior"]["Skeletons"]
    skeleton = skeletons[written.poses.skeleton.name]
    assert tuple(skeleton.nodes[:]) == written.poses.skeleton.joints
    assert [tuple(edge) for edge in skeleton.edges[:]] == list(written.poses.skeleton.bone_indices)


def test_the_file_does_not_pretend_to_know_its_date(read_back):
    assert read_back.session_start_time.year == 1970 and "not known" in read_back.session_description


def test_a_reader_with_plain_hdf5_finds_the_joints(tmp_path):
    [(name, data)] = list(nwb_files(broken()))
    with open(tmp_path / name, "wb") as file:
        file.write(data)
    with h5py.File(tmp_path / name) as file:
        people = [k for k in file["processing/behavior"] if k.startswith("person") and "_" not in k]  # pyright: ignore
    assert len(people) == len(broken().poses.track_id)


def test_without_the_libraries_it_says_what_to_install(monkeypatch):
    import sys

    from mvpose.errors import ConfigError

    monkeypatch.setitem(sys.modules, "ndx_pose", None)
    with pytest.raises(ConfigError, match=r"mvpose\[nwb\]"):
        list(nwb_files(broken()))

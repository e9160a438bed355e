import os
import pickle
from collections import OrderedDict
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mvpose.datasets.files import DatasetError, read_npy_dict, read_pickle

TABLE = np.dtype([("frame", np.int16), ("keypoints", np.float32, (17, 3)), ("name", "U5")])


def stored(tmp_path, data: bytes) -> str:
    uri = str(tmp_path / "file.pkl")
    with open(uri, "wb") as file:
        file.write(data)
    return uri


def same(a: Any, b: Any) -> bool:
    if isinstance(b, dict):
        return isinstance(a, dict) and list(a) == list(b) and all(same(a[k], b[k]) for k in b)
    if isinstance(b, list | tuple):
        return type(a) is type(b) and len(a) == len(b) and all(map(same, a, b))
    if isinstance(b, np.ndarray):
        if b.dtype.kind == "O":
            return a.shape == b.shape and all(map(same, a.ravel().tolist(), b.ravel().tolist()))
        return np.array_equal(a, b) and a.dtype.newbyteorder("=") == b.dtype.newbyteorder("=")
    return a == b and type(a) is type(b)


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text() | st.binary(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3) | st.tuples(inner),
    max_leaves=8,
)
ARRAYS = st.sampled_from(
    [
        np.arange(6.0).reshape(2, 3),
        np.asfortranarray(np.arange(6, dtype=">i4").reshape(2, 3)),
        np.zeros(2, TABLE),
        np.array(["left", "right"]),
        np.array([b"ab", b"c"]),
        np.array([{"a": 1}, [2]], dtype=object),
        np.array(3.5),
        np.zeros((0, 4), np.uint8),
        np.array([True, False]),
    ]
)


@given(value=VALUES, array=ARRAYS, protocol=st.integers(2, 5))
@settings(max_examples=80, deadline=None)
def test_plain_data_come_back_as_pickle_has_them(value, array, protocol, tmp_path_factory):
    content = {"value": value, "arrays": [array, array.T], "number": np.float32(1.5), "long": np.int64(-7)}
    uri = stored(tmp_path_factory.mktemp("pickle"), pickle.dumps(content, protocol=protocol))
    assert same(read_pickle(uri), content)


def test_pickles_of_python_2_come_back(tmp_path):
    data = pickle.dumps({"image": "a.jpg"}, protocol=2)
    old = (
        b"(dp0\nS'joints'\np1\ncnumpy.core.multiarray\n_reconstruct\np2\n(cnumpy\nndarray\np3\n(I0\ntp4\nS'b'\np5\ntp6\n"
        b"Rp7\n(I1\n(I2\ntp8\ncnumpy\ndtype\np9\n(S'f8'\np10\nI0\nI1\ntp11\nRp12\n(I3\nS'<'\np13\nNNNI-1\nI-1\nI0\ntp14\n"
        b"bI00\nS'\\x00\\x00\\x00\\x00\\x00\\x00\\xf0?\\x00\\x00\\x00\\x00\\x00\\x00\\x00@'\np15\ntp16\nbs."
    )
    assert read_pickle(stored(tmp_path, data)) == {"image": "a.jpg"}
    assert read_pickle(stored(tmp_path, old))["joints"].tolist() == [1.0, 2.0]


def test_a_dict_saved_by_numpy_comes_back(tmp_path):
    content = {"names": ["S1", "S9"], "table": np.ones(3, TABLE)}
    np.save(tmp_path / "labels.npy", content, allow_pickle=True)  # pyright: ignore[reportArgumentType]
    found = read_npy_dict(str(tmp_path / "labels.npy"))
    assert found["names"] == ["S1", "S9"] and found["table"]["keypoints"].shape == (3, 17, 3)


class RunsCode:
    def __reduce__(self):
        return os.system, ("touch /tmp/mvpose-was-here",)


class ForgesObjects:
    """Raw bytes for an array of objects: whoever reads it follows a pointer of the file's choosing."""

    def __reduce__(self):
        return np.frombuffer, (b"\x01" * 8, np.dtype("i8"))


@pytest.mark.parametrize(
    "data",
    [
        pickle.dumps(RunsCode()),
        pickle.dumps([RunsCode()]),
        pickle.dumps(ForgesObjects()),
        pickle.dumps(OrderedDict(a=1)),
        b"cbuiltins\neval\n(S'1+1'\ntR.",
        b"cmvpose.storage.plain_data\nload_plain\n.",
        # an array of objects whose content is bytes
        b"cnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\n(I0\ntS'b'\ntR(I1\n(I1\ntcnumpy\ndtype\n(S'O8'\nI0\nI1\ntR"
        b"(I3\nS'|'\nNNNI-1\nI-1\nI63\ntbI00\nS'AAAAAAAA'\ntb.",
        # the same, hidden in a field of a structured type
        b"cnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\n(I0\ntS'b'\ntR(I1\n(I1\ntcnumpy\ndtype\n(S'V8'\nI0\nI1\ntR"
        b"(I3\nS'|'\nN(S'a'\nt(dS'a'\n(cnumpy\ndtype\n(S'O8'\nI0\nI1\ntRI0\ntsI8\nI1\nI0\ntbI00\nS'AAAAAAAA'\ntb.",
        # altering what reads it
        b"cnumpy.core.multiarray\nscalar\n(N(dS'_function'\nI1\nstb.",
    ],
)  # fmt: skip
def test_whatever_is_not_data_is_refused_and_nothing_runs(data, tmp_path):
    with pytest.raises(DatasetError, match=r"file\.pkl"):
        read_pickle(stored(tmp_path, data))
    assert not os.path.exists("/tmp/mvpose-was-here")


@pytest.mark.parametrize("size", [0, 3, 40])
def test_a_pickle_that_was_cut_off_is_reported_with_its_path(size, tmp_path):
    data = pickle.dumps({"a": np.arange(100)})
    with pytest.raises(DatasetError, match=r"file\.pkl"):
        read_pickle(stored(tmp_path, data[:size]))


def test_a_file_that_is_not_there_is_reported_with_its_path(tmp_path):
    with pytest.raises(DatasetError, match=r"nowhere\.pkl cannot be read"):
        read_pickle(str(tmp_path / "nowhere.pkl"))


def test_an_array_in_place_of_a_dict_is_refused(tmp_path):
    np.save(tmp_path / "labels.npy", np.arange(3))
    with pytest.raises(DatasetError, match="not a dict"):
        read_npy_dict(str(tmp_path / "labels.npy"))

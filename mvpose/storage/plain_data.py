"""Read pickles and HDF5 files of other people as data: plain containers, numbers, text and arrays, and nothing else.

The pickle machine can build dicts, lists, tuples, sets, numbers and strings by itself; it must look up everything else
by name. Here it gets stand-ins for the few names that numpy writes, and all others are rejected, so no code chosen by a
file runs. Even numpy's own dtype is withheld: a crafted one could pass off raw bytes as objects.

Of HDF5 files, only datasets stored in the file itself are read, up to `MAX_BYTES`.
"""

from __future__ import annotations

import io
import pickle
from typing import TYPE_CHECKING, Any

import numpy as np

from mvpose.errors import ConfigError

if TYPE_CHECKING:
    import h5py

_ARRAY_MODULES = ("numpy.core.multiarray", "numpy._core.multiarray")
_NUMERIC_MODULES = ("numpy.core.numeric", "numpy._core.numeric")


def load_plain(file: io.BytesIO) -> Any:
    """The content of a pickle. Raises ValueError if it is damaged or contains more than plain data."""
    try:
        # Strings of Python 2, including array contents, are bytes; Latin-1 preserves them.
        return _PlainUnpickler(file, encoding="latin1").load()
    except (pickle.UnpicklingError, EOFError, AttributeError, MemoryError, TypeError) as error:
        raise ValueError(f"it is not a complete pickle: {error}") from error
    except (KeyError, IndexError, OverflowError) as error:
        raise ValueError(f"it is not a meaningful pickle: {error!r}") from error


class _PlainUnpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        found = _STAND_INS.get((module, name))
        if found is None:
            raise ValueError(
                f"it is a pickle that contains {module}.{name}. Only plain containers and numpy arrays are read, since "
                "loading anything else can run code."
            )
        return found


class _Dtype:
    """A dtype while its pickle is read: `value` is built from its description with numpy's own checks."""

    def __init__(self, spec: str, *_flags: Any) -> None:
        if not isinstance(spec, str) or not (spec.isalnum() and spec[0] in "biufcSUVO"):
            raise ValueError(f"it has an array of an unknown type {spec!r}.")
        self.value = np.dtype(spec)

    def __setstate__(self, state: tuple) -> None:
        order, subtype, names, fields = state[1:5]
        if names is not None:
            formats = [_value(fields[name][0]) for name in names]
            offsets = [int(fields[name][1]) for name in names]
            layout: Any = {"names": list(names), "formats": formats, "offsets": offsets, "itemsize": int(state[5])}
            self.value = np.dtype(layout)
        elif subtype is not None:
            self.value = np.dtype((_value(subtype[0]), tuple(subtype[1])))
        elif self.value.kind in "SUV":
            self.value = np.dtype(f"{self.value.kind}{int(state[5]) // (4 if self.value.kind == 'U' else 1)}")
        if order in ("<", ">") and names is None and subtype is None:
            self.value = self.value.newbyteorder(order)


class _Array(np.ndarray):
    """An array while its pickle is read; only its state provides content."""

    def __new__(cls) -> _Array:
        return np.ndarray.__new__(cls, (0,), np.int8)

    def __setstate__(self, state: tuple) -> None:
        _, shape, dtype, fortran, content = state
        if isinstance(content, str):
            content = content.encode("latin1")
        kind = _value(dtype)
        wanted = list if kind.kind == "O" else bytes
        if not isinstance(content, wanted) or (kind.hasobject and kind.kind != "O"):
            raise ValueError(f"it has an array of {kind} that is not in numpy's format.")
        checked: Any = (1, tuple(shape), kind, bool(fortran), content)
        super().__setstate__(checked)


class _Call:
    """A function of this module that a pickle may call but, without attributes, cannot alter."""

    __slots__ = ("_function",)

    def __init__(self, function: Any) -> None:
        object.__setattr__(self, "_function", function)

    def __setattr__(self, name: str, value: Any) -> None:
        raise ValueError("it is a pickle that tries to alter its reader.")

    def __call__(self, *arguments: Any) -> Any:
        return self._function(*arguments)


def _value(dtype: Any) -> np.dtype:
    if not isinstance(dtype, _Dtype):
        raise ValueError("it has an array whose type is not one of numpy's.")
    return dtype.value


def _from_buffer(content: Any, dtype: Any, shape: tuple, order: str) -> np.ndarray:
    kind = _value(dtype)
    if kind.hasobject:
        raise ValueError("it has an array of objects stored as bytes.")
    return np.frombuffer(bytes(content), kind).reshape(tuple(shape), order="F" if order == "F" else "C")


def _scalar(dtype: Any, content: Any) -> Any:
    kind = _value(dtype)
    if kind.hasobject:
        raise ValueError("it has a numpy scalar that is an object.")
    return np.frombuffer(content.encode("latin1") if isinstance(content, str) else content, kind, 1)[0]


def _encoded(text: str, encoding: str = "latin1") -> bytes:
    """Bytes as Python 3 stores them in pickles that Python 2 can read."""
    if encoding not in ("latin1", "latin-1"):
        raise ValueError(f"it has bytes encoded in {encoding!r}.")
    return text.encode("latin1")


_STAND_INS: dict[tuple[str, str], Any] = {
    ("numpy", "ndarray"): _Array,
    ("numpy", "dtype"): _Call(_Dtype),
    ("_codecs", "encode"): _Call(_encoded),
    ("__builtin__", "bytes"): _Call(lambda: b""),
    **{(module, "_reconstruct"): _Call(lambda _cls, _shape, _kind: _Array()) for module in _ARRAY_MODULES},
    **{(module, "scalar"): _Call(_scalar) for module in _ARRAY_MODULES},
    **{(module, "_frombuffer"): _Call(_from_buffer) for module in _NUMERIC_MODULES},
}


MAX_BYTES = 2 << 30
"""Maximum size of one array. The size stated in a file does not prove that the data exist."""


def dataset(group: h5py.Group, name: str) -> h5py.Dataset:
    """A dataset by name. Raises ConfigError if it is missing, stored in other files, or larger than MAX_BYTES."""
    import h5py

    found = group.get(name) if isinstance(group.get(name, getlink=True), (h5py.HardLink, h5py.SoftLink)) else None
    if not isinstance(found, h5py.Dataset):
        raise ConfigError(f"it has no dataset `{name}`.")
    if found.external or found.is_virtual:
        raise ConfigError(f"its `{name}` is stored in other files, which are never opened: store it in this file.")
    if found.size is None or found.size * found.dtype.itemsize > MAX_BYTES:
        raise ConfigError(f"its `{name}` has more than {MAX_BYTES >> 30} GiB, or no defined size.")
    return found


def strings(group: h5py.Group, name: str) -> list[str]:
    """A text dataset as a list of strings."""
    values = np.asarray(dataset(group, name))
    return [value.decode(errors="replace") if isinstance(value, bytes) else str(value) for value in values.tolist()]

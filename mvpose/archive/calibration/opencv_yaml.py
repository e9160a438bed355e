"""OpenCV FileStorage YAML as EasyMocap writes it: `intri.yml` and `extri.yml`, or all keys in one file.

    names: [ "01", "02" ]               the order of the cameras; the order of the K_ keys where it is missing
    K_01, dist_01                       matrix 3x3 and distortion in OpenCV's order
    R_01 (rotation vector) or Rot_01    camera from world
    T_01                                translation
    W_01, H_01                          picture size; often missing, and then the video's is taken

The unit is not stated (EasyMocap means metres): it is told from the size of the rig.

`cv2.FileStorage` is not used: OpenCV 5.0 loops for ever, out of Python's reach, on some damaged files (found in the
first minute of fuzzing, with a bracket lost within a matrix). The part of YAML that it writes is small and read here.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from itertools import pairwise

from mvpose.archive.calibration.file_cameras import (
    FileCamera,
    FileCameras,
    check_names,
    coefficients,
    numbers,
    picture_size,
    rotation_from,
)
from mvpose.errors import CalibrationError

PAIR = ("intri", "extri")
"""EasyMocap's two files of one calibration."""
MAX_KEY = 300
"""Characters before the colon: a prefix, the name of a camera, quotes, spaces."""

_QUOTES = " \t\n\"'"
_MATRIX = re.compile(
    r"""!!opencv-matrix\s+rows:\s*(\d{1,9})\s+cols:\s*(\d{1,9})\s+dt:\s*["']?[dfi]["']?\s+data:\s*\[([^\[\]]*)\]\s*"""
)


def read_opencv_yaml(texts: list[str]) -> FileCameras:
    """The cameras of one YAML file, or of a pair of which each has a part."""
    content = {key: text for file in texts for key, text in _entries(file)}
    names = _value(content, "names") if "names" in content else [key[2:] for key in content if key.startswith("K_")]
    if not isinstance(names, list):
        raise CalibrationError("`names` is not a list.")
    check_names(names)
    posed = [n for n in names if f"T_{n}" in content and (f"Rot_{n}" in content or f"R_{n}" in content)]
    notes = [f"camera {n} has no pose and is left out" for n in names if n not in posed]
    if names and not posed:
        raise CalibrationError(
            "no camera has a pose (R_ or Rot_, and T_): EasyMocap keeps them in extri.yml beside it."
        )
    return FileCameras(cameras=tuple(_camera(n, content) for n in posed), unit=None, notes=tuple(notes))


def _entries(text: str) -> Iterator[tuple[str, str]]:
    """Key and unread value of all that stands at the top level: a key at the start of a line, and what is indented."""
    lines = [line for line in text.splitlines() if not re.match(r"\s*(#|$)|%|---|\.\.\.", line)]
    starts = [i for i, line in enumerate(lines) if line[0] not in " \t-"]
    if lines and 0 not in starts:
        raise CalibrationError(f"it is not OpenCV YAML: {lines[0][:60]!r} belongs to no key.")
    for start, stop in pairwise([*starts, len(lines)]):
        # By hand: an expression that allows spaces around a key takes 13 s for 150,000 of them.
        written, colon, value = "\n".join(lines[start:stop]).partition(":")
        if len(written) > MAX_KEY:
            raise CalibrationError(
                f"it is not OpenCV YAML: {lines[start][:60]!r} begins a key of more than {MAX_KEY} characters."
            )
        written = written.rstrip(" ")
        quote = written[:1] if written[:1] in ("'", '"') else ""
        key = written.removeprefix(quote).removesuffix(quote).strip()
        if not (colon and key and written == f"{quote}{key}{quote}" and (not value or value[0].isspace())):
            raise CalibrationError(f"it is not OpenCV YAML: {lines[start][:60]!r} is not `key: value`.")
        yield key, value.strip()


def _value(content: dict[str, str], key: str) -> str | list[str]:
    """A matrix's numbers as a flat list of strings, a list of strings, or a string."""
    text = content[key]
    if text.startswith("!!"):
        matrix = _MATRIX.fullmatch(text)
        if matrix is None:
            raise CalibrationError(f"{key} is not a readable !!opencv-matrix of one channel.")
        data = _items(matrix[3])
        if len(data) != int(matrix[1]) * int(matrix[2]):
            raise CalibrationError(f"{key} has {len(data)} numbers for {matrix[1]} rows and {matrix[2]} columns.")
        return data
    if text.startswith("["):
        return _items(text.strip("[]"))
    if text.startswith("- "):
        return [item.strip(_QUOTES) for item in re.split(r"(?:^|\n)[ \t]*- ", text)[1:]]
    return text.strip(_QUOTES)


def _items(text: str) -> list[str]:
    return [item.strip(_QUOTES) for item in text.split(",")] if text.strip() else []


def _camera(name: str, content: dict[str, str]) -> FileCamera:
    sizes = [key for key in (f"W_{name}", f"H_{name}") if key in content]
    for key in (f"K_{name}", f"dist_{name}"):
        if key not in content:
            raise CalibrationError(f"camera {name} has no {key}.")
    rotation = f"Rot_{name}" if f"Rot_{name}" in content else f"R_{name}"
    return FileCamera(
        name=name,
        size=picture_size([_value(content, key) for key in sizes], " and ".join(sizes)) if sizes else (0, 0),
        matrix=numbers(_value(content, f"K_{name}"), (3, 3), f"K_{name}"),
        distortion=coefficients(_value(content, f"dist_{name}"), f"dist_{name}"),
        rotation=rotation_from(_value(content, rotation), rotation),
        translation=numbers(_value(content, f"T_{name}"), (3,), f"T_{name}"),
    )

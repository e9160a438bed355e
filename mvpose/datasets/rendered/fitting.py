"""Clothes, shoes and hair on a body: MakeHuman's .mhclo files say how each of their vertices hangs on the base mesh."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int


@dataclass(frozen=True, eq=False)
class Binding:
    """For each vertex of a garment three vertices of the base mesh, their shares, and an offset."""

    corners: Int[np.ndarray, "n 3"]
    shares: Float[np.ndarray, "n 3"]
    """Sum to 1."""
    offset: Float[np.ndarray, "n 3"]
    """Along MakeHuman's axes (X left, Y up, Z forward), for a body whose `spans` are the reference lengths."""
    spans: tuple[tuple[int, int, float], ...]
    """For X, Y, Z: two base vertices and how far apart they are, along that axis in decimetres, on the body that the
    garment was made on. Offsets in decimetres grow as this distance does."""
    hidden: Int[np.ndarray, " m"]
    """Vertices of the base mesh that the garment covers: they are not drawn, or skin would poke through it."""

    def fitted(self, body: Float[np.ndarray, "N 3"]) -> Float[np.ndarray, "n 3"]:
        """Garment vertices on a body in rest pose, both in metres, Z up, facing -Y."""
        scale = [
            abs(float(body[a, axis] - body[b, axis])) / reference
            for (a, b, reference), axis in zip(self.spans, (0, 2, 1), strict=True)
        ]
        offset = self.offset * scale
        upright = np.stack([offset[:, 0], -offset[:, 2], offset[:, 1]], axis=1)
        return np.einsum("nk,nkc->nc", self.shares, body[self.corners]) + upright


def read_binding(content: bytes) -> Binding:
    """The binding in a .mhclo file. Lines of one number tie a vertex to one base vertex."""
    spans: dict[str, tuple[int, int, float]] = {}
    corners: list[list[int]] = []
    numbers: list[list[float]] = []
    hidden: list[int] = []
    section = ""
    for line in content.decode("utf-8-sig").splitlines():
        words = line.split()
        if not words or words[0].startswith("#"):
            continue
        if words[0] in ("x_scale", "y_scale", "z_scale"):
            spans[words[0][0]] = (int(words[1]), int(words[2]), float(words[3]))
        elif words[0] in ("verts", "delete_verts"):
            section = words[0]
        elif section == "verts" and len(words) == 1:
            corners.append([int(words[0])] * 3)
            numbers.append([1.0, 0.0, 0.0, 0.0, 0.0, 0.0])
        elif section == "verts" and len(words) == 9:
            corners.append([int(word) for word in words[:3]])
            numbers.append([float(word) for word in words[3:]])
        elif section == "delete_verts":
            hidden += _ranges(words)
    shares_and_offset = np.array(numbers)
    return Binding(
        corners=np.array(corners, np.int32),
        shares=shares_and_offset[:, :3] / shares_and_offset[:, :3].sum(axis=1, keepdims=True),
        offset=shares_and_offset[:, 3:],
        spans=(spans["x"], spans["y"], spans["z"]),
        hidden=np.array(hidden, np.int32),
    )


def _ranges(words: list[str]) -> list[int]:
    """`3 5 - 7` as 3, 5, 6, 7; a line may not break a range in two."""
    found: list[int] = []
    i = 0
    while i < len(words):
        if i + 2 < len(words) and words[i + 1] == "-":
            found += range(int(words[i]), int(words[i + 2]) + 1)
            i += 3
        else:
            found.append(int(words[i]))
            i += 1
    return found

"""Meshes: parsing of Wavefront OBJ, normals, and the renderer's input for a person."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from jaxtyping import Float, Int
from scipy.sparse import csr_array


@dataclass(frozen=True, eq=False)
class MeshPart:
    """Data of one draw call that does not depend on the pose."""

    name: str
    """body, eyes, lashes, teeth, hair, clothes, shoes, hat."""
    faces: Int[np.ndarray, "F 3"]
    """int32, counter-clockwise seen from outside."""
    uv: Float[np.ndarray, "n 2"]
    """float32, v upwards, (0, 0) the image's lower left corner; vertices are split at seams."""
    texture: str
    """Asset key of a diffuse image, which may have alpha; empty for plain `colour`."""
    colour: tuple[float, float, float]
    """Linear; multiplies the texture (or is the colour without one); above 1 for hair lighter than its image."""
    two_sided: bool


@dataclass(frozen=True, eq=False)
class PosedPerson:
    """A posed person for the renderer, with ground truth. World, metres, Z up, float32."""

    parts: tuple[MeshPart, ...]
    vertices: tuple[Float[np.ndarray, "_n 3"], ...]
    normals: tuple[Float[np.ndarray, "_n 3"], ...]
    """Unit length, one per vertex, continuous over texture seams."""
    joints: Float[np.ndarray, "J 3"]
    """In the order of `mvpose.skeleton.RENDERED`."""


@dataclass(frozen=True, eq=False)
class Mesh:
    """A mesh of an OBJ file: positions and texture coordinates have separate indices, faces are triangles."""

    positions: Float[np.ndarray, "n 3"]
    """In the file's unit and axes: for MakeHuman decimetres, Y up, +X the person's left, facing +Z."""
    uv: Float[np.ndarray, "m 2"]
    faces: Int[np.ndarray, "F 3"]
    faces_uv: Int[np.ndarray, "F 3"]
    groups: Int[np.ndarray, " F"]
    """For each face, the index of its `g` name in `group_names`."""
    group_names: tuple[str, ...]


def read_obj(text: str) -> Mesh:
    """Parse a Wavefront OBJ file with `v`, `vt`, `g` and `f a/b c/d e/f [g/h]` lines.

    Quads become two triangles along the diagonal of their first corner. ValueError for other faces.
    """
    positions: list[list[float]] = []
    uv: list[list[float]] = []
    corners: list[list[list[int]]] = []
    names: list[str] = []
    group_of_face: list[int] = []
    for line in text.splitlines():
        kind, _, rest = line.partition(" ")
        if kind == "v":
            positions.append([float(word) for word in rest.split()[:3]])
        elif kind == "vt":
            uv.append([float(word) for word in rest.split()[:2]])
        elif kind == "g":
            names.append(rest.strip())
        elif kind == "f":
            polygon = [[int(index) - 1 for index in word.split("/")[:2]] for word in rest.split()]
            for second, third in pairwise(polygon[1:]):
                corners.append([polygon[0], second, third])
                group_of_face.append(len(names) - 1)
    faces = np.array(corners, np.int32)
    distinct, place = np.unique(np.array(names or [""]), return_inverse=True)
    return Mesh(
        positions=np.array(positions),
        uv=np.array(uv),
        faces=faces[..., 0],
        faces_uv=faces[..., 1],
        groups=place[np.array(group_of_face)].astype(np.int32),
        group_names=tuple(distinct.tolist()),
    )


def split_at_seams(
    faces: Int[np.ndarray, "F 3"], faces_uv: Int[np.ndarray, "F 3"]
) -> tuple[Int[np.ndarray, "F 3"], Int[np.ndarray, " n"], Int[np.ndarray, " n"]]:
    """Faces over vertices that have one position and one texture coordinate each.

    Returns the faces, and for each of their vertices the index of its position and of its texture coordinate.
    """
    pairs = np.stack([faces.ravel(), faces_uv.ravel()], axis=1)
    distinct, place = np.unique(pairs, axis=0, return_inverse=True)
    return place.reshape(-1, 3).astype(np.int32), distinct[:, 0], distinct[:, 1]


def face_to_vertex(faces: Int[np.ndarray, "F 3"], num_vertices: int) -> csr_array:
    """The (n, F) matrix that sums face values over the vertices of the faces."""
    rows = faces.T.ravel()
    columns = np.tile(np.arange(len(faces)), 3)
    return csr_array((np.ones(len(rows), np.float32), (rows, columns)), shape=(num_vertices, len(faces)))


def vertex_normals(
    positions: Float[np.ndarray, "n 3"], faces: Int[np.ndarray, "F 3"], sums: csr_array
) -> Float[np.ndarray, "n 3"]:
    """Unit normals: face normals at a vertex weighted by area; `sums` comes from `face_to_vertex`."""
    a, b, c = (np.take(positions, faces[:, corner], axis=0) for corner in range(3))
    normals = sums @ np.cross(b - a, c - a)
    return normals / np.maximum(np.linalg.norm(normals, axis=1, keepdims=True), 1e-12)

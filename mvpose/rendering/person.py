"""A clothed person that can take any pose: drawn at random, bound to the rig once, posed by one sparse product."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import lru_cache

import numpy as np
from jaxtyping import Bool, Float, Int
from scipy.sparse import csr_array, vstack

from mvpose.rendering.anatomy import joints_of
from mvpose.rendering.armature import Rig, RigTopology, normalised, read_topology, rig_of, skinning, stacked
from mvpose.rendering.assets import Assets
from mvpose.rendering.fitting import Binding, read_binding
from mvpose.rendering.mesh import Mesh, MeshPart, PosedPerson, face_to_vertex, split_at_seams, vertex_normals
from mvpose.rendering.motion import Motion
from mvpose.rendering.shape import BASE, BODY_VERTICES, body_of
from mvpose.rendering.wardrobe import Garment, Look, draw_look

_EYEBALLS = {"helper-l-eye": 14598, "helper-r-eye": 14670}
"""Groups of the base mesh, and the front pole of each ball."""
_HANDS_BEYOND_M = 0.35
"""At rest arms are held away from the body: below the hips, vertices nearer the middle than this are legs."""
_IRIS_COSINE = 0.9
"""Cosine of half the angle of the iris on the eyeball: 12 mm of a ball of 24 mm, cut at a ring of faces."""
_SCLERA = (0.75, 0.72, 0.7)
_FLOOR_FRAMES = 60
_FLOOR_QUANTILE = 0.1
"""Quantile of the lowest points of a motion's frames that is placed on the floor: capture noise and landings after a
jump may be below it, and most frames with ground contact touch it."""


@dataclass(frozen=True, eq=False)
class Person:
    """A person with body, clothes and rig."""

    look: Look
    parts: tuple[MeshPart, ...]
    rig: Rig
    _points: csr_array
    """Skinning of all parts' vertices, stacked."""
    _normals: csr_array
    _joints: csr_array
    _lowest: csr_array
    """Skinning of points that may touch the floor."""
    _ends: tuple[int, ...]
    """End of each part's rows."""

    def pose(
        self, motion: Motion, frame: int, *, position: tuple[float, float] = (0.0, 0.0), heading: float = 0.0
    ) -> PosedPerson:
        """Pose the person at a frame of a motion, rotated by `heading` (radians, about Z at the origin), then moved.

        The height is that of the motion: `grounded` returns one in which the soles meet the floor.
        """
        transforms = self._transforms(motion, frame, position, heading)
        points, normals = self._points @ transforms, self._normals @ transforms
        normals /= np.maximum(np.linalg.norm(normals, axis=1, keepdims=True), 1e-12)
        return PosedPerson(
            parts=self.parts,
            vertices=tuple(np.split(points, self._ends[:-1])),
            normals=tuple(np.split(normals, self._ends[:-1])),
            joints=self._joints @ transforms,
        )

    def joints(
        self, motion: Motion, frame: int, *, position: tuple[float, float] = (0.0, 0.0), heading: float = 0.0
    ) -> Float[np.ndarray, "J 3"]:
        """The joints of `pose`, without the mesh."""
        return self._joints @ self._transforms(motion, frame, position, heading)

    def grounded(self, motion: Motion) -> Motion:
        """The motion shifted vertically so that this person, shoes included, stands on z = 0."""
        frames = np.unique(np.linspace(0, len(motion) - 1, _FLOOR_FRAMES).astype(int))
        bare = replace(motion, lift_m=0.0)
        lowest = [(self._lowest @ self._transforms(bare, int(i), (0.0, 0.0), 0.0))[:, 2].min() for i in frames]
        return replace(motion, lift_m=-float(np.quantile(lowest, _FLOOR_QUANTILE)))

    def _transforms(
        self, motion: Motion, frame: int, position: tuple[float, float], heading: float
    ) -> Float[np.ndarray, "_b4 3"]:
        cosine, sine = np.cos(heading), np.sin(heading)
        turn = np.array([[cosine, -sine, 0.0], [sine, cosine, 0.0], [0.0, 0.0, 1.0]])
        hips = turn @ motion.hips[frame] * self.rig.leg_m + [*position, motion.lift_m]
        return stacked(self.rig.transforms(turn @ motion.turns[frame], hips))


def draw_person(rng: np.random.Generator, assets: Assets) -> Person:
    """Draw a random person; equal states of the generator give equal persons."""
    return dressed(draw_look(rng, assets), assets)


def dressed(look: Look, assets: Assets) -> Person:
    """Build the person of a look: body shaped, garments fitted, everything bound to the rig."""
    topology = _topology(assets)
    base = assets.mesh(BASE)
    body = body_of(look.shape, assets)
    worn = [(garment, assets.parsed(garment.binding, read_binding)) for garment in look.garments]
    hidden = np.zeros(len(body), bool)
    for garment, binding in worn:
        hidden[binding.hidden] = True
        if garment.is_skirt:
            hidden |= _under_skirt(binding.fitted(body), body)
    pieces = list(_body_pieces(look, base, body, hidden, topology))
    for garment, binding in worn:
        covered = _covered(garment, binding, worn, body)
        pieces.append(_garment_piece(garment, binding, body, covered, topology, assets))
    points = [skinning(piece.rest, piece.weights, 1.0) for piece in pieces]
    rest = np.concatenate([piece.rest for piece in pieces])
    everything = csr_array(vstack(points))
    low = np.flatnonzero((rest[:, 2] < 0.12) | (np.arange(len(rest)) % 20 == 0))
    return Person(
        look=look,
        parts=tuple(piece.part for piece in pieces),
        rig=rig_of(body, topology),
        _points=everything,
        _normals=csr_array(vstack([skinning(piece.normals, piece.weights, 0.0) for piece in pieces])),
        _joints=joints_of(body, topology),
        _lowest=csr_array(everything[low]),
        _ends=tuple(np.cumsum([len(piece.rest) for piece in pieces]).tolist()),
    )


@dataclass(frozen=True, eq=False)
class _Piece:
    part: MeshPart
    rest: Float[np.ndarray, "n 3"]
    normals: Float[np.ndarray, "n 3"]
    weights: csr_array


def _body_pieces(
    look: Look, base: Mesh, body: Float[np.ndarray, "n 3"], hidden: Bool[np.ndarray, " n"], topology: RigTopology
) -> Iterator[_Piece]:
    """Skin that no garment covers, eyeballs and irises."""
    skin = base.groups == base.group_names.index("body")
    shown = skin & ~hidden[base.faces].all(axis=1)
    # Only a skirt allows a view into the cut edge of the skin.
    inside_seen = any(garment.is_skirt for garment in look.garments)
    part = MeshPart("body", base.faces[:0], base.uv[:0], look.skin, (1.0, 1.0, 1.0), two_sided=inside_seen)
    # Normals come from the whole skin, even if some of it is hidden.
    normals = _smooth(body[:BODY_VERTICES], base.faces[skin])
    yield _piece(part, base, shown, body, np.pad(normals, ((0, len(body) - BODY_VERTICES), (0, 0))), topology.weights)
    eyes, irises = np.zeros(len(base.faces), bool), np.zeros(len(base.faces), bool)
    for group, pole in _EYEBALLS.items():
        ball = base.groups == base.group_names.index(group)
        centre = base.positions[np.unique(base.faces[ball])].mean(axis=0)
        middles = base.positions[base.faces].mean(axis=1) - centre
        gaze = base.positions[pole] - centre
        cosine = middles @ gaze / np.linalg.norm(gaze) / np.linalg.norm(middles, axis=1)
        irises |= ball & (cosine > _IRIS_COSINE)
        eyes |= ball & (cosine <= _IRIS_COSINE)
    normals = _smooth(body, base.faces[eyes | irises])
    for name, faces, colour in (("eyes", eyes, _SCLERA), ("irises", irises, look.iris)):
        part = MeshPart(name, base.faces[:0], base.uv[:0], "", colour, two_sided=False)
        yield _piece(part, base, faces, body, normals, topology.weights)


def _under_skirt(skirt: Float[np.ndarray, "m 3"], body: Float[np.ndarray, "n 3"]) -> Bool[np.ndarray, " n"]:
    """Thigh skin under a skirt, which the garment's file keeps but which pokes through the cloth in a stride.

    From 12 cm above the hem, so that legs are still cut under the cloth in most strides, up to the hips.
    """
    height = body[:, 2] / np.ptp(body[:BODY_VERTICES, 2])
    return (body[:, 2] > skirt[:, 2].min() + 0.12) & (height < 0.53) & (np.abs(body[:, 0]) < _HANDS_BEYOND_M)


def _covered(
    garment: Garment, binding: Binding, worn: list[tuple[Garment, Binding]], body: Float[np.ndarray, "n 3"]
) -> Bool[np.ndarray, " m"]:
    """Mask of a garment's vertices that another one covers: socks in trousers, hair in the crown of a hat."""
    covered = np.zeros(len(binding.corners), bool)
    for other, over in worn:
        if (garment.name, other.name) == ("shoes", "clothes"):
            covered |= np.all(np.isin(binding.corners, over.hidden), axis=1)
        if (garment.name, other.name) == ("hair", "hat"):
            covered |= binding.fitted(body)[:, 2] > np.median(over.fitted(body)[:, 2])
    return covered


def _garment_piece(
    garment: Garment,
    binding: Binding,
    body: Float[np.ndarray, "n 3"],
    covered: Bool[np.ndarray, " m"],
    topology: RigTopology,
    assets: Assets,
) -> _Piece:
    """A garment on a body; each of its vertices is skinned like its three base vertices, weighted.

    Vertices `covered` by another garment are omitted, because they would poke through it.
    """
    mesh = assets.mesh(garment.mesh)
    rest = binding.fitted(body)
    rows = np.repeat(np.arange(len(rest)), 3)
    carriers = csr_array((binding.shares.ravel(), (rows, binding.corners.ravel())), shape=(len(rest), len(body)))
    weights = normalised(csr_array(carriers @ topology.weights))
    part = MeshPart(garment.name, mesh.faces[:0], mesh.uv[:0], garment.texture, garment.colour, two_sided=True)
    return _piece(part, mesh, ~np.any(covered[mesh.faces], axis=1), rest, _smooth(rest, mesh.faces), weights)


def _piece(
    part: MeshPart,
    mesh: Mesh,
    shown: Bool[np.ndarray, " F"],
    rest: Float[np.ndarray, "n 3"],
    normals: Float[np.ndarray, "n 3"],
    weights: csr_array,
) -> _Piece:
    """The visible faces of a mesh, vertices split at texture seams."""
    faces, position, uv = split_at_seams(mesh.faces[shown], mesh.faces_uv[shown])
    return _Piece(
        part=replace(part, faces=faces, uv=mesh.uv[uv].astype(np.float32)),
        rest=rest[position],
        normals=normals[position],
        weights=csr_array(weights[position]),
    )


def _smooth(rest: Float[np.ndarray, "n 3"], faces: Int[np.ndarray, "F 3"]) -> Float[np.ndarray, "n 3"]:
    return vertex_normals(rest, faces, face_to_vertex(faces, len(rest)))


@lru_cache(maxsize=2)
def _topology(assets: Assets) -> RigTopology:
    return read_topology(assets)

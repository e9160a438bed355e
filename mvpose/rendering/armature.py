"""MakeHuman's default rig on one body: moving bones, their rotation by segments, and skinning as a sparse product."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float, Int
from scipy.sparse import csr_array
from scipy.spatial.transform import Rotation

from mvpose.rendering.assets import Assets
from mvpose.rendering.body_segments import DOWN, FORWARD, LEFT, S, turn_between


def partial_turn(rotation: Float[np.ndarray, "3 3"], share: float) -> Float[np.ndarray, "3 3"]:
    """A share of a rotation about its own axis, the shorter way."""
    return Rotation.from_rotvec(Rotation.from_matrix(rotation).as_rotvec() * share).as_matrix()


def swing_between(a: Float[np.ndarray, "3"], b: Float[np.ndarray, "3"]) -> Float[np.ndarray, "3 3"]:
    """The shortest rotation from unit vector a to unit vector b; for opposite ones, about some perpendicular axis."""
    axis, cosine = np.cross(a, b), float(a @ b)
    sine = float(np.linalg.norm(axis))
    if sine < 1e-9:
        axis, sine = np.cross(a, np.eye(3)[np.argmin(np.abs(a))]), max(sine, 1e-12)
    return Rotation.from_rotvec(axis / np.linalg.norm(axis) * np.arctan2(sine, cosine)).as_matrix()


def swing_and_twist(
    rotation: Float[np.ndarray, "3 3"], along: Float[np.ndarray, "3"]
) -> tuple[Float[np.ndarray, "3 3"], Float[np.ndarray, "3 3"]]:
    """A rotation as swing @ twist: the twist is about unit vector `along`, the swing moves it the shortest way."""
    swing = swing_between(along, rotation @ along)
    return swing, swing.T @ rotation


_RIG, _WEIGHTS = "makehuman/rigs/default.mhskel", "makehuman/rigs/default_weights.mhw"
_CENTRE_BONES = {
    "root": "pelvis", "spine05": "lower_back", "spine04": "lower_back", "spine03": "upper_back", "spine02": "chest",
    "spine01": "chest", "neck01": "lower_neck", "neck02": "upper_neck", "neck03": "upper_neck", "head": "head",
}  # fmt: skip
_SIDE_BONES = {
    "clavicle": "clavicle", "shoulder01": "clavicle", "upperarm01": "upper_arm", "upperarm02": "upper_arm",
    "lowerarm01": "forearm", "lowerarm02": "forearm", "wrist": "hand", "upperleg01": "thigh", "upperleg02": "thigh",
    "lowerleg01": "shin", "lowerleg02": "shin", "foot": "foot",
    **{f"toe{k}-1": "toes" for k in range(1, 6)},
}  # fmt: skip
SEGMENT_OF = _CENTRE_BONES | {
    f"{bone}.{side[0].upper()}": f"{side}_{segment}"
    for bone, segment in _SIDE_BONES.items()
    for side in ("left", "right")
}
"""The moving bones, with the segment that rotates each; the others of the rig's 163 are fixed to these."""
_SHRUG = {"clavicle": 0.1, "shoulder01": 0.3}
"""Share of an arm's swing away from the rest pose that the shoulder girdle takes: about a third of 180 degrees when an
arm is lifted overhead (scapulohumeral rhythm). Mocap clavicles hardly move; without it the shoulder collapses."""


@dataclass(frozen=True, eq=False)
class RigTopology:
    """Data common to all bodies."""

    bones: tuple[str, ...]
    """The moving bones, parents first."""
    parents: tuple[int, ...]
    """Index of the nearest moving ancestor; -1 for the root."""
    ends: dict[str, tuple[Int[np.ndarray, " _k"], Int[np.ndarray, " _l"]]]
    """For every bone of the file, the base-mesh vertices whose mean is its head, and its tail."""
    weights: csr_array
    """(base vertices, moving bones), rows sum to 1."""


def read_topology(assets: Assets) -> RigTopology:
    """The rig of the card, its 163 bones reduced to the moving ones."""
    rig = assets.parsed(_RIG, _json)
    files_bones, joints = rig["bones"], rig["joints"]

    def moving(bone: str | None) -> str | None:
        while bone is not None and bone not in SEGMENT_OF:
            bone = files_bones[bone]["parent"]
        return bone

    order: list[str] = []
    waiting = sorted(SEGMENT_OF)
    while waiting:
        ready = [b for b in waiting if (up := moving(files_bones[b]["parent"])) is None or up in order]
        order += ready
        waiting = [b for b in waiting if b not in order]
    ups = [moving(files_bones[bone]["parent"]) for bone in order]
    rows: list[int] = []
    columns: list[int] = []
    shares: list[float] = []
    for bone, pairs in assets.parsed(_WEIGHTS, _json)["weights"].items():
        carrier = moving(bone)
        assert carrier is not None
        rows += [vertex for vertex, _ in pairs]
        columns += [order.index(carrier)] * len(pairs)
        shares += [share for _, share in pairs]
    weights = csr_array((shares, (rows, columns)), shape=(max(rows) + 1, len(order)))
    return RigTopology(
        bones=tuple(order),
        parents=tuple(-1 if up is None else order.index(up) for up in ups),
        ends={b: (np.array(joints[v["head"]]), np.array(joints[v["tail"]])) for b, v in files_bones.items()},
        weights=normalised(weights),
    )


def normalised(weights: csr_array) -> csr_array:
    """Rows that sum to 1, nothing below zero."""
    weights = weights.maximum(0).tocsr()
    return csr_array(weights.multiply(1.0 / weights.sum(axis=1)[:, None]).tocsr())


@dataclass(frozen=True, eq=False)
class Rig:
    """The rig on one body at rest. Metres, Z up, facing -Y."""

    topology: RigTopology
    heads: Float[np.ndarray, "B 3"]
    """Centre of rotation of each moving bone."""
    rest_turns: Float[np.ndarray, "B 3 3"]
    """Rotation of each bone's segment at rest, from the reference pose."""
    hips: Float[np.ndarray, "3"]
    """Middle of the hip joints."""
    leg_m: float
    """Hip to knee to ankle."""
    arms: dict[str, Float[np.ndarray, "3"]]
    """Directions of the upper arms, forearms and thighs at rest, by bone."""

    def transforms(
        self, turns: Float[np.ndarray, "S 3 3"], hips_world: Float[np.ndarray, "3"]
    ) -> Float[np.ndarray, "B 3 4"]:
        """World-from-rest transform of every moving bone, given segment rotations and the middle of the hips."""
        rotation = self._rotations(turns)
        offset = np.empty_like(self.heads)
        for bone, parent in enumerate(self.topology.parents):
            if parent < 0:
                offset[bone] = hips_world - rotation[bone] @ self.hips
            else:
                head = rotation[parent] @ self.heads[bone] + offset[parent]
                offset[bone] = head - rotation[bone] @ self.heads[bone]
        return np.concatenate([rotation, offset[..., None]], axis=-1)

    def _rotations(self, turns: Float[np.ndarray, "S 3 3"]) -> Float[np.ndarray, "B 3 3"]:
        """World-from-rest rotation of every bone; twist and shrugs are distributed over the bones of a limb."""
        place = {bone: i for i, bone in enumerate(self.topology.bones)}
        segments = [S[SEGMENT_OF[bone]] for bone in self.topology.bones]
        rotation = turns[segments] @ self.rest_turns.swapaxes(1, 2)
        for side in "LR":
            upper = rotation[place[f"upperarm02.{side}"]]
            girdle = rotation[place[f"clavicle.{side}"]].copy()
            swing = swing_between(self.arms[f"upperarm01.{side}"], girdle.T @ upper @ self.arms[f"upperarm01.{side}"])
            for bone, share in _SHRUG.items():
                rotation[place[f"{bone}.{side}"]] = girdle @ partial_turn(swing, share)
            for bone, above, below, share in (
                ("upperarm01", "shoulder01", "upperarm02", 0.5),
                ("upperleg01", "root", "upperleg02", 0.5),
            ):
                parent = rotation[place[above if above == "root" else f"{above}.{side}"]]
                swing, twist = swing_and_twist(
                    parent.T @ rotation[place[f"{below}.{side}"]], self.arms[f"{bone}.{side}"]
                )
                rotation[place[f"{bone}.{side}"]] = parent @ swing @ partial_turn(twist, share)
            forearm = rotation[place[f"lowerarm01.{side}"]].copy()
            along = self.arms[f"lowerarm01.{side}"]
            _, twist = swing_and_twist(forearm.T @ rotation[place[f"wrist.{side}"]], along)
            rotation[place[f"lowerarm01.{side}"]] = forearm @ partial_turn(twist, 0.3)
            rotation[place[f"lowerarm02.{side}"]] = forearm @ partial_turn(twist, 0.75)
        return rotation


def rig_of(body: Float[np.ndarray, "n 3"], topology: RigTopology) -> Rig:
    """The rig on a body in rest pose (base-mesh vertices, helpers included)."""
    at = {bone: body[head].mean(axis=0) for bone, (head, _) in topology.ends.items()}
    rest = {bone: np.eye(3) for bone in topology.bones}
    arms: dict[str, Float[np.ndarray, "3"]] = {}
    for side in "LR":
        upper = at[f"lowerarm01.{side}"] - at[f"upperarm01.{side}"]
        fore = at[f"wrist.{side}"] - at[f"lowerarm01.{side}"]
        hinge = np.cross(upper, fore)
        hand = at[f"finger3-1.{side}"] - at[f"wrist.{side}"]
        thumbwards = at[f"finger2-1.{side}"] - at[f"finger5-1.{side}"]
        thigh = at[f"lowerleg01.{side}"] - at[f"upperleg01.{side}"]
        shin = at[f"foot.{side}"] - at[f"lowerleg01.{side}"]
        toes = (at[f"toe2-1.{side}"] + at[f"toe3-1.{side}"]) / 2 - at[f"foot.{side}"]
        found = {
            "upper_arm": turn_between(upper, hinge, DOWN, -LEFT),
            "forearm": turn_between(fore, hinge, DOWN, -LEFT),
            "hand": turn_between(hand, thumbwards, DOWN, FORWARD),
            "thigh": turn_between(thigh, FORWARD, DOWN, FORWARD),
            "shin": turn_between(shin, FORWARD, DOWN, FORWARD),
            "foot": turn_between(toes * [1.0, 1.0, 0.0], -DOWN, FORWARD, -DOWN),
        }
        found["toes"] = found["foot"]
        rest |= {f"{b}.{side}": found[segment] for b, segment in _SIDE_BONES.items() if segment in found}
        for bone, along in (("upperarm01", upper), ("lowerarm01", fore), ("upperleg01", thigh)):
            arms[f"{bone}.{side}"] = along / np.linalg.norm(along)
    length = np.linalg.norm(at["lowerleg01.L"] - at["upperleg01.L"]) + np.linalg.norm(at["foot.L"] - at["lowerleg01.L"])
    return Rig(
        topology=topology,
        heads=np.stack([at[bone] for bone in topology.bones]),
        rest_turns=np.stack([rest[bone] for bone in topology.bones]),
        hips=(at["upperleg01.L"] + at["upperleg01.R"]) / 2,
        leg_m=float(length),
        arms=arms,
    )


def skinning(rest: Float[np.ndarray, "n 3"], weights: csr_array, homogeneous: float) -> csr_array:
    """The (n, 4 B) matrix that maps stacked transforms (4 B, 3) to skinned points, or normals for `homogeneous` 0.

    Linear blend skinning is linear in the transforms, and everything else is constant per person.
    """
    dense = weights.toarray()
    vertex, bone = np.nonzero(dense)
    columns = np.concatenate([rest, np.full((len(rest), 1), homogeneous)], axis=1)
    data = (dense[vertex, bone][:, None] * columns[vertex]).astype(np.float32)
    place = (np.repeat(vertex, 4), (bone[:, None] * 4 + np.arange(4)).ravel())
    return csr_array((data.ravel(), place), shape=(len(rest), 4 * dense.shape[1]))


def stacked(transforms: Float[np.ndarray, "B 3 4"]) -> Float[np.ndarray, "_b4 3"]:
    """Stack transforms as `skinning` multiplies them."""
    return np.ascontiguousarray(transforms.swapaxes(1, 2).reshape(-1, 3), dtype=np.float32)


def _json(content: bytes) -> Any:
    return json.loads(content)

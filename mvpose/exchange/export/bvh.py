"""Export BVH: a body of constant bone lengths and its joint rotations. Metres, Y up; arms stretched out at rest.

The poses are first changed as little as possible so that every bone has its median length (`with_constant_bones`). The
rotations (`bvh_rotations`) then reproduce those positions to 0.1 mm through any forward kinematics (tested). BVH has no
missing values. A joint seen in fewer than half of a person's frames is therefore omitted with all joints behind it, and
each run of frames in which the other joints are all present becomes a separate file. Fill gaps first to get fewer
files.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from jaxtyping import Float

from mvpose.errors import ConfigError
from mvpose.exchange.export.bvh_rotations import euler_degrees, world_rotations
from mvpose.exchange.export.bvh_skeleton import BvhNode, nodes_of, rest_direction, rooted
from mvpose.exchange.export.recording import File, Recording, y_up
from mvpose.skeleton import Skeleton
from mvpose.temporal.bone_lengths import measured_lengths, with_constant_bones
from mvpose.temporal.gaps import present, unbroken_runs

MIN_SHARE = 0.5
"""Minimum fraction of a person's frames that must show a joint for it to be in the file."""
END_SITE_M = 0.05


def bvh_files(recording: Recording) -> Iterator[File]:
    """`<name>_person<track>.bvh`, or `..._frames<first>-<last>.bvh` for each unbroken run of at least 2 frames.

    Raises ConfigError for a skeleton that is not a tree from the hip, and, after all other files, for people without
    a complete run.
    """
    skeleton, everybody, confidence = rooted(recording.poses)
    never_whole = []
    for name, place in recording.people():
        xyz = everybody[:, place]
        kept = _kept(skeleton, xyz)
        nodes = nodes_of(skeleton, kept)
        used = sorted({node.joint for node in nodes})
        runs = [run for run in unbroken_runs(np.asarray(present(xyz)[:, used].all(axis=1))) if run[1] - run[0] >= 2]
        if not runs:
            never_whole.append(name)
            continue
        bones = tuple((a, b) for a, b in skeleton.bone_indices if a in used and b in used)
        lengths = measured_lengths(xyz, bones)
        for start, stop in runs:
            rigid = with_constant_bones(xyz[start:stop], confidence[start:stop, place], bones, lengths)
            whole = (start, stop) == (0, len(xyz))
            suffix = "" if whole else f"_frames{start:07d}-{stop - 1:07d}"
            length_to = {child: float(length) for (_, child), length in zip(bones, lengths, strict=True)}
            yield f"{name}{suffix}.bvh", _bvh(skeleton, nodes, length_to, y_up(rigid), recording.fps).encode()
    if never_whole:
        raise ConfigError(
            f"{', '.join(never_whole)}: no two consecutive frames have all of the usual joints, and BVH has no "
            "missing values: fill gaps first."
        )


def _kept(skeleton: Skeleton, xyz: Float[np.ndarray, "T J 3"]) -> set[str]:
    there = present(xyz)
    seen = there[there.any(axis=1)]
    return {joint for joint, share in zip(skeleton.joints, seen.mean(axis=0), strict=True) if share >= MIN_SHARE}


def _bvh(
    skeleton: Skeleton, nodes: Sequence[BvhNode], lengths: dict[int, float], xyz: Float[np.ndarray, "T J 3"], fps: float
) -> str:
    """The text of a file; `xyz` is Y-up with bones of exactly `lengths`, indexed by the joint they lead to."""
    rest = np.stack([rest_direction(j) if j != "hip" else np.zeros(3) for j in skeleton.joints])
    angles = euler_degrees(world_rotations(nodes, xyz, rest), nodes)
    root = xyz[:, skeleton.index("hip")]
    rows = np.concatenate([root, angles.reshape(len(xyz), -1)], axis=1)
    motion = [" ".join(f"{value:.6f}" for value in row) for row in rows]
    hierarchy = ["HIERARCHY", *_joint_lines(0, nodes, lengths, rest, depth=0)]
    return "\n".join([*hierarchy, "MOTION", f"Frames: {len(xyz)}", f"Frame Time: {1 / fps:.9f}", *motion, ""])


def _joint_lines(
    at: int, nodes: Sequence[BvhNode], lengths: dict[int, float], rest: Float[np.ndarray, "J 3"], depth: int
) -> Iterator[str]:
    node, tab = nodes[at], "\t" * depth
    offset = lengths[node.reaches] * rest[node.reaches] if node.reaches >= 0 else np.zeros(3)
    channels = "6 Xposition Yposition Zposition" if depth == 0 else "3"
    yield f"{tab}{'ROOT' if depth == 0 else 'JOINT'} {node.name}"
    yield f"{tab}{{"
    yield f"{tab}\tOFFSET {_triple(offset)}"
    yield f"{tab}\tCHANNELS {channels} Zrotation Xrotation Yrotation"
    for child, below in enumerate(nodes):
        if below.parent == at:
            yield from _joint_lines(child, nodes, lengths, rest, depth + 1)
    if not node.aims:
        yield from (f"{tab}\tEnd Site", f"{tab}\t{{", f"{tab}\t\tOFFSET {_triple(END_SITE_M * rest[node.joint])}")
        yield f"{tab}\t}}"
    yield f"{tab}}}"


def _triple(vector: Float[np.ndarray, "3"]) -> str:
    return " ".join(f"{value:.6f}" for value in vector)

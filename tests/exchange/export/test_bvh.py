"""BVH read back by bvhio and by a forward kinematics written out here."""

import os

import bvhio
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

from mvpose.errors import ConfigError
from mvpose.exchange.export.bvh import bvh_files
from mvpose.exchange.export.bvh_rotations import shortest_turn
from mvpose.scenes import ring4, two_people_crossing
from mvpose.skeleton import BODY25, COCO17, HALPE26, HUMAN36M17, PANOPTIC19, Skeleton
from mvpose.temporal.bone_lengths import measured_lengths, with_constant_bones
from tests.exchange.export.recordings import recording_of


def forward(text: str) -> tuple[dict[str, np.ndarray], float]:
    """World positions (T 3) of every joint by name, and the frame time: R_world = R_parent Rz Rx Ry."""
    hierarchy, motion = text.split("MOTION\n")
    lines = motion.strip().split("\n")
    rows = np.array([[float(v) for v in line.split()] for line in lines[2:]])
    assert len(rows) == int(lines[0].split()[1])
    places, turns, stack, column, name, ended = {}, {}, [], 0, "", False
    for tokens in (line.split() for line in hierarchy.split("\n")[1:]):
        if not tokens:
            continue
        if tokens[0] in ("ROOT", "JOINT"):
            name, parent = tokens[1], stack[-1] if stack else None
            stack.append(name)
        elif tokens[0] == "End":
            ended = True
        elif tokens[0] == "OFFSET" and not ended:
            offset = np.array([float(v) for v in tokens[1:]])
        elif tokens[0] == "CHANNELS":
            if parent is None:
                places[name], column = offset + rows[:, :3], 3
                above = np.broadcast_to(np.eye(3), (len(rows), 3, 3))
            else:
                above = turns[parent]
                places[name] = places[parent] + above @ offset
            local = Rotation.from_euler("ZXY", rows[:, column : column + 3], degrees=True).as_matrix()
            turns[name], column = above @ local, column + 3
        elif tokens[0] == "}":
            if ended:
                ended = False
            else:
                stack.pop()
    assert column == rows.shape[1]
    return places, float(lines[1].split()[2])


def largest_error(places: dict[str, np.ndarray], xyz: np.ndarray, skeleton: Skeleton) -> float:
    """Metres, over all joints of the skeleton that the file has; world Z-up is (z, x, y) of the file."""
    return max(
        np.linalg.norm(places[joint][:, [2, 0, 1]] - xyz[:, j], axis=-1).max()
        for j, joint in enumerate(skeleton.joints)
        if joint in places
    )


@pytest.mark.parametrize("skeleton", [HALPE26, BODY25, HUMAN36M17, PANOPTIC19], ids=lambda s: s.name)
def test_a_body_of_constant_bones_comes_back_to_a_tenth_of_a_millimetre(skeleton):
    xyz = ring4(num_frames=40, skeleton=skeleton).joints
    ((name, content),) = bvh_files(recording_of(xyz, skeleton))
    places, frame_time = forward(content.decode())
    assert name == "walk_person3.bvh"
    assert set(skeleton.joints) <= set(places)
    assert largest_error(places, xyz[:, 0], skeleton) < 1e-4
    assert frame_time == pytest.approx(1001 / 60000, abs=1e-9)


def test_coco_gets_hip_and_neck_halfway_and_comes_back_within_their_spread():
    xyz = ring4(num_frames=40, skeleton=COCO17).joints
    ((_, content),) = bvh_files(recording_of(xyz, COCO17))
    places, _ = forward(content.decode())
    assert {"hip", "neck", *COCO17.joints} <= set(places)
    # The nose moves against the middle of the shoulders: that bone is not constant, and the file's is.
    assert largest_error(places, xyz[:, 0], COCO17) < 0.02


def test_noisy_poses_come_back_as_the_nearest_of_constant_bones():
    noisy = ring4(num_frames=40).joints + 0.01 * np.random.default_rng(1).normal(size=(40, 1, 26, 3))
    recording = recording_of(noisy)
    ((_, content),) = bvh_files(recording)
    xyz = recording.poses.xyz[:, 0].astype(float)
    bones = tuple(HALPE26.bone_indices)
    nearest = with_constant_bones(
        xyz, recording.poses.confidence[:, 0].astype(float), bones, measured_lengths(xyz, bones)
    )
    places, _ = forward(content.decode())
    assert largest_error(places, nearest, HALPE26) < 1e-4
    assert largest_error(places, xyz, HALPE26) < 0.08


def test_bvhio_reads_the_same_positions(tmp_path):
    xyz = ring4(num_frames=12).joints
    ((name, content),) = bvh_files(recording_of(xyz))
    path = os.path.join(tmp_path, name)
    with open(path, "wb") as file:
        file.write(content)
    root = bvhio.readAsHierarchy(path)
    for frame in (0, 5, 11):
        root.loadPose(frame)
        for joint, _, _ in root.layout():
            if joint.Name in HALPE26.joints:
                x, y, z = joint.PositionWorld
                read = np.array([z, x, y])
                # bvhio computes in single precision.
                assert np.linalg.norm(read - xyz[frame, 0, HALPE26.index(joint.Name)]) < 5e-4


def test_the_root_turns_with_the_pelvis():
    xyz = ring4(num_frames=10).joints
    ((_, content),) = bvh_files(recording_of(xyz))
    row = np.array(content.decode().split("Frame Time")[1].split("\n")[1].split(), dtype=float)
    turn = Rotation.from_euler("ZXY", row[3:6], degrees=True).as_matrix()
    left, right = HALPE26.indices("left_hip", "right_hip")
    across = (xyz[0, 0, left] - xyz[0, 0, right])[[1, 2, 0]]
    across /= np.linalg.norm(across)
    assert turn @ [1.0, 0.0, 0.0] @ across > 0.99


def test_angles_have_no_jumps_of_whole_turns():
    angle = np.linspace(0, 4 * np.pi, 60)
    still = ring4(num_frames=1).joints[0, 0]
    turning = np.stack([still @ Rotation.from_euler("z", a).as_matrix().T for a in angle])[:, None]
    ((_, content),) = bvh_files(recording_of(turning))
    rows = np.array([line.split() for line in content.decode().split("Frame Time")[1].split("\n")[1:-1]], dtype=float)
    assert np.abs(np.diff(rows[:, 3:], axis=0)).max() < 30.0


def test_gaps_split_the_file_and_are_not_bridged():
    xyz = ring4(num_frames=30).joints.copy()
    xyz[10:14, 0, HALPE26.index("left_knee")] = np.nan
    files = dict(bvh_files(recording_of(xyz)))
    assert list(files) == ["walk_person3_frames0000000-0000009.bvh", "walk_person3_frames0000014-0000029.bvh"]
    places, _ = forward(files["walk_person3_frames0000014-0000029.bvh"].decode())
    assert largest_error(places, xyz[14:, 0], HALPE26) < 1e-4


def test_a_joint_that_is_hardly_ever_seen_is_left_out_with_all_behind_it():
    xyz = two_people_crossing(num_frames=30).joints.copy()
    xyz[:20, 1, HALPE26.index("left_elbow")] = np.nan
    files = dict(bvh_files(recording_of(xyz)))
    names = set(forward(files["walk_person4.bvh"].decode())[0])
    assert not {"left_elbow", "left_wrist"} & names and "right_wrist" in names
    assert "left_elbow" in forward(files["walk_person3.bvh"].decode())[0]


def test_a_person_never_seen_whole_is_refused_by_name_after_the_others_are_written():
    xyz = two_people_crossing(num_frames=10).joints.copy()
    xyz[::2, 0, 7] = np.nan
    files = bvh_files(recording_of(xyz))
    assert next(files)[0] == "walk_person4.bvh"
    with pytest.raises(ConfigError, match=r"walk_person3: .* fill gaps first"):
        next(files)


def test_a_skeleton_without_bones_is_refused_with_a_sentence():
    with pytest.raises(ConfigError, match="one tree from the hip"):
        list(bvh_files(recording_of(np.zeros((5, 1, 2, 3)), Skeleton("mouse", ("snout", "tail"), ()))))


unit = st.tuples(*[st.floats(-1, 1)] * 3).map(np.array).filter(lambda v: np.linalg.norm(v) > 0.1)
unit = unit.map(lambda v: v / np.linalg.norm(v))


@given(start=unit, end=unit)
@settings(deadline=None)
def test_the_shortest_turn_arrives_and_is_shortest(start, end):
    turn = shortest_turn(start[None], end[None])[0]
    assert np.allclose(turn @ start, end, atol=1e-6)
    angle = np.arccos(np.clip((np.trace(turn) - 1) / 2, -1, 1))
    assert angle == pytest.approx(np.arccos(np.clip(start @ end, -1, 1)), abs=1e-4)


def test_the_shortest_turn_of_opposite_directions_is_a_half_turn():
    turn = shortest_turn(np.eye(3), -np.eye(3))
    assert np.allclose((turn @ np.eye(3)[..., None])[..., 0], -np.eye(3))
    assert np.allclose(np.linalg.det(turn), 1)

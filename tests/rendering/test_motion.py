"""Motion capture of two kinds in one convention, and splits that share no recording."""

import io
import zipfile

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from mvpose.rendering.acclaim import read_amc, read_asf
from mvpose.rendering.assets import Assets
from mvpose.rendering.body_segments import SEGMENTS, S
from mvpose.rendering.motion import MotionLibrary, draw_motion, motion_split, person_split, source_of
from mvpose.rendering.scene import SPLITS

DOWN, FORWARD = np.array([0.0, 0.0, -1.0]), np.array([0.0, -1.0, 0.0])

LEG = """
:units
:bonedata
  begin
     name lhipjoint
     direction 1 0 0
     length 2
     axis 0 0 0 XYZ
  end
  begin
     name rhipjoint
     direction -1 0 0
     length 2
     axis 0 0 0 XYZ
  end
  begin
     name lfemur
     direction 0 -1 0
     length 5
     axis 0 0 20 XYZ
    dof rx ry rz
    limits (-160.0 20.0)
           (-70.0 70.0)
           (-60.0 70.0)
  end
:hierarchy
  begin
    root lhipjoint rhipjoint
    lhipjoint lfemur
  end
"""


@pytest.fixture(scope="module")
def library(assets: str) -> MotionLibrary:
    return MotionLibrary.open(Assets.open(assets))


def test_a_skeleton_file_is_read_with_its_parents_axes_and_freedoms() -> None:
    bones = read_asf(LEG)
    assert list(bones) == ["root", "lhipjoint", "rhipjoint", "lfemur"]
    assert bones["lfemur"].parent == "lhipjoint"
    assert bones["lfemur"].freedom == ("rx", "ry", "rz")
    np.testing.assert_allclose(bones["lfemur"].axes[:, 0], [np.cos(np.radians(20)), np.sin(np.radians(20)), 0.0])


def test_a_frame_of_zeros_leaves_a_cmu_skeleton_in_its_rest_pose_arms_level_palms_down(library: MotionLibrary) -> None:
    with zipfile.ZipFile(io.BytesIO(library.assets.read("motion/cmu_asf_amc.zip"))) as archive:
        bones = read_asf(archive.read("02/02.asf").decode())
    frame = "\n".join(
        f"{name} {'0 ' * (len(bone.freedom) + 3 * (name == 'root'))}" for name, bone in bones.items() if bone.freedom
    )
    turns, _ = read_amc(frame, bones)
    for sign, side in ((1.0, "left"), (-1.0, "right")):
        np.testing.assert_allclose(turns[0, S[f"{side}_upper_arm"]] @ DOWN, [sign, 0.0, 0.0], atol=1e-6)
        np.testing.assert_allclose(turns[0, S[f"{side}_hand"]] @ FORWARD, FORWARD, atol=1e-6)
        np.testing.assert_allclose((turns[0, S[f"{side}_thigh"]] @ DOWN)[2], -np.cos(np.radians(20)), atol=1e-4)


def test_all_clips_are_rotations_of_people_who_stand_on_legs(library: MotionLibrary) -> None:
    for clip in ("cmu/02_01", "cmu/02_03", "deepmimic/walk", "deepmimic/run", "deepmimic/punch"):
        motion = library.read(clip)
        assert motion.turns.shape[1:] == (len(SEGMENTS), 3, 3)
        flat = motion.turns.reshape(-1, 3, 3)
        np.testing.assert_allclose(flat @ flat.swapaxes(1, 2), np.broadcast_to(np.eye(3), flat.shape), atol=1e-6)
        np.testing.assert_allclose(np.linalg.det(flat), 1.0, atol=1e-6)
        assert 0.85 < np.median(motion.hips[:, 2]) < 1.3, f"{clip}: hips in leg lengths"
        assert np.median(motion.turns[:, S["head"], 2, 2]) > 0.8, f"{clip}: upright"


@pytest.mark.parametrize("clip", ["cmu/02_01", "deepmimic/walk", "deepmimic/long_walk1"])
def test_elbows_and_knees_of_walkers_bend_the_way_they_can_and_people_walk_forward(
    clip: str, library: MotionLibrary
) -> None:
    motion = library.read(clip)
    for side in ("left", "right"):
        for near, far, ahead in (("upper_arm", "forearm", 1), ("thigh", "shin", -1)):
            near_turn = motion.turns[:, S[f"{side}_{near}"]]
            bend = np.einsum("tji,tj->ti", near_turn, motion.turns[:, S[f"{side}_{far}"]] @ DOWN)
            assert ahead * np.median(bend @ FORWARD) > 0.05, (side, near)
    step = np.diff(motion.hips[::10, :2], axis=0)
    facing = (motion.turns[::10, 0] @ FORWARD)[:-1, :2]
    assert np.einsum("tc,tc->t", step, facing).sum() > 0.8 * np.linalg.norm(step, axis=1).sum()


def test_a_mirrored_clip_mirrors_the_turns_of_its_original(library: MotionLibrary) -> None:
    mirror = np.diag([-1.0, 1.0, 1.0])
    one, other = library.read("deepmimic/long_walk1"), library.read("deepmimic/long_walk1_mirror")
    np.testing.assert_allclose(
        other.turns[:, S["left_shin"]], mirror @ one.turns[:, S["right_shin"]] @ mirror, atol=2e-2
    )


def test_frames_follow_each_other_smoothly(library: MotionLibrary) -> None:
    turns = library.read("cmu/02_01").turns
    step = Rotation.from_matrix((turns[:-1].swapaxes(2, 3) @ turns[1:]).reshape(-1, 3, 3)).magnitude()
    assert np.degrees(step.max()) < 12, "degrees in 1/120 s"


def test_no_recording_is_in_two_splits(library: MotionLibrary) -> None:
    splits = [{source_of(clip) for clip in library.of_split(split)} for split in SPLITS]
    assert all(splits)
    assert sum(map(len, splits)) == len(set.union(*splits))
    assert motion_split("deepmimic/long_walk1") == motion_split("deepmimic/long_walk1_mirror")


def test_one_person_in_five_is_for_testing_and_one_in_ten_for_validation() -> None:
    splits = [person_split(seed) for seed in range(2000)]
    assert 0.17 < splits.count("test") / 2000 < 0.23
    assert 0.08 < splits.count("validation") / 2000 < 0.12
    quoted = {split: [seed for seed in range(20) if splits[seed] == split] for split in ("test", "validation")}
    assert quoted == {"test": [4, 14], "validation": [16]}, "must never change: splits are quoted"


def test_a_drawn_motion_has_the_length_rate_and_split_asked_for_and_is_the_same_again(library: MotionLibrary) -> None:
    for seed in range(5):
        one, again = (
            draw_motion(np.random.default_rng(seed), library, seconds=0.4, fps=30.0, split="test") for _ in range(2)
        )
        assert one.turns.tobytes() == again.turns.tobytes()
        assert 1 <= len(one) <= 0.4 * 1.5 * one.fps + 1
        assert motion_split(one.clip) == "test"
        np.testing.assert_allclose(one.hips[:, :2].min(axis=0) + one.hips[:, :2].max(axis=0), 0.0, atol=1e-9)

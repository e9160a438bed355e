"""People: what holds for every shape, outfit and pose."""

import numpy as np
import pytest
from scipy.spatial import ConvexHull

from mvpose.rendering.armature import SEGMENT_OF
from mvpose.rendering.assets import Assets
from mvpose.rendering.body_segments import SEGMENTS
from mvpose.rendering.motion import Motion, MotionLibrary, draw_motion
from mvpose.rendering.person import Person, draw_person, dressed
from mvpose.rendering.shape import BODY_VERTICES, Shape, body_of
from mvpose.rendering.wardrobe import Garment, Look, draw_look, garment, hat
from mvpose.skeleton import RENDERED

LIMBS = [(a, b) for a, b in RENDERED.bones if a.split("_")[-1] in ("hip", "knee", "shoulder", "elbow") and "_" in a]


@pytest.fixture(scope="module")
def files(assets: str) -> Assets:
    return Assets.open(assets)


@pytest.fixture(scope="module")
def person(files: Assets) -> Person:
    return draw_person(np.random.default_rng(3), files)


@pytest.fixture(scope="module")
def library(files: Assets) -> MotionLibrary:
    return MotionLibrary.open(files)


@pytest.fixture(scope="module")
def walk(library: MotionLibrary, person: Person) -> Motion:
    return person.grounded(library.read("cmu/02_01").part(0, 300, 10))


def at_rest(person: Person) -> Motion:
    """One frame in which every segment is turned as the rig is built."""
    rest = dict(zip(person.rig.topology.bones, person.rig.rest_turns, strict=True))
    turns = {segment: rest[bone] for bone, segment in SEGMENT_OF.items()}
    stacked = np.stack([turns[segment] for segment in SEGMENTS])[None]
    return Motion(clip="", source="", fps=1.0, turns=stacked, hips=person.rig.hips[None] / person.rig.leg_m)


def joints(person: Person, motion: Motion) -> np.ndarray:
    return np.stack([person.joints(motion, frame) for frame in range(len(motion))])


def test_skinning_at_rest_leaves_the_body_as_it_was_shaped(person: Person, files: Assets) -> None:
    posed = person.pose(at_rest(person), 0)
    body = body_of(person.look.shape, files)
    away = np.abs(posed.vertices[0][::97, None] - body[None, :BODY_VERTICES]).max(axis=2).min(axis=1)
    assert away.max() < 1e-5


def test_turning_and_moving_the_person_turns_and_moves_every_vertex_normal_and_joint(
    person: Person, walk: Motion
) -> None:
    here, there = person.pose(walk, 7), person.pose(walk, 7, position=(1.5, -2.0), heading=0.7)
    turn = np.array([[np.cos(0.7), -np.sin(0.7), 0], [np.sin(0.7), np.cos(0.7), 0], [0, 0, 1]])
    for before, after in zip(here.vertices, there.vertices, strict=True):
        np.testing.assert_allclose(after, before @ turn.T + [1.5, -2.0, 0.0], atol=1e-5)
    for before, after in zip(here.normals, there.normals, strict=True):
        np.testing.assert_allclose(after, before @ turn.T, atol=1e-4)
    np.testing.assert_allclose(there.joints, here.joints @ turn.T + [1.5, -2.0, 0.0], atol=1e-5)


def test_weights_of_every_vertex_sum_to_one_and_none_is_negative(person: Person) -> None:
    weights = person.rig.topology.weights
    np.testing.assert_allclose(weights.sum(axis=1), 1.0)
    assert weights.min() >= 0


def test_limbs_keep_their_length_over_a_clip(person: Person, library: MotionLibrary) -> None:
    xyz = joints(person, library.read("deepmimic/cartwheel").part(0, 160, 4))
    for a, b in LIMBS:
        length = np.linalg.norm(xyz[:, RENDERED.index(a)] - xyz[:, RENDERED.index(b)], axis=-1)
        assert np.ptp(length) < 0.01 * length.mean(), (a, b)


@pytest.mark.parametrize("joint", ["elbow", "knee", "wrist", "ankle"])
@pytest.mark.parametrize("side", ["left", "right"])
def test_a_joint_lies_inside_the_limb_in_every_shape(joint: str, side: str, files: Assets) -> None:
    for seed in range(4):
        look = draw_look(np.random.default_rng(seed), files)
        bare = dressed(Look(look.shape, look.skin, look.iris, ()), files)
        posed = bare.pose(at_rest(bare), 0)
        centre = posed.joints[RENDERED.index(f"{side}_{joint}")]
        offset = posed.vertices[0].astype(float) - centre
        ring = offset[np.linalg.norm(offset, axis=1) < 0.1]
        assert ConvexHull(ring).equations[:, -1].max() < -0.01, f"less than 10 mm below the hull, person {seed}"


def test_joints_of_the_face_lie_on_the_skin_and_the_crown_on_top(person: Person) -> None:
    posed = person.pose(at_rest(person), 0)
    nose, head = (posed.joints[RENDERED.index(name)] for name in ("nose", "head"))
    assert np.abs(posed.vertices[0] - nose).max(axis=1).min() < 1e-4
    assert head[2] == pytest.approx(person.look.shape.stature_m, abs=0.02)
    assert nose[1] < posed.joints[RENDERED.index("left_ear")][1], "people at rest face -Y"


def test_left_joints_are_on_the_left_of_a_person_who_faces_minus_y(person: Person) -> None:
    xyz = joints(person, at_rest(person))[0]
    for name in RENDERED.joints:
        if name.startswith("left_"):
            assert xyz[RENDERED.index(name), 0] > 0 > xyz[RENDERED.index(name.replace("left", "right")), 0]


def test_a_walker_stands_upright_on_the_floor_with_knees_that_bend_forward(person: Person, walk: Motion) -> None:
    lowest = np.array([min(v[:, 2].min() for v in person.pose(walk, i).vertices) for i in range(len(walk))])
    assert np.abs(lowest).max() < 0.06
    xyz = joints(person, walk)
    assert (xyz[:, RENDERED.index("head"), 2] > 0.9 * person.look.shape.stature_m).all()
    forward = walk.turns[:, 0] @ np.array([0.0, -1.0, 0.0])
    hip, knee, ankle = (xyz[:, RENDERED.index(f"left_{part}")] for part in ("hip", "knee", "ankle"))
    bend = np.einsum("tc,tc->t", knee - (hip + ankle) / 2, forward)
    assert bend.min() > -0.02
    assert bend.max() > 0.1


def test_a_turned_wrist_keeps_the_forearm_round(person: Person, files: Assets) -> None:
    """Linear blending collapses a limb that is twisted in one place; here the twist is spread over the forearm."""
    bare = dressed(Look(person.look.shape, person.look.skin, person.look.iris, ()), files)
    rest = at_rest(bare)
    hand = SEGMENTS.index("left_hand")
    fore = rest.turns[0, SEGMENTS.index("left_forearm")] @ np.array([0.0, 0.0, -1.0])
    cross = np.array([[0, -fore[2], fore[1]], [fore[2], 0, -fore[0]], [-fore[1], fore[0], 0]])
    angle = np.radians(80)
    turn = np.eye(3) + np.sin(angle) * cross + (1 - np.cos(angle)) * cross @ cross
    turned = Motion(clip="", source="", fps=1.0, turns=rest.turns.copy(), hips=rest.hips)
    turned.turns[0, hand] = turn @ turned.turns[0, hand]
    radius = []
    for motion in (rest, turned):
        posed = bare.pose(motion, 0)
        elbow, wrist = (posed.joints[RENDERED.index(f"left_{part}")] for part in ("elbow", "wrist"))
        offset = posed.vertices[0] - (elbow + 3 * wrist) / 4
        ring = offset[(np.abs(offset @ fore) < 0.01) & (np.linalg.norm(offset, axis=1) < 0.08)]
        radius.append(np.linalg.norm(ring - (ring @ fore)[:, None] * fore, axis=1).mean())
    assert radius[1] > 0.85 * radius[0]


def test_the_same_seed_gives_the_same_bytes_and_another_seed_another_person(files: Assets, walk: Motion) -> None:
    first, again, other = (
        draw_person(np.random.default_rng(seed), Assets.open(files.folder)).pose(walk, 3) for seed in (11, 11, 12)
    )
    assert [v.tobytes() for v in first.vertices] == [v.tobytes() for v in again.vertices]
    assert [p.texture for p in first.parts] == [p.texture for p in again.parts]
    assert first.joints.dtype == first.vertices[0].dtype == np.float32
    assert first.joints.tobytes() == again.joints.tobytes()
    assert first.joints.tobytes() != other.joints.tobytes()


def test_statures_are_as_asked_whatever_the_shape(files: Assets) -> None:
    for male, stature in ((0.0, 1.5), (1.0, 1.95)):
        shape = Shape(
            male=male, old=0.4, muscle=0.9, weight=0.1, origin={"african": 0.5, "asian": 0.5, "caucasian": 0.0},
            stature_m=stature,
        )  # fmt: skip
        body = body_of(shape, files)[:BODY_VERTICES]
        assert np.ptp(body[:, 2]) == pytest.approx(stature, abs=0.02)


def all_garments(files: Assets) -> list[Garment]:
    parts = ("clothes/female", "clothes/male", "clothes/shoes", "hair/")
    keys = [key for part in parts for key in files.card.keys(f"makehuman/{part}", ".obj")]
    folders = sorted({key.rpartition("/")[0] + "/" for key in keys})
    return [garment("clothes", folder, (1.0, 1.0, 1.0), files) for folder in folders]


def test_every_outfit_hair_style_pair_of_shoes_and_hat_fits_a_body(files: Assets, person: Person) -> None:
    worn = [*all_garments(files), hat(np.random.default_rng(0))]
    assert len(worn) == 12 + 6 + 10 + 1
    bare = dressed(Look(person.look.shape, person.look.skin, person.look.iris, ()), files)
    skin = bare.pose(at_rest(bare), 0).vertices[0][::5]
    for one in worn:
        alone = dressed(Look(person.look.shape, person.look.skin, person.look.iris, (one,)), files)
        posed = alone.pose(at_rest(alone), 0)
        offset = posed.vertices[-1][::97, None] - skin[None]
        gap = np.linalg.norm(offset, axis=-1).min(axis=1)
        assert np.median(gap) < 0.05, f"{one.mesh} hangs away from the body"
        part = posed.parts[-1]
        assert part.uv.shape[0] == len(posed.vertices[-1])
        if part.texture:
            assert files.texture(part.texture).shape[2] == 4


def test_a_random_motion_moves_a_person_without_tearing_the_mesh(person: Person, library: MotionLibrary) -> None:
    rng = np.random.default_rng(0)
    for _ in range(4):
        motion = draw_motion(rng, library, seconds=1.0, fps=10.0)
        posed = person.pose(person.grounded(motion), len(motion) // 2)
        for part, vertices, normals in zip(posed.parts, posed.vertices, posed.normals, strict=True):
            edges = vertices[part.faces] - vertices[np.roll(part.faces, 1, axis=1)]
            assert np.linalg.norm(edges, axis=-1).max() < 0.35
            np.testing.assert_allclose(np.linalg.norm(normals, axis=1), 1.0, atol=1e-3)

"""Joint sets."""

import numpy as np
import pytest

from mvpose.skeleton import BODY_JOINTS, COCO17, HALPE26, HUMAN36M17, MPII16, SKELETONS

ALL = pytest.mark.parametrize("skeleton", SKELETONS.values(), ids=lambda s: s.name)


@ALL
def test_mirroring_twice_changes_nothing_and_swaps_sides(skeleton):
    mirror = np.array(skeleton.mirror)
    np.testing.assert_array_equal(mirror[mirror], np.arange(len(skeleton.joints)))
    assert skeleton.joints[mirror[skeleton.index("left_knee")]] == "right_knee"
    middle = [i for i, joint in enumerate(skeleton.joints) if not joint.startswith(("left_", "right_"))]
    assert middle and mirror[middle].tolist() == middle


@ALL
def test_a_joint_set_has_each_joint_once_as_many_as_its_name_says_and_all_body_joints(skeleton):
    assert len(set(skeleton.joints)) == len(skeleton.joints) == int(skeleton.name[-2:])
    assert set(BODY_JOINTS) <= set(skeleton.joints)


@ALL
def test_bones_form_a_forest_with_parents_before_children_reachable(skeleton):
    parents = skeleton.parents
    for joint in range(len(parents)):
        seen, at = set(), joint
        while at != -1:
            assert at not in seen
            seen.add(at)
            at = parents[at]


def test_halpe26_begins_with_coco17_and_has_the_published_order_of_its_own_joints():
    assert HALPE26.joints[:17] == COCO17.joints
    assert HALPE26.indices("head", "neck", "hip") == [17, 18, 19]
    assert HALPE26.joints[20:] == (
        "left_big_toe", "right_big_toe", "left_small_toe", "right_small_toe", "left_heel", "right_heel"
    )  # fmt: skip


def test_remapping_says_what_cannot_be_mapped():
    source, found = COCO17.remap(HUMAN36M17)
    assert not found[HUMAN36M17.index("spine")]
    assert found[HUMAN36M17.index("left_wrist")]
    assert COCO17.joints[source[HUMAN36M17.index("left_wrist")]] == "left_wrist"


def test_an_unknown_joint_is_named_beside_those_there_are():
    with pytest.raises(ValueError, match=r"coco17 has no joint 'tail'.*left_wrist"):
        COCO17.index("tail")


def test_mpii16_has_the_published_order():
    """Ankles outwards and in, the trunk from the pelvis up, then the arms from the right wrist to the left."""
    assert MPII16.indices("right_ankle", "left_ankle", "hip", "thorax", "neck", "head") == [0, 5, 6, 7, 8, 9]
    swapped = [[i, MPII16.mirror[i]] for i in range(16) if i < MPII16.mirror[i]]
    assert swapped == [[0, 5], [1, 4], [2, 3], [10, 15], [11, 14], [12, 13]]

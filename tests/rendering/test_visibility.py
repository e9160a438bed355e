"""The rule, tried on boxes before it is tried on people."""

import numpy as np
import torch

from mvpose.rendering.renderer import renderer
from mvpose.rendering.surfaces import box, joined
from mvpose.rendering.views import DEPTH_IN_LIMB_M, visible_joints
from mvpose.skeleton import HALPE26, SKELETONS, Skeleton
from tests.rendering.mannequin import mannequin
from tests.rendering.test_renderer import BLACK, EXPOSURE, FLOOR, camera, lights, no_image, plain

KNEE = Skeleton("one", ("left_knee",), ())
AT = np.array([[5.0, 5.0]])


def seen(surface_m: float, joint_m: float = 3.0, pixels=AT) -> bool:
    return bool(visible_joints(pixels, np.array([joint_m]), np.full((11, 11), surface_m, np.float32), KNEE)[0])


def test_a_joint_is_seen_through_its_own_limb_and_through_nothing_thicker():
    limb = DEPTH_IN_LIMB_M["knee"]
    assert seen(3.0 - limb + 0.01) and seen(np.inf) and seen(3.2)
    assert not seen(3.0 - limb - 0.01) and not seen(0.5)


def test_a_joint_off_the_image_or_behind_the_camera_is_not_seen():
    for pixels in ([[-0.6, 5.0]], [[5.0, 10.6]], [[np.nan, 5.0]], [[1e9, 0.0]]):
        assert not seen(3.0, pixels=np.array(pixels))
    assert not seen(np.inf, joint_m=-3.0)
    assert seen(3.0, pixels=np.array([[-0.4, 10.4]]))


def test_every_joint_of_every_skeleton_has_a_limb():
    for skeleton in SKELETONS.values():
        assert visible_joints(
            np.full((len(skeleton.joints), 2), 1.0), np.ones(len(skeleton.joints)), np.full((3, 3), np.inf), skeleton
        ).all()


def test_a_box_before_the_shins_hides_them_and_nothing_else():
    person, rig, gl = mannequin(), camera(place=(3.5, 0.0, 1.0), focal=350.0), renderer()
    crate = box((1.2, 0.0, 0.0), (0.3, 3.0, 0.45), 0.0, plain(0.5))
    joints = person.joints.astype(np.float64)
    reported = []
    for surfaces in (FLOOR, joined([FLOOR, crate])):
        gl.stage(surfaces, [person], lights(), no_image)
        _, depth = gl.image(rig, 0, EXPOSURE, [0], BLACK)
        pixels, _ = rig.project(torch.from_numpy(joints))
        along = rig.camera_from_world.apply(torch.from_numpy(joints)[None])[0, :, 2].numpy()
        reported.append(visible_joints(pixels[0].numpy(), along, depth, HALPE26))
    # The line of sight over the crate's far edge (z 0.45 at x 1.05) comes down on the person's plane at about 0.22.
    low = joints[:, 2] < 0.18
    clear = joints[:, 2] > 0.45
    assert low.sum() >= 6 and not reported[1][low].any()
    assert np.array_equal(reported[0][clear], reported[1][clear]) and reported[1][clear].sum() > 12

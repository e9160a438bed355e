"""Rigs see the middle, crops hold what they are cut about."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mvpose.errors import ConfigError
from mvpose.rendering.camera_rigs import (
    DISTANCE_M,
    HEIGHT_M,
    STATIC_RIGS,
    finer,
    middle,
    random_rig,
    squares,
    static_rig,
)

PERSON = torch.tensor([[x, y, z] for x in (-0.3, 0.3) for y in (-0.3, 0.3) for z in (0.0, 0.9, 1.8)]).double()


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 10**6), num_views=st.integers(2, 31))
def test_every_camera_of_a_random_rig_sees_a_person_in_the_middle(seed, num_views):
    rig = random_rig(np.random.default_rng(seed), num_views)
    pixels, seen = rig.project(PERSON)
    assert seen.all() and len(rig) == num_views == len(set(rig.names))
    assert rig.inside(pixels).double().mean(dim=1).min() > 0.3
    centres = rig.centres_world.numpy()
    assert (centres[:, 2] >= HEIGHT_M[0]).all() and (centres[:, 2] <= HEIGHT_M[1]).all()
    far = np.linalg.norm(centres - [0.0, 0.0, 0.9], axis=1)
    assert (far > DISTANCE_M[0] - 0.3).all() and (far < DISTANCE_M[1] + 0.01).all()
    rotation = rig.camera_from_world.rotation
    torch.testing.assert_close(rotation @ rotation.mT, torch.eye(3).double().expand_as(rotation))


@pytest.mark.parametrize(("name", "count"), [("ring4", 4), ("ring8", 8), ("ring31", 31)])
def test_static_rigs_look_at_the_middle_of_the_floor(name, count):
    rig = static_rig(name)
    assert len(rig) == count and name in STATIC_RIGS
    np.testing.assert_allclose(middle(rig), [0.0, 0.0, 0.92], atol=0.05)
    pixels, seen = rig.project(PERSON)
    assert (seen & rig.inside(pixels)).all()


def test_an_unknown_rig_is_refused_by_name():
    with pytest.raises(ConfigError, match=r"ring5.*ring4, ring8, ring31"):
        static_rig("ring5")


def test_the_middle_of_cameras_side_by_side_is_before_them():
    rig = random_rig(np.random.default_rng(0), 2)
    one = rig.select(rig.names[:1])
    np.testing.assert_allclose(np.linalg.norm(middle(one) - one.centres_world[0].numpy()), 3.0, atol=1e-6)


@given(seed=st.integers(0, 10**6), side=st.sampled_from([64, 256]), margin=st.floats(1.0, 2.0))
@settings(max_examples=20, deadline=None)
def test_a_box_lies_in_the_middle_of_its_square_and_points_keep_their_places_in_it(seed, side, margin):
    rig = random_rig(np.random.default_rng(seed), 3)
    pixels, _ = rig.project(PERSON)
    low, high = pixels.amin(dim=1).numpy(), pixels.amax(dim=1).numpy()
    crop, box = squares(rig, np.concatenate([low, high], axis=1), margin, side)
    inside, _ = crop.project(PERSON)
    np.testing.assert_allclose(inside.amin(dim=1).numpy(), box[:, :2], atol=1e-6)
    np.testing.assert_allclose((box[:, :2] + box[:, 2:]) / 2, (side - 1) / 2, atol=1e-6)
    np.testing.assert_allclose((box[:, 2:] - box[:, :2]).max(axis=1), side / margin, atol=1e-6)
    twice, _ = finer(crop, 2).project(PERSON)
    torch.testing.assert_close(twice, (inside + 0.5) * 2 - 0.5)

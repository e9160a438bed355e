"""Training samples from a cache of tokens: labels, views that stay with their cameras, and wrong cameras."""

from dataclasses import replace

import numpy as np
import pytest
from safetensors.numpy import save_file

from mvpose.datasets.row_reader import RowReader
from mvpose.datasets.sample_table import write_samples
from mvpose.skeleton import HALPE26
from mvpose.training.order import Take
from mvpose.training.token_cache import TokenCache
from mvpose.training.token_reader import TokenReader, person_axes, token_labels, with_wrong_cameras
from mvpose.training.training_config import SamplesConfig, TokenCacheConfig
from tests.training.conftest import drawn_sample, people, ring

SIZE = (192, 256)
ROWS, VIEWS, VERSIONS, JOINTS, WIDTH = 12, 6, 2, 26, 8
QUIET = TokenCacheConfig(draws=1, exchanged_sides=0.0, another_person=0.0, wrong_camera=0.0)
SHIFT = np.array([0.02, 0.0, 0.05], np.float32)


def bodies() -> np.ndarray:
    """(ROWS J 3): random points, of which hips and shoulders are a torso that is turned about the vertical."""
    rng = np.random.default_rng(0)
    joints = rng.uniform([-0.5, -0.5, 0.5], [0.5, 0.5, 1.5], (ROWS, JOINTS, 3))
    for row in range(ROWS):
        angle = rng.uniform(0, 2 * np.pi)
        left = np.array([np.cos(angle), np.sin(angle), 0.0])
        for side, sign in (("left", 1), ("right", -1)):
            joints[row, HALPE26.index(f"{side}_hip")] = sign * 0.1 * left + [0, 0, 0.9]
            joints[row, HALPE26.index(f"{side}_shoulder")] = sign * 0.2 * left + [0, 0, 1.4]
    return joints.astype(np.float32)


@pytest.fixture
def cache(tmp_path, monkeypatch) -> TokenCache:
    """A cache of a table of rendered joints: tokens and matrices state their row, view and version."""
    uri = str(tmp_path / "samples.parquet")
    sample = drawn_sample(ring(), people(1)[0])
    write_samples(uri, [replace(sample, capture_id=str(i)) for i in range(ROWS)], sample.skeleton, "test")
    made = TokenCache(uri, "rtmpose_s_halpe26", QUIET, 0)
    assert RowReader(uri).num_groups == 1
    table = bodies()
    axes = person_axes(table, HALPE26)
    consensus = table + np.einsum("nba,b->na", axes, SHIFT)[:, None]
    consensus[3, 20] += [0.2, 0, 0]
    views = np.full((ROWS, JOINTS), 6, np.int32)
    views[4, 21] = 4
    tokens = np.zeros((ROWS, VIEWS, VERSIONS, JOINTS, WIDTH), np.float16)
    tokens[..., 0] = np.arange(ROWS)[:, None, None, None]
    tokens[..., 1] = np.arange(VIEWS)[:, None, None]
    tokens[..., 2] = np.arange(VERSIONS)[:, None]
    tokens[..., 3] = np.arange(JOINTS)
    matrix = np.array([[200.0, 96, 0, 384.0], [0, 128.0, -200, 700.0], [0, 1.0, 0, 4.0]])
    projections = np.broadcast_to(matrix, (ROWS, VIEWS, VERSIONS, 3, 4)).copy()
    projections[..., 0, 3] += 0.01 * np.arange(VIEWS)[:, None] + 0.1 * np.arange(VERSIONS)
    present = np.ones((ROWS, VIEWS), bool)
    present[5, 4:] = False
    (tmp_path / "samples.parquet.cache" / "tokens" / made.folder.rsplit("/", 1)[-1]).mkdir(parents=True)
    columns = {
        "tokens": tokens, "projections": projections, "present": present, "views": views, "table": table,
        "consensus": consensus.astype(np.float32),
    }  # fmt: skip
    save_file(columns, made.file(0))
    return made


def reader(cache: TokenCache, *, training: bool = True, **changes) -> TokenReader:
    changed = replace(cache, config=replace(QUIET, **changes))
    object.__setattr__(changed, "folder", cache.folder)
    return TokenReader(changed, SamplesConfig(views=6), SIZE, seed=1, training=training)


def take(step: int, epoch: int = 0) -> Take:
    return Take(step, epoch, tuple(range(ROWS)))


def test_labels_are_where_the_detectors_views_agree_without_those_that_the_table_contradicts(cache) -> None:
    """Fails if labels are the table's joints, if the offset is not removed before the comparison, or if it is in the
    world's axes instead of the person's."""
    labels = token_labels(cache)
    np.testing.assert_allclose(labels.offsets, np.broadcast_to(SHIFT, (JOINTS, 3)), atol=1e-5)
    missing = np.argwhere(np.isnan(labels.joints[..., 0]))
    assert missing.tolist() == [[3, 20], [4, 21]]
    assert np.abs(labels.joints[0] - bodies()[0]).max() == pytest.approx(0.05, abs=1e-5)


def test_a_view_keeps_its_tokens_and_its_camera(cache) -> None:
    """Fails if views, versions or rows of tokens and matrices are drawn separately."""
    for step in range(5):
        found = reader(cache)[take(step)]
        views, versions = found["crops"][..., 0, 1], found["crops"][..., 0, 2]
        there = found["present"]
        np.testing.assert_allclose(
            found["projections"][there][:, 0, 3], (384 + 0.01 * views + 0.1 * versions)[there], rtol=1e-6
        )
        assert (found["crops"][..., 0, 0][there] == np.broadcast_to(np.arange(ROWS)[:, None], there.shape)[there]).all()
        assert all(len(set(row[seen].tolist())) == seen.sum() for row, seen in zip(views, there, strict=True))


def test_steps_have_different_numbers_of_views_and_rows_without_enough_have_absent_ones(cache) -> None:
    counts = {reader(cache)[take(step)]["crops"].shape[1] for step in range(40)}
    assert counts == {2, 3, 4, 5, 6}
    found = next(f for step in range(40) if (f := reader(cache)[take(step)])["crops"].shape[1] == 6)
    assert found["present"].sum(axis=1).tolist() == [6] * 5 + [4] + [6] * 6
    assert not found["before"][5, 4:].any() and not found["crops"][5, 4:].any()


def test_validation_has_the_same_four_views_in_every_epoch(cache) -> None:
    held_out = reader(cache, training=False, wrong_camera=1.0, another_person=1.0)
    one, again = held_out[take(0)], held_out[take(7, epoch=3)]
    assert one["crops"].shape[1] == 4
    for name in one:
        np.testing.assert_array_equal(one[name], again[name])


def test_true_pixels_are_those_of_the_true_camera_even_if_the_network_gets_a_wrong_one(cache) -> None:
    """Fails if labels are projected by the disturbed matrices."""
    plain, wrong = reader(cache)[take(2)], reader(cache, wrong_camera=1.0)[take(2)]
    assert np.abs(plain["projections"] - wrong["projections"]).max() > 0.1
    np.testing.assert_array_equal(plain["joints_2d"], wrong["joints_2d"])


def test_left_and_right_and_people_are_exchanged_as_whole_views(cache) -> None:
    joints = reader(cache, exchanged_sides=1.0)[take(2)]["crops"][0, 0, :, 3]
    assert joints.tolist() == list(HALPE26.mirror)
    rows = reader(cache, another_person=1.0)[take(2)]["crops"][:, :, 0, 0]
    assert (rows != np.arange(ROWS)[:, None]).mean() > 0.8


def test_wrong_cameras_stay_in_place_and_turn_by_half_a_degree_at_most() -> None:
    matrix = ring().projections.numpy().astype(np.float64)
    config = replace(QUIET, wrong_camera=1.0)
    rng = np.random.default_rng(0)
    for _ in range(20):
        wrong = with_wrong_cameras(matrix, SIZE, config, rng)
        for true, off in zip(matrix, wrong, strict=True):
            np.testing.assert_allclose(
                np.linalg.solve(off[:, :3], off[:, 3]), np.linalg.solve(true[:, :3], true[:, 3]), atol=1e-6
            )
            axis, other = (m[2, :3] / np.linalg.norm(m[2, :3]) for m in (true, off))
            assert np.degrees(np.arccos(min(axis @ other, 1.0))) <= 0.5 + 1e-6
            ratio = np.linalg.norm(np.cross(off[0, :3], off[2, :3])) / np.linalg.norm(
                np.cross(true[0, :3], true[2, :3])
            )
            assert abs(ratio - 1) <= 0.0101
    assert with_wrong_cameras(matrix, SIZE, QUIET, rng) is matrix

"""The cache of tokens: made once, in the place of its settings, with a camera for each version's own crop."""

import os

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file

from mvpose.datasets.sample_table import write_samples
from mvpose.training import token_cache
from mvpose.training.token_cache import TokenCache
from mvpose.training.training_config import TokenCacheConfig
from tests.training.conftest import drawn_sample, people, ring

CONFIG = TokenCacheConfig(draws=1)


@pytest.fixture
def table(tmp_path) -> str:
    uri = str(tmp_path / "samples.parquet")
    samples = [drawn_sample(ring(lens=True), xyz, frame=i) for i, xyz in enumerate(people(2))]
    write_samples(uri, samples, samples[0].skeleton, "test")
    return uri


@pytest.mark.footage
def test_each_version_of_a_view_has_the_camera_of_its_own_crop_and_nothing_is_made_twice(
    table: str, weights: str, monkeypatch
) -> None:
    """Fails if versions share a camera, if a camera is not that of its crop, or if an existing file is made again."""
    monkeypatch.setenv("MVPOSE_WEIGHTS", weights)
    cache = TokenCache(table, "rtmpose_s_halpe26", CONFIG, 0)
    assert cache.groups() == [] and list(cache.make([0], processes=1)) == [0]
    found = load_file(cache.file(0))
    assert found["tokens"].shape == (2, 4, 2, 26, 256) and found["present"].all()
    assert np.isfinite(found["tokens"]).all() and (found["tokens"][:, :, 0] != found["tokens"][:, :, 1]).any()
    for row in range(2):
        sample = cache.table.sample(row)
        joints = torch.from_numpy(sample.xyz[sample.valid])
        pixels = sample.rig.to(torch.float64).project(joints)[0].numpy()
        matrix = found["projections"][row, :, 0]
        image = np.einsum("vij,nj->vni", matrix[..., :3], joints) + matrix[:, None, :, 3]
        own = image[..., :2] / image[..., 2:]
        assert (own > 0).all() and (own < [192, 256]).all()
        for view in range(4):
            # A crop is a scaled and shifted part of the distorted image.
            scale, shift = np.polyfit(pixels[view, :, 0], own[view, :, 0], 1)
            assert np.abs(scale * pixels[view, :, 0] + shift - own[view, :, 0]).max() < 0.8
        assert (np.abs(found["projections"][row, :, 1] - matrix).max(axis=(1, 2)) > 1e-3).all()
    before = os.stat(cache.file(0)).st_mtime_ns
    again = TokenCache(table, "rtmpose_s_halpe26", CONFIG, 0)
    assert list(again.make([0], processes=1)) == [0] and os.stat(again.file(0)).st_mtime_ns == before
    assert TokenCache(table, "rtmpose_s_halpe26", CONFIG, 1).folder != cache.folder
    assert TokenCache(table, "rtmpose_s_halpe26", TokenCacheConfig(draws=2), 0).folder != cache.folder
    step_only = TokenCacheConfig(draws=1, wrong_camera=0.9)
    assert TokenCache(table, "rtmpose_s_halpe26", step_only, 0).folder == cache.folder


@pytest.mark.footage
def test_labels_are_read_as_they_were_written(table: str, weights: str, monkeypatch) -> None:
    """The solver gives transposed arrays, whose memory is in another order than their axes."""
    monkeypatch.setenv("MVPOSE_WEIGHTS", weights)
    agreed = np.arange(78.0).reshape(3, 26).T
    views = np.arange(26)
    monkeypatch.setattr(token_cache._Maker, "_consensus", lambda *_: (agreed, views))
    cache = TokenCache(table, "rtmpose_s_halpe26", CONFIG, 0)
    list(cache.make([0], processes=1))
    found = load_file(cache.file(0))
    np.testing.assert_array_equal(found["consensus"], [agreed, agreed])
    np.testing.assert_array_equal(found["views"], [views, views])

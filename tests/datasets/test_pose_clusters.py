"""Clusters of a table's truth, and the way from the command to the score."""

from dataclasses import replace

import numpy as np
import pytest

from mvpose.commands import dataset, evaluate
from mvpose.datasets.sample import TEST, TRAIN
from mvpose.datasets.sample_table import write_samples
from mvpose.datasets.statistics import clusters_of
from mvpose.errors import ConfigError
from mvpose.skeleton import HUMAN36M17
from tests.benchmarks.test_detector_recall import sample
from tests.models.moving_people import people

ONE = sample()
SAMPLES = [
    replace(ONE, xyz=xyz, skeleton=HUMAN36M17, position=i, images=ONE.images, visible=np.ones((len(ONE.rig), 17), bool))
    for i, xyz in enumerate(people(60).numpy())
]


def test_place_and_size_do_not_count_and_incomplete_or_damaged_poses_are_left_out():
    found = clusters_of(SAMPLES, 5)
    holed = SAMPLES[0].xyz.copy()
    holed[3] = np.nan
    others = [replace(s, xyz=1.3 * s.xyz + 2.0) for s in SAMPLES]
    others += [replace(SAMPLES[0], xyz=holed), replace(SAMPLES[1], xyz=-SAMPLES[1].xyz, damaged=True)]
    again = clusters_of(others, 5)
    assert again.num_poses == found.num_poses == 60
    assert np.allclose(again.centroids, found.centroids, atol=1e-5)
    assert found.name == "PSS@5" and found.root == ("hip",)


def test_what_the_command_writes_evaluation_reads(tmp_path, capsys):
    """Of the training split alone. Fails if evaluated poses are among the clusters."""
    table, output = str(tmp_path / "table.parquet"), str(tmp_path / "clusters.safetensors")
    train = [replace(s, split=TRAIN) for s in SAMPLES[:40]]
    write_samples(table, [*train, *(replace(s, split=TEST) for s in SAMPLES[40:])], HUMAN36M17, "made up")
    assert dataset.run(dataset.Clusters(table=table, output=output, count=7)) == 0
    digest = clusters_of([replace(s, xyz=s.xyz.astype(np.float32).astype(np.float64)) for s in train], 7).digest
    assert f"PSS@7 of 40 poses, digest {digest}" in capsys.readouterr().out
    centroids = evaluate._centroids(output)
    assert centroids is not None and centroids.shape == (7, 17, 3)


def test_too_few_poses_and_none_are_errors():
    with pytest.raises(ConfigError, match="60 complete poses: 60 different poses cannot make 61 clusters"):
        clusters_of(SAMPLES, 61)
    with pytest.raises(ConfigError, match="these samples have none"):
        clusters_of([], 3)

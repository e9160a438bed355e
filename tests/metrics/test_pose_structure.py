import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file

from mvpose.errors import WeightsError
from mvpose.metrics.joint_errors import pose_structure_score, structure
from mvpose.metrics.pose_structure import cluster_poses, load_clusters, save_clusters
from mvpose.skeleton import HUMAN36M17
from tests.models.moving_people import people

POSES = people(600, seed=4)
CLUSTERS = cluster_poses(structure(POSES, [0]), 10, HUMAN36M17, ("hip",))


def test_clusters_far_apart_are_found_exactly_and_the_largest_comes_first():
    middles = structure(people(3, seed=8, bend=0.8), [0])
    poses = torch.cat([middles[i] + 0.01 * torch.randn(n, 17, 3).double() for i, n in enumerate((20, 60, 40))])
    poses = structure(poses, [0])
    found = cluster_poses(poses, 3, HUMAN36M17, ("hip",))
    for place, i in enumerate((1, 2, 0)):
        assert (found.centroids[place] - middles[i]).norm() < 0.1


def test_no_centre_is_better_than_the_mean_of_the_poses_nearest_to_it():
    flat = structure(POSES, [0]).flatten(1)
    nearest = torch.cdist(flat, CLUSTERS.centroids.double().flatten(1)).argmin(dim=1)
    for k, centre in enumerate(CLUSTERS.centroids.double().flatten(1)):
        assert torch.allclose(flat[nearest == k].mean(dim=0), centre, atol=1e-6)
    assert (nearest.bincount(minlength=10).diff() <= 0).all()


def test_clustering_tells_poses_apart_better_than_chance():
    flat = structure(POSES, [0]).flatten(1)
    within = torch.cdist(flat, CLUSTERS.centroids.double().flatten(1)).amin(dim=1).square().sum()
    around = (flat - flat.mean(dim=0)).square().sum()
    assert within < 0.75 * around


def test_the_same_seed_makes_the_same_clusters_and_another_does_not():
    poses = structure(POSES, [0])
    assert torch.equal(cluster_poses(poses, 10, HUMAN36M17, ("hip",)).centroids, CLUSTERS.centroids)
    assert not torch.equal(cluster_poses(poses, 10, HUMAN36M17, ("hip",), seed=1).centroids, CLUSTERS.centroids)


@settings(deadline=None, max_examples=20)
@given(scale=st.floats(0.05, 20.0), x=st.floats(-5, 5))
def test_size_and_place_do_not_count(scale, x):
    centroids = CLUSTERS.centroids.double()
    moved = POSES[:50] * scale + torch.tensor([x, -x, 1.0], dtype=torch.float64)
    assert (pose_structure_score(moved, POSES[:50], centroids, CLUSTERS.root_indices) == 1).all()


def test_a_pose_turned_round_is_another_structure():
    turned = POSES * torch.tensor([-1.0, -1.0, 1.0])
    score = pose_structure_score(turned, POSES, CLUSTERS.centroids.double(), CLUSTERS.root_indices)
    assert score.mean() < 0.5


def test_clusters_come_back_from_their_file(tmp_path):
    path = str(tmp_path / "pss10.safetensors")
    save_clusters(CLUSTERS, path)
    back = load_clusters(path)
    assert back.digest == CLUSTERS.digest
    assert back.digest != cluster_poses(structure(POSES, [0]), 10, HUMAN36M17, ("hip",), seed=1).digest
    assert torch.equal(back.centroids, CLUSTERS.centroids)
    assert (back.skeleton, back.root, back.seed, back.num_poses) == (HUMAN36M17, ("hip",), 0, 600)
    assert back.name == "PSS@10" and back.root_indices == [0]


def test_poses_that_are_not_normalised_are_refused():
    with pytest.raises(ValueError, match=r"metrics\.structure"):
        cluster_poses(POSES, 10, HUMAN36M17, ("hip",))


def test_poses_of_another_skeleton_are_refused():
    with pytest.raises(ValueError, match="poses have 16 joints, skeleton human36m17 has 17"):
        cluster_poses(structure(POSES[:, :16], [0]), 10, HUMAN36M17, ("hip",))


def test_fewer_different_poses_than_clusters_are_refused():
    twice = structure(POSES[:4].repeat(3, 1, 1), [0])
    with pytest.raises(ValueError, match="4 different poses cannot make 5 clusters"):
        cluster_poses(twice, 5, HUMAN36M17, ("hip",))


def test_a_file_that_is_something_else_is_refused(tmp_path):
    other, broken = str(tmp_path / "other.safetensors"), str(tmp_path / "broken.safetensors")
    save_file({"weight": torch.zeros(2)}, other)
    foreign = str(tmp_path / "foreign.safetensors")
    save_file({"centroids": torch.zeros(2, 4, 3)}, foreign, {"kind": "pose clusters", "skeleton": "octopus8"})
    with pytest.raises(WeightsError, match="skeleton octopus8, which this version does not have"):
        load_clusters(foreign)
    with open(broken, "wb") as file:
        file.write(b"no tensors here")
    with pytest.raises(WeightsError, match="contains weight, not pose clusters"):
        load_clusters(other)
    with pytest.raises(WeightsError, match="not a safetensors file"):
        load_clusters(broken)
    with pytest.raises(WeightsError, match="no pose clusters at"):
        load_clusters(str(tmp_path / "missing.safetensors"))

import itertools
import math

import numpy as np
import pytest
import torch
from torch.nn.functional import grid_sample

from mvpose.errors import ConfigError, TooFewViewsError
from mvpose.heatmaps import gaussian_targets
from mvpose.models.network_settings import PictorialConfig
from mvpose.models.volumes.heatmap_cameras import CropCameras
from mvpose.models.volumes.peaks import triangulated_peaks
from mvpose.models.volumes.pictorial import grid_centres, mean_limb_lengths, pictorial_poses
from mvpose.skeleton import COCO17, HUMAN36M17, Skeleton
from tests.models.moving_people import LENGTHS, noisy_heatmaps, people, project, ring

SIZE = 64
CHAIN = Skeleton("chain", ("a", "b", "c"), (("a", "b"), ("b", "c")))
FORK = Skeleton(
    "fork", ("leaf", "middle", "root", "other"), (("root", "middle"), ("middle", "leaf"), ("root", "other"))
)


def _scene(frames, offset_px=0.0, level=0.0, seed=3):
    truth = people(frames, seed, bend=0.35)
    projections = ring(4, SIZE)
    heatmaps = noisy_heatmaps(project(projections, truth), SIZE, offset_px, level, seed)
    return truth, heatmaps, CropCameras(projections.float().expand(frames, -1, -1, -1))


def reconstruct_poses(heatmaps, cameras, skeleton, config=None, view_weights=None):
    """Poses by the maps alone: the centre of the grid comes from them, and the limb lengths are the body's."""
    centre, agreed = grid_centres(heatmaps, cameras, skeleton, view_weights)
    assert agreed.all()
    return pictorial_poses(heatmaps, cameras, centre, LENGTHS.float(), skeleton, config, view_weights)


def _error_mm(poses, truth):
    return 1000 * (poses.points - truth).norm(dim=-1).mean().item()


def _random_maps(frames, joints, seed=0):
    """Maps without structure: every placement has a value of its own, so the best one is unique."""
    maps = torch.rand(frames, 3, joints, 12, 12, generator=torch.Generator().manual_seed(seed))
    return maps, CropCameras(ring(3, 12).float().expand(frames, -1, -1, -1))


def _sample(heatmap, pixel, mode):
    size = heatmap.shape[-1]
    where = (2 * torch.as_tensor(pixel, dtype=torch.float32) / (size - 1) - 1).reshape(1, 1, 1, 2)
    return float(grid_sample(heatmap[None, None], where, mode=mode, align_corners=True))


def _mean_heat(heatmaps, projections, joint, point, mode):
    total = 0.0
    for view in range(heatmaps.shape[0]):
        x = projections[view] @ np.append(point, 1.0)
        total += _sample(heatmaps[view, joint], x[:2] / x[2], mode)
    return total / heatmaps.shape[0]


def _prior(apart, length, config, pitch):
    if abs(apart - length) > config.tolerance_m:
        return -1000.0
    return 0.0 if config.softness_m is None else -0.5 * (apart - length) ** 2 / (config.softness_m**2 + pitch**2 / 6)


def _best_by_loops(heatmaps, projections, places, lengths, skeleton, config, pitch, mode):
    """The recursion as the paper writes it, one frame: for every joint, every place, every child's place."""
    children = {j: [] for j in range(len(skeleton.joints))}
    for bone, (a, b) in enumerate(skeleton.bone_indices):
        children[a].append((b, lengths[bone]))

    def solve(joint):
        """For every place of a joint: the best value of its subtree, and that subtree's places."""
        below = {child: solve(child) for child, _ in children[joint]}
        solved = []
        for place in places[joint]:
            value = math.log(max(_mean_heat(heatmaps, projections, joint, place, mode), 1e-4))
            chosen = {joint: place}
            for child, length in children[joint]:
                options = [
                    (worth + _prior(np.linalg.norm(place - there), length, config, pitch), subtree)
                    for there, (worth, subtree) in zip(places[child], below[child], strict=True)
                ]
                worth, subtree = max(options, key=lambda option: option[0])
                value, chosen = value + worth, chosen | subtree
            solved.append((value, chosen))
        return solved

    _, chosen = max(solve(skeleton.parents.index(-1)), key=lambda option: option[0])
    return np.stack([chosen[j] for j in range(len(skeleton.joints))])


def _pictorial_by_loops(heatmaps, projections, middle, lengths, skeleton, config):
    n = config.bins
    axis = [((i + 0.5) / n - 0.5) * config.side_m for i in range(n)]
    grid = [middle + np.array(step) for step in itertools.product(axis, axis, axis)]
    places = [grid] * len(skeleton.joints)
    points = _best_by_loops(heatmaps, projections, places, lengths, skeleton, config, config.side_m / n, "bilinear")
    for i in range(config.rounds):
        size = config.side_m / (n * 2**i)
        corners = [np.array(c) * size for c in itertools.product((-0.5, 0.5), repeat=3)]
        places = [[point + corner for corner in corners] for point in points]
        points = _best_by_loops(heatmaps, projections, places, lengths, skeleton, config, size, "bicubic")
    return points


@pytest.mark.parametrize("softness_m", [None, 0.05])
@pytest.mark.parametrize("skeleton", [CHAIN, FORK], ids=lambda s: s.name)
def test_the_batched_search_finds_what_plain_loops_find(skeleton, softness_m):
    joints = len(skeleton.joints)
    maps, cameras = _random_maps(2, joints)
    config = PictorialConfig(side_m=1.2, bins=4, rounds=2, tolerance_m=0.15, softness_m=softness_m)
    middle = torch.tensor([[0.0, 0.0, 0.9], [0.1, -0.05, 1.0]])
    lengths = torch.linspace(0.35, 0.6, joints - 1)
    found = pictorial_poses(maps, cameras, middle, lengths, skeleton, config).points
    for frame in range(2):
        expected = _pictorial_by_loops(
            maps[frame], cameras.projections[frame].double().numpy(), middle[frame].double().numpy(),
            lengths.tolist(), skeleton, config,
        )  # fmt: skip
        assert np.allclose(found[frame].numpy(), expected, atol=1e-4)


def test_no_placement_of_all_there_are_beats_the_one_found():
    maps, cameras = _random_maps(1, 3, seed=1)
    config = PictorialConfig(side_m=1.0, bins=3, rounds=0, softness_m=0.08)
    middle, lengths = torch.tensor([[0.0, 0.0, 0.95]]), torch.tensor([0.4, 0.5])
    found = pictorial_poses(maps, cameras, middle, lengths, CHAIN, config).points[0].double().numpy()
    matrices = cameras.projections[0].double().numpy()
    pitch = config.side_m / config.bins

    def heat(joint, point):
        return math.log(max(_mean_heat(maps[0], matrices, joint, point, "bilinear"), 1e-4))

    def limbs(points):
        pairs = zip(points[:-1], points[1:], lengths.tolist(), strict=True)
        return sum(_prior(math.dist(a, b), length, config, pitch) for a, b, length in pairs)

    axis = [-pitch, 0.0, pitch]
    grid = [middle[0].double().numpy() + np.array(step) for step in itertools.product(axis, repeat=3)]
    table = [[heat(joint, point) for point in grid] for joint in range(3)]
    best = max(
        sum(table[joint][k] for joint, k in enumerate(ks)) + limbs([grid[k] for k in ks])
        for ks in itertools.product(range(len(grid)), repeat=3)
    )
    assert sum(heat(j, point) for j, point in enumerate(found)) + limbs(found) >= best - 1e-5


def test_psm_shows_its_quantisation_and_rpsm_removes_it_without_true_root_or_limbs():
    truth, heatmaps, cameras = _scene(6)
    coarse = _error_mm(reconstruct_poses(heatmaps, cameras, HUMAN36M17, PictorialConfig(rounds=0)), truth)
    halved = PictorialConfig(bins=32, rounds=0)
    one = CropCameras(cameras.projections[:1])
    fine = _error_mm(reconstruct_poses(heatmaps[:1], one, HUMAN36M17, halved), truth[:1])
    recursive = _error_mm(reconstruct_poses(heatmaps, cameras, HUMAN36M17), truth)
    # A point in a cube of side s lies 0.48 s from its middle on average: 60 mm at 125 mm, 30 mm at 62.5 mm.
    assert 50 < coarse < 85
    assert 25 < fine < 42
    assert recursive < 5


def test_rpsm_cuts_the_error_of_psm_by_60_percent_on_noisy_maps():
    truth, heatmaps, cameras = _scene(12, offset_px=0.5, level=0.05)
    coarse = _error_mm(reconstruct_poses(heatmaps, cameras, HUMAN36M17, PictorialConfig(rounds=0)), truth)
    recursive = _error_mm(reconstruct_poses(heatmaps, cameras, HUMAN36M17), truth)
    assert recursive < 0.4 * coarse


def test_at_one_pixel_of_noise_rpsm_is_nearly_as_exact_as_the_peaks_allow():
    # 1 px is 37 mm here. The likeliest joints, by peaks known exactly, are 38 mm off; with the true limb lengths as
    # well, 32 mm. So no search can cut PSM's 75 mm by 60 %.
    truth, heatmaps, cameras = _scene(12, offset_px=1.0, level=0.05)
    noise = torch.randn(12, 4, 17, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(3))
    likeliest = truth.clone()
    for _ in range(5):
        likeliest = _gauss_newton_step(ring(4, SIZE), likeliest, project(ring(4, SIZE), truth) + noise)
    limit = 1000 * (likeliest - truth).norm(dim=-1).mean().item()
    assert 35 < limit < 42
    assert _error_mm(reconstruct_poses(heatmaps, cameras, HUMAN36M17), truth) < 1.1 * limit


def _gauss_newton_step(projections, points, pixels):
    """Towards the points whose projections are nearest to the pixels."""
    homogeneous = torch.cat([points, torch.ones_like(points[..., :1])], dim=-1)
    x = torch.einsum("vab,njb->nvja", projections, homogeneous)
    slope = (projections[:, None, :2, :3] - (x[..., :2] / x[..., 2:])[..., None] * projections[:, None, 2:, :3]) / x[
        ..., 2:, None
    ]
    off = (pixels - x[..., :2] / x[..., 2:]).movedim(1, 2).flatten(2)
    return points + torch.linalg.lstsq(slope.movedim(1, 2).flatten(2, 3), off[..., None]).solution[..., 0]


def test_a_limb_prior_finds_the_own_wrist_beside_a_brighter_one_of_somebody_else():
    truth, heatmaps, cameras = _scene(4)
    wrist = HUMAN36M17.index("left_wrist")
    other = truth[:, [wrist]] + torch.tensor([0.5, -0.4, -0.3])
    elsewhere = gaussian_targets(project(ring(4, SIZE), other), (SIZE, SIZE), 2.0)[:, :, 0].float()
    heatmaps[:, :, wrist] = torch.maximum(0.6 * heatmaps[:, :, wrist], elsewhere)
    found = pictorial_poses(heatmaps, cameras, truth[:, 0].float(), LENGTHS.float(), HUMAN36M17)
    assert (found.points[:, wrist] - truth[:, wrist]).norm(dim=-1).max() < 0.02
    fooled = triangulated_peaks(heatmaps, cameras).points[:, wrist]
    assert (fooled - other[:, 0]).norm(dim=-1).max() < 0.02


def test_a_soft_prior_holds_a_limb_whose_maps_are_flat_to_its_length():
    truth, heatmaps, cameras = _scene(3)
    wrist, elbow = HUMAN36M17.indices("right_wrist", "right_elbow")
    heatmaps[:, :, wrist] = 0.01
    config = PictorialConfig(softness_m=0.02)
    found = pictorial_poses(heatmaps, cameras, truth[:, 0].float(), LENGTHS.float(), HUMAN36M17, config).points
    length = (found[:, wrist] - found[:, elbow]).norm(dim=-1)
    assert (length - 0.25).abs().max() < 0.02


def test_a_view_of_weight_zero_is_as_good_as_absent():
    _, heatmaps, cameras = _scene(2)
    heatmaps[:, 2] = torch.rand(heatmaps[:, 2].shape)
    weights = torch.ones(2, 4)
    weights[:, 2] = 0
    kept = [0, 1, 3]
    config = PictorialConfig(bins=8, rounds=6)
    with_it = reconstruct_poses(heatmaps, cameras, HUMAN36M17, config, weights)
    without = reconstruct_poses(heatmaps[:, kept], CropCameras(cameras.projections[:, kept]), HUMAN36M17, config)
    assert torch.allclose(with_it.points, without.points, atol=1e-5)
    assert torch.allclose(with_it.confidence, without.confidence, atol=1e-5)


def test_confidence_is_the_heat_at_the_joint():
    _, heatmaps, cameras = _scene(2)
    heatmaps[:, :, 5] *= 0.25
    found = reconstruct_poses(heatmaps, cameras, HUMAN36M17)
    assert found.confidence[:, 5].sub(0.25).abs().max() < 0.02
    assert found.confidence[:, 6].sub(1.0).abs().max() < 0.05


def test_limb_lengths_are_means_over_poses_and_sides_that_show_both_ends():
    """Fails if the median, a hidden joint or one side alone counts."""
    points = people(9)
    valid = torch.ones(9, 17, dtype=torch.bool)
    hip, knee = HUMAN36M17.indices("left_hip", "left_knee")
    points[0, hip] = points[0, knee] + torch.tensor([0.0, 0.0, 1.34])
    bone = HUMAN36M17.bone_indices.index((hip, knee))
    found = mean_limb_lengths(points, valid, HUMAN36M17)
    assert found[bone].item() == pytest.approx((17 * 0.44 + 1.34) / 18)
    twin = HUMAN36M17.bone_indices.index(tuple(HUMAN36M17.indices("right_hip", "right_knee")))
    assert torch.isclose(found[twin], found[bone])
    points[:, hip] = 1e3
    valid[:, hip] = False
    assert torch.allclose(mean_limb_lengths(points, valid, HUMAN36M17), LENGTHS)


def test_a_limb_that_no_pose_shows_has_no_length():
    valid = torch.ones(2, 17, dtype=torch.bool)
    valid[:, HUMAN36M17.index("head")] = False
    found = mean_limb_lengths(people(2), valid, HUMAN36M17)
    assert [HUMAN36M17.bones[i] for i in found.isnan().nonzero()[:, 0]] == [("nose", "head")]


@pytest.mark.parametrize(
    "skeleton",
    [
        COCO17,
        Skeleton("loop", ("r", "a", "b"), (("a", "b"), ("b", "a"))),
        Skeleton("two parents", ("a", "b", "c"), (("a", "c"), ("b", "c"))),
    ],
    ids=lambda s: s.name,
)
def test_a_skeleton_that_is_no_tree_is_refused(skeleton):
    maps, cameras = _random_maps(1, len(skeleton.joints))
    with pytest.raises(ConfigError, match="is not a tree"):
        pictorial_poses(maps, cameras, torch.zeros(1, 3), torch.ones(len(skeleton.bones)), skeleton)


def test_one_view_is_too_few():
    maps, cameras = _random_maps(2, 3)
    weights = torch.tensor([[1.0, 1.0, 1.0], [0.0, 1.0, 0.0]])
    with pytest.raises(TooFewViewsError, match="frame 1 of the batch has 1 view"):
        pictorial_poses(maps, cameras, torch.zeros(2, 3), torch.ones(2), CHAIN, view_weights=weights)


def test_the_grid_is_centred_on_the_root_or_without_one_on_the_joints_that_are_found():
    truth, heatmaps, cameras = _scene(3)
    heatmaps[1, :, 0] = 0
    heatmaps[2] = 0
    centre, agreed = grid_centres(heatmaps, cameras, HUMAN36M17)
    assert agreed.tolist() == [True, True, False]
    assert (centre[0] - truth[0, 0]).norm() < 0.01
    assert (centre[1] - truth[1, 1:].mean(dim=0)).norm() < 0.02


def test_lengths_and_maps_must_fit_the_skeleton():
    maps, cameras = _random_maps(1, 3)
    with pytest.raises(ValueError, match="3 joints and 2 limbs, but there are 3 heatmaps and 5 lengths"):
        pictorial_poses(maps, cameras, torch.zeros(1, 3), torch.ones(5), CHAIN)


@pytest.mark.parametrize("wrong", [{"bins": 1}, {"rounds": -1}, {"tolerance_m": 0.0}, {"softness_m": -0.1}])
def test_settings_that_make_no_search_are_refused(wrong):
    with pytest.raises(ValueError, match="bins must be"):
        PictorialConfig(**wrong)

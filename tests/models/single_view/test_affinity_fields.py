import math

import pytest
import torch

from mvpose.heatmaps import gaussian_targets
from mvpose.models.single_view.affinity_fields import (
    GroupingConfig,
    affinity_targets,
    group_people,
    limb_scores,
    limb_tree,
    local_maxima,
    match,
)
from mvpose.skeleton import COCO17, HALPE26, HUMAN36M17, RENDERED, Skeleton
from tests.models.moving_people import people, project, ring

ARM = Skeleton("arm", ("shoulder", "elbow", "wrist"), (("shoulder", "elbow"), ("elbow", "wrist")))
SIZE = 256


def _crowd(seed, apart_px=6.0):
    """Five people who overlap in the image; only joints of one kind keep `apart_px` from each other."""
    for attempt in range(1000):
        generator = torch.Generator().manual_seed(1000 * seed + attempt)
        crowd = people(5, 1000 * seed + attempt, bend=0.3)
        crowd[..., :2] += torch.randn(5, 1, 2, dtype=torch.float64, generator=generator) * 0.5
        pixels = project(ring(1, SIZE, span=3.2), crowd)[:, 0].float()
        between = (pixels[:, None] - pixels).norm(dim=-1)[~torch.eye(5, dtype=torch.bool)]
        if between.min() > apart_px and pixels.min() > 3 and pixels.max() < SIZE - 4:
            return pixels
    raise AssertionError("no such crowd")


def _maps(pixels):
    heatmaps = gaussian_targets(pixels, (SIZE, SIZE), 1.2).amax(dim=0)
    present = torch.ones(pixels.shape[:2], dtype=torch.bool)
    return heatmaps, affinity_targets(pixels, present, HUMAN36M17, (SIZE, SIZE), 1.0)


def _boxes_overlap(pixels):
    low, high = pixels.amin(dim=1), pixels.amax(dim=1)
    return ((low[:, None] < high) & (low < high[:, None])).all(dim=-1).sum().item() - len(pixels)


@pytest.mark.parametrize(("matching", "seed"), [("optimal", 0), ("optimal", 1), ("optimal", 2), ("greedy", 2)])
def test_every_limb_of_five_overlapping_people_is_given_to_its_person(matching, seed):
    truth = _crowd(seed)
    assert _boxes_overlap(truth) >= 8
    found = group_people(*_maps(truth), HUMAN36M17, GroupingConfig(matching=matching))
    assert found.found.shape == (5, 17) and found.found.all()
    order = (found.points[:, None] - truth).norm(dim=-1).mean(dim=-1).argmin(dim=1)
    assert sorted(order.tolist()) == [0, 1, 2, 3, 4]
    assert (found.points - truth[order]).norm(dim=-1).max() < 0.75


def test_a_field_points_along_the_limb_near_it_and_nowhere_else():
    points = torch.tensor([[[4.0, 10.0], [16.0, 10.0], [16.0, 2.0]]])
    field = affinity_targets(points, torch.ones(1, 3, dtype=torch.bool), ARM, (24, 20), 1.0)
    assert field.shape == (2, 2, 20, 24)
    assert torch.equal(field[0, :, 11, 9], torch.tensor([1.0, 0.0]))
    assert torch.equal(field[1, :, 6, 15], torch.tensor([0.0, -1.0]))
    assert field[0, :, 12, 9].abs().max() == 0 and field[0, :, 10, 18].abs().max() == 0
    # Thirteen columns of three rows, and one pixel beyond each end.
    assert (field[0].norm(dim=0) > 0).sum() == 13 * 3 + 2


def test_where_limbs_cross_the_field_is_their_mean():
    points = torch.tensor([[[2.0, 8.0], [14.0, 8.0], [0.0, 0.0]], [[8.0, 14.0], [8.0, 2.0], [0.0, 0.0]]])
    field = affinity_targets(points, torch.tensor([[True, True, False]] * 2), ARM, (16, 16), 0.5)
    assert torch.allclose(field[0, :, 8, 8], torch.tensor([0.5, -0.5]))
    assert torch.allclose(field[0, :, 8, 4], torch.tensor([1.0, 0.0]))
    assert field[1].abs().max() == 0


def test_local_maxima_are_reported_between_the_pixels_highest_first():
    points = torch.tensor([[5.3, 7.8], [14.6, 3.25]])
    maps = gaussian_targets(points, (20, 16), 1.3) * torch.tensor([0.6, 1.0])[:, None, None]
    found = local_maxima(maps.amax(dim=0), 0.1)
    assert (found.points - points.flip(0)).abs().max() < 0.02
    assert found.heights[0] > 0.9 and found.heights[1] < 0.6


def test_a_plateau_is_one_candidate_and_noise_is_none():
    heatmap = torch.zeros(9, 9)
    heatmap[4, 4:6] = 1.0
    heatmap[1, 1] = 0.05
    assert len(local_maxima(heatmap, 0.1).points) == 1
    assert len(local_maxima(torch.zeros(5, 5), 0.1).points) == 0


def test_a_pair_is_worth_its_field_along_the_way_there_and_nothing_the_wrong_way():
    starts, stops = torch.tensor([[4.0, 4.0], [4.0, 20.0]]), torch.tensor([[16.0, 4.0], [16.0, 20.0]])
    points = torch.stack([starts, stops, stops], dim=1)
    present = torch.tensor([[True, True, False]] * 2)
    field = affinity_targets(points, present, ARM, (32, 32), 1.0)[0]
    assert torch.allclose(limb_scores(field, starts, stops), torch.eye(2), atol=1e-5)
    assert limb_scores(field, stops, starts).abs().max() == 0


def test_a_line_longer_than_half_the_image_is_worth_less():
    field = torch.zeros(2, 20, 40)
    field[0] = 1.0
    score = limb_scores(field, torch.tensor([[2.0, 5.0]]), torch.tensor([[10.0, 5.0], [22.0, 5.0]]))
    assert torch.allclose(score, torch.tensor([[1.0, 0.5]]))


def test_a_line_that_leaves_the_limb_is_no_limb():
    field = torch.zeros(2, 20, 20)
    field[0, :, :9] = 1.0
    score = limb_scores(field, torch.tensor([[1.0, 5.0]]), torch.tensor([[8.0, 5.0], [19.0, 5.0]]))
    assert score[0, 0] > 0.9 and score[0, 1] == 0
    lenient = GroupingConfig(min_share=0.3)
    assert limb_scores(field, torch.tensor([[1.0, 5.0]]), torch.tensor([[18.0, 5.0]]), lenient) > 0


def test_optimal_matching_gives_up_the_best_pair_for_the_better_sum():
    scores = torch.tensor([[0.9, 0.8], [0.8, 0.0]])
    assert match(scores, "greedy") == [(0, 0)]
    assert sorted(match(scores, "optimal")) == [(0, 1), (1, 0)]


@pytest.mark.parametrize("matching", ["greedy", "optimal"])
def test_a_candidate_is_matched_once_and_only_where_there_is_a_limb(matching):
    scores = torch.tensor([[0.9, 0.5, 0.0], [0.7, 0.6, 0.0], [0.0, 0.0, 0.0]])
    assert sorted(match(scores, matching)) == [(0, 0), (1, 1)]
    assert match(torch.zeros(0, 3), matching) == []


def test_a_joint_that_one_person_lacks_is_reported_as_not_found():
    truth = _crowd(3)
    present = torch.ones(5, 17, dtype=torch.bool)
    wrist = HUMAN36M17.index("left_wrist")
    present[2, wrist] = False
    maps = gaussian_targets(torch.where(present[..., None], truth, torch.full_like(truth, math.nan)), (SIZE, SIZE), 1.2)
    fields = affinity_targets(truth, present, HUMAN36M17, (SIZE, SIZE), 1.0)
    found = group_people(maps.amax(dim=0), fields, HUMAN36M17)
    who = (found.points[:, 0] - truth[2, 0]).norm(dim=-1).argmin()
    assert not found.found[who, wrist]
    assert found.found.sum() == 5 * 17 - 1
    assert who == len(found.scores) - 1


def test_two_halves_of_a_person_become_one_when_a_later_bone_joins_them():
    chain = Skeleton("chain", ("a", "b", "c", "d"), (("a", "b"), ("c", "d"), ("b", "c")))
    points = torch.tensor([[[3.0, 5.0], [10.0, 5.0], [17.0, 5.0], [24.0, 5.0]]])
    fields = affinity_targets(points, torch.ones(1, 4, dtype=torch.bool), chain, (30, 12), 1.0)
    maps = gaussian_targets(points, (30, 12), 1.0).amax(dim=0)
    assert group_people(maps, fields, chain).found.tolist() == [[True] * 4]
    apart = fields.clone()
    apart[2] = 0
    assert group_people(maps, apart, chain, GroupingConfig(min_joints=2)).found.sum(dim=1).tolist() == [2, 2]
    assert len(group_people(maps, apart, chain).scores) == 0


def test_a_person_gets_no_second_elbow():
    loop = Skeleton("loop", ("a", "b", "c"), (("a", "b"), ("b", "c"), ("a", "c")))
    maps = torch.zeros(3, 12, 30)
    maps[0, 5, 3], maps[1, 5, 10], maps[2, 5, 17], maps[2, 9, 6] = 1.0, 1.0, 1.0, 0.9
    fields = torch.zeros(3, 2, 12, 30)
    fields[0, 0], fields[1, 0] = 1.0, 1.0
    fields[2] = torch.nn.functional.normalize(torch.tensor([3.0, 4.0]), dim=0)[:, None, None]
    found = group_people(maps, fields, loop)
    assert found.points.tolist() == [[[3.0, 5.0], [10.0, 5.0], [17.0, 5.0]]]


def test_maps_that_do_not_fit_the_skeleton_are_refused():
    with pytest.raises(ValueError, match="3 joints and 2 bones, but there are 3 heatmaps and 4 fields"):
        group_people(torch.zeros(3, 8, 8), torch.zeros(4, 2, 8, 8), ARM)


def test_a_pair_with_too_few_samples_on_the_limb_scores_nothing_however_strong_these_are():
    field = torch.zeros(2, 90, 40)
    field[0, :, :16] = 1.0
    start, stop = torch.tensor([[0.0, 10.0]]), torch.tensor([[39.0, 10.0]])
    # The first four of ten samples are on the limb: a mean of 0.4, and a share of 0.4.
    config = GroupingConfig(min_share=0.5)
    assert float(limb_scores(field, start, stop, config)) == 0.0
    assert float(limb_scores(field, start, stop, GroupingConfig(min_share=0.35))) > 0.0
    # Samples that are barely along the field do not count, however many they are.
    weak = torch.zeros(2, 90, 40)
    weak[0] = 0.04
    assert float(limb_scores(weak, start, stop, config)) == 0.0


@pytest.mark.parametrize("skeleton", [RENDERED, HALPE26, COCO17])
def test_hips_hang_from_the_neck_if_there_is_one_and_nothing_else_changes(skeleton):
    """Fails if a hip keeps its bone to the pelvis: a pixel of the map."""
    tree = limb_tree(skeleton)
    assert tree.joints == skeleton.joints and len(tree.bones) == len(skeleton.bones)
    moved = {(a, b) for a, b in zip(skeleton.bones, tree.bones, strict=True) if a != b}
    hung = {(("hip", hip), ("neck", hip)) for hip in ("left_hip", "right_hip")}
    assert moved == (hung if "neck" in skeleton.joints else set())

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mvpose.datasets.shelf_campus import SHELF14
from mvpose.metrics.part_scores import PARTS, PartScore, part_score, pcp

LEFT_ELBOW, LEFT_WRIST = SHELF14.index("left_elbow"), SHELF14.index("left_wrist")


def people(seed: int, frames: int = 5, count: int = 3) -> torch.Tensor:
    """Bodies of one build, 2 m apart."""
    rng = np.random.default_rng(seed)
    body = rng.normal(0, 0.4, (len(SHELF14.joints), 3))
    body = body + 2.0 * np.arange(count)[:, None, None] * np.array([1.0, 0, 0])
    return torch.from_numpy(np.broadcast_to(body, (frames, *body.shape)).copy())


def everywhere(poses: torch.Tensor) -> torch.Tensor:
    return torch.ones(poses.shape[:2], dtype=torch.bool)


def score(predicted: torch.Tensor, truth: torch.Tensor, alpha: float = 0.5) -> PartScore:
    return part_score(predicted, everywhere(predicted), truth, everywhere(truth), SHELF14, alpha=alpha)


def test_ten_bones_are_counted_for_each_actor_and_frame():
    truth = people(0)
    found = score(truth, truth)
    assert found.total.sum(dim=1).tolist() == [50, 50, 50]
    assert dict(zip(found.parts, found.total[0].tolist(), strict=True)) == {
        name: 5 * len(bones) for name, bones in PARTS.items()
    }
    assert found.by_actor.tolist() == [1.0, 1.0, 1.0] and found.average([0, 1, 2]) == 1.0


def test_a_bone_is_right_up_to_half_its_length_of_mean_error_of_its_ends():
    """Counted by hand: one end off by d gives a mean of d / 2, and the lower arm bears it up to alpha of its length."""
    truth = people(1, frames=1, count=1)
    length = (truth[0, 0, LEFT_ELBOW] - truth[0, 0, LEFT_WRIST]).norm()
    for factor, right in ((0.99, 2), (1.01, 1)):
        off = truth.clone()
        off[0, 0, LEFT_WRIST] += torch.tensor([0.0, 0.0, 1.0]) * length * factor
        found = score(off, truth)
        assert found.correct[0, found.parts.index("lower_arms")] == right
        assert found.correct[0].sum() == 10 - (2 - right)
    assert score(off, truth, alpha=0.6).by_actor[0] == 1.0


def test_the_torso_ends_between_the_hips():
    truth = people(2, frames=1, count=1)
    off = truth.clone()
    for joint, sign in (("left_hip", 1.0), ("right_hip", -1.0)):  # the hips part; the point between them stays
        off[0, 0, SHELF14.index(joint)] += sign * torch.tensor([0.0, 5.0, 0.0])
    found = score(off, truth)
    assert found.by_part[0, found.parts.index("torso")] == 1.0
    assert found.by_part[0, found.parts.index("upper_legs")] == 0.0


@given(seed=st.integers(0, 1000))
@settings(max_examples=15, deadline=None)
def test_the_order_of_predictions_and_people_who_are_not_there_change_nothing(seed):
    rng = np.random.default_rng(seed)
    truth = people(seed)
    predicted = truth + torch.from_numpy(rng.normal(0, 0.2, truth.shape))
    plain = score(predicted, truth)
    order = rng.permutation(3)
    ghosts = torch.cat([predicted[:, order], truth[:, :1]], dim=1)
    found = everywhere(ghosts)
    found[:, 3] = False
    again = part_score(ghosts, found, truth, everywhere(truth), SHELF14)
    assert torch.equal(again.correct, plain.correct)


def test_an_actor_whom_nobody_predicted_is_wrong_and_one_who_is_not_annotated_does_not_count():
    truth = people(4)
    present = everywhere(truth)
    present[2:, 1] = False
    present[:, 2] = False
    found = everywhere(truth)
    found[0] = False
    result = part_score(truth, found, truth, present, SHELF14)
    assert result.total.sum(dim=1).tolist() == [50, 20, 0]
    assert result.correct.sum(dim=1).tolist() == [40, 10, 0]
    assert result.by_actor[:2].tolist() == pytest.approx([0.8, 0.5]) and result.by_actor[2].isnan()
    nobody = part_score(truth[:, :0], everywhere(truth)[:, :0], truth, present, SHELF14)
    assert nobody.correct.sum() == 0 and nobody.total.sum() == 70


def test_a_joint_that_was_not_predicted_makes_its_bones_wrong_alone():
    truth = people(5, frames=1, count=1)
    predicted = truth.clone()
    predicted[0, 0, LEFT_ELBOW] = torch.nan
    found = score(predicted, truth)
    lost = {part: int(t - c) for part, c, t in zip(found.parts, found.correct[0], found.total[0], strict=True)}
    assert {part for part, n in lost.items() if n} == {"upper_arms", "lower_arms"} and sum(lost.values()) == 2


def test_the_average_is_over_actors_not_over_bones():
    counts = PartScore(("head",), torch.tensor([[1], [100]]), torch.tensor([[1], [200]]))
    assert counts.average([0, 1]) == pytest.approx(0.75)


def test_pcp_of_single_poses_agrees_with_the_score_of_parts():
    """Over the bones of PARTS that end in joints (all but the torso), of one actor."""
    truth = people(6, frames=40, count=1)
    predicted = truth + torch.from_numpy(np.random.default_rng(0).normal(0, 0.2, truth.shape))
    bones = [
        (SHELF14.index(start), SHELF14.index(stop))
        for part, ends in PARTS.items()
        if part != "torso"
        for (start,), (stop,) in ends
    ]
    found = score(predicted, truth)
    rest = [i for i, part in enumerate(found.parts) if part != "torso"]
    expected = found.correct[0, rest].sum() / found.total[0, rest].sum()
    single = pcp(predicted[:, 0], truth[:, 0], bones)
    assert 0.2 < expected < 0.9
    torch.testing.assert_close(single.mean(), expected.to(single))


def test_pcp_leaves_out_bones_that_do_not_count_and_keeps_those_that_were_not_predicted():
    truth = people(7, frames=1, count=1)[:, 0]
    predicted = truth.clone()
    predicted[0, LEFT_WRIST] = torch.nan
    arm = [(SHELF14.index("left_shoulder"), LEFT_ELBOW), (LEFT_ELBOW, LEFT_WRIST)]
    assert pcp(predicted, truth, arm).item() == 0.5
    mask = torch.ones(truth.shape[:2], dtype=torch.bool)
    mask[0, LEFT_WRIST] = False
    assert pcp(predicted, truth, arm, mask).item() == 1.0
    assert pcp(predicted, truth, arm, torch.zeros_like(mask)).isnan()

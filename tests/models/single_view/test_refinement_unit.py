import torch

from mvpose.metrics.joint_errors import mpjpe
from mvpose.models.single_view.refinement_unit import RefinementUnit
from tests.models.moving_people import people


def test_the_unit_is_as_large_as_published():
    unit = RefinementUnit(15)
    linear = sum(p.numel() for p in unit.parameters() if p.ndim == 2)
    # Two stages of four layers; into the unit, out of each stage, and back in between.
    assert linear == 2 * 4 * 1024**2 + 4 * 45 * 1024


def test_both_skips_carry_the_pose_past_layers_that_say_nothing():
    torch.manual_seed(0)
    unit = RefinementUnit(4, width=8).eval()
    for module in unit.stages.modules():
        if isinstance(module, torch.nn.BatchNorm1d):
            module.weight.data.zero_()
    poses = torch.randn(6, 4, 3)
    start = unit.enter(unit.standard(poses.flatten(1)))
    first = unit.leave[0](start)
    second = unit.leave[1](unit.again(first) + start + start)
    for found, expected in zip(unit(poses), (first, second), strict=True):
        assert torch.allclose(found.flatten(1), expected, atol=1e-6)


def test_poses_leave_in_the_units_in_which_they_entered():
    torch.manual_seed(0)
    unit = RefinementUnit(4, width=8).eval()
    mean, poses = torch.randn(12), torch.randn(6, 4, 3)
    for end in unit.leave:
        end.weight.data.zero_()
        end.bias.data.fill_(2.0)
    unit.standard.running_mean, unit.standard.running_var = mean, torch.full((12,), 9.0)
    for stage in unit(poses):
        assert torch.allclose(stage.flatten(1), (mean + 6.0).expand(6, 12))


def test_poses_of_any_size_enter_standardised():
    torch.manual_seed(0)
    unit, poses = RefinementUnit(4, width=8), 3.0 + 50.0 * torch.randn(400, 4, 3)
    unit.standard.momentum = None
    unit(poses)
    assert unit.eval().standard(poses.flatten(1)).std(dim=0).sub(1.0).abs().max() < 0.01


def test_the_second_stage_hears_the_first_one_s_answer():
    torch.manual_seed(0)
    unit = RefinementUnit(4, width=8).eval()
    poses = torch.randn(3, 4, 3)
    before = unit(poses)
    list(unit.leave.parameters())[1].data += 1.0
    after = unit(poses)
    assert (after[0] - before[0]).abs().min() > 0.5
    assert (after[1] - before[1]).abs().max() > 1e-3


def test_the_unit_learns_to_take_noise_away():
    torch.manual_seed(0)
    clean = people(3000, 1, bend=0.25)[:, 1:].float()
    clean = clean - clean.mean(dim=1, keepdim=True)
    noisy = clean + 0.08 * torch.randn_like(clean)
    unit = RefinementUnit(16, width=128, dropout=0.1)
    optimiser = torch.optim.Adam(unit.parameters(), lr=2e-3)
    for step in range(250):
        some = slice(step % 27 * 100, step % 27 * 100 + 100)
        loss = sum((stage - clean[some]).norm(dim=-1).mean() for stage in unit(noisy[some]))
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    with torch.no_grad():
        _, refined = unit.eval()(noisy[2700:])
    assert mpjpe(refined, clean[2700:]).mean() < 0.8 * mpjpe(noisy[2700:], clean[2700:]).mean()

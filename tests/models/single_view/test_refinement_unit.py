import torch

from mvpose.metrics.joint_errors import mpjpe
from mvpose.models.single_view.refinement_unit import RefinementUnit
from tests.models.moving_people import people


def test_the_unit_is_as_large_as_published():
    unit = RefinementUnit(15)
    linear = sum(p.numel() for p in unit.parameters() if p.ndim == 2)
    # Two stages of four layers; into the unit, out of each stage, and back in between.
    assert linear == 2 * 4 * 1024**2 + 4 * 45 * 1024


def test_both_stages_answer_in_the_units_of_the_clean_poses():
    unit = RefinementUnit(4, width=8).eval()
    unit.fit_units(torch.randn(100, 4, 3), torch.randn(100, 4, 3) * 1e-3 + 50.0)
    for stage in unit(torch.randn(6, 4, 3)):
        assert stage.shape == (6, 4, 3)
        assert (stage - 50.0).abs().max() < 0.1


def test_the_second_stage_hears_the_first_one_s_answer():
    torch.manual_seed(0)
    unit = RefinementUnit(4, width=8).eval()
    poses = torch.randn(3, 4, 3)
    before = unit(poses)
    list(unit.leave.parameters())[1].data += 1.0
    after = unit(poses)
    assert (after[0] - before[0]).abs().min() > 0.5
    assert (after[1] - before[1]).abs().max() > 1e-3


def test_the_loss_counts_both_stages_on_standardised_poses():
    unit = RefinementUnit(2, width=4)
    clean = torch.zeros(3, 2, 3)
    unit.clean.deviation.fill_(2.0)
    assert unit.loss((clean + 2.0, clean + 4.0), clean).item() == 1.0 + 4.0
    assert unit.loss((clean, clean), clean).item() == 0.0


def test_the_unit_learns_to_take_noise_away():
    torch.manual_seed(0)
    clean = people(3000, 1, bend=0.25)[:, 1:].float()
    clean = clean - clean.mean(dim=1, keepdim=True)
    noisy = clean + 0.08 * torch.randn_like(clean)
    unit = RefinementUnit(16, width=128, dropout=0.1)
    unit.fit_units(noisy[:2700], clean[:2700])
    optimiser = torch.optim.Adam(unit.parameters(), lr=2e-3)
    for step in range(250):
        some = slice(step % 27 * 100, step % 27 * 100 + 100)
        loss = unit.loss(unit(noisy[some]), clean[some])
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    with torch.no_grad():
        _, refined = unit.eval()(noisy[2700:])
    assert mpjpe(refined, clean[2700:]).mean() < 0.8 * mpjpe(noisy[2700:], clean[2700:]).mean()

import math

import numpy as np
import pytest
import scipy.linalg
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mvpose.metrics import joint_errors as metrics

ROOT = (0,)


def poses(seed: int, *shape: int) -> torch.Tensor:
    return torch.randn(*(shape or (6, 5)), 3, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def rotation(seed: int) -> torch.Tensor:
    q, _ = torch.linalg.qr(poses(seed, 3))
    return q * torch.linalg.det(q)


def test_known_values():
    truth = torch.zeros(1, 4, 3)
    predicted = truth.clone()
    predicted[0, 1, 0] = 0.3
    predicted[0, 2, 1] = 0.1
    assert metrics.mpjpe(predicted, truth).item() == pytest.approx(0.1)
    assert metrics.pck(predicted, truth, ROOT).item() == pytest.approx(0.75)
    # Two exact joints count at all four thresholds, the one at 0.1 m at two of them, the one at 0.3 m at none.
    assert metrics.auc(predicted, truth, ROOT, thresholds=[0.0, 0.05, 0.12, 0.15]).item() == pytest.approx(2.5 / 4)
    shifted = truth + 1.0
    assert metrics.mpjpe(shifted, truth).item() == pytest.approx(math.sqrt(3))
    assert metrics.mpjpe_relative(shifted, truth, ROOT).item() == 0


@settings(deadline=None, max_examples=30)
@given(seed=st.integers(0, 999), scale=st.floats(0.2, 4.0))
def test_what_each_alignment_takes_out(seed, scale):
    truth = poses(seed)
    moved = truth + torch.tensor([1.0, 2.0, 3.0], dtype=torch.float64)
    grown = (moved - moved[:, :1]) * scale + moved[:, :1]
    turned = grown @ rotation(seed).T
    tiny = {"atol": 1e-9}
    zero = torch.zeros(6, dtype=torch.float64)
    assert torch.allclose(metrics.mpjpe_relative(moved, truth, ROOT), zero, **tiny)
    assert torch.allclose(metrics.n_mpjpe(grown, truth, ROOT), zero, **tiny)
    assert torch.allclose(metrics.pa_mpjpe(turned, truth), zero, **tiny)
    mirrored = truth * torch.tensor([-1.0, 1.0, 1.0], dtype=torch.float64)
    assert metrics.pa_mpjpe(mirrored, truth).min() > 1e-3


def test_procrustes_is_that_of_scipy_where_no_mirror_image_fits_better():
    truth = poses(1)
    predicted = truth + 0.1 * poses(2)
    for p, g, found in zip(predicted.numpy(), truth.numpy(), metrics.pa_mpjpe(predicted, truth), strict=True):
        p0, g0 = p - p.mean(0), g - g.mean(0)
        turn, scale = scipy.linalg.orthogonal_procrustes(p0, g0)
        fitted = p0 @ turn * scale / (p0**2).sum()
        assert found.item() == pytest.approx(np.linalg.norm(fitted - g0, axis=1).mean())


def test_the_fitted_scale_is_the_best_one_in_squares():
    predicted, truth = poses(1, 1, 5), poses(2, 1, 5)
    scaled, relative = metrics.fitted_scale(predicted, truth, ROOT)
    best = (scaled - relative).square().sum()
    for factor in (0.99, 1.01):
        assert (scaled * factor - relative).square().sum() > best


def test_two_hips_make_a_root():
    relative = metrics.root_relative(poses(0), (1, 2))
    assert torch.allclose(relative[:, 1:3].mean(dim=1), torch.zeros(6, 3, dtype=torch.float64))


def test_velocity_errors_ignore_a_constant_offset_and_know_frame_steps():
    truth = poses(0, 7, 5)
    assert torch.allclose(metrics.mpjve(truth + 1.0, truth), torch.zeros(6, dtype=torch.float64))
    drift = torch.arange(7.0, dtype=torch.float64)[:, None, None] * torch.tensor([0.0, 0.02, 0.0])
    assert torch.allclose(metrics.mpjve(truth + drift, truth), torch.full((6,), 0.02, dtype=torch.float64))


@pytest.mark.parametrize(
    "metric",
    [
        metrics.mpjpe,
        metrics.pa_mpjpe,
        lambda p, g, m: metrics.mpjpe_relative(p, g, ROOT, m),
        lambda p, g, m: metrics.n_mpjpe(p, g, ROOT, m),
        lambda p, g, m: metrics.pck(p, g, ROOT, m, threshold=1.0),
        lambda p, g, m: metrics.npck(p, g, ROOT, m, threshold=1.0),
        lambda p, g, m: metrics.auc(p, g, ROOT, m, thresholds=(0.5, 1.0, 2.0)),
    ],
)
def test_a_masked_joint_equals_an_absent_one_and_a_batch_equals_its_poses(metric):
    predicted, truth = poses(1), poses(2)
    mask = torch.ones(6, 5, dtype=torch.bool)
    mask[:, 3] = False
    predicted[:, 3] = float("nan")
    keep = [0, 1, 2, 4]
    masked = metric(predicted, truth, mask)
    absent = metric(predicted[:, keep], truth[:, keep], mask[:, keep])
    assert torch.allclose(masked, absent)
    assert torch.allclose(masked, torch.stack([metric(predicted[i], truth[i], mask[i]) for i in range(6)]))
    assert metric(predicted, truth, torch.zeros_like(mask)).isnan().all()


def test_joint_detection_rate_counts_joints_within_half_a_head():
    truth = torch.zeros(2, 4, 2)
    predicted = truth.clone()
    predicted[:, 0, 0] = 9.0
    rate = metrics.joint_detection_rate(predicted, truth, torch.tensor([20.0, 16.0]))
    assert rate.tolist() == [1.0, 0.75]


def test_structure_score_compares_clusters_whatever_place_and_size():
    centroids = metrics.structure(poses(5, 4, 5), ROOT)
    truth = poses(5, 4, 5)
    same = truth * 3 + 2.0
    assert metrics.pose_structure_score(same, truth, centroids, ROOT).tolist() == [1.0] * 4
    assert metrics.pose_structure_score(truth.roll(1, 0), truth, centroids, ROOT).tolist() == [0.0] * 4


def twin_score(predicted, score, found, truth, present, thresholds):
    """The protocol in plain loops."""
    rows = []
    for t in range(len(truth)):
        for p in np.flatnonzero(found[t]):
            errors = [
                (np.linalg.norm(predicted[t, p] - truth[t, q], axis=1).mean(), q) for q in np.flatnonzero(present[t])
            ]
            rows.append((score[t, p], *(min(errors) if errors else (np.inf, 0)), t))
    rows.sort(key=lambda row: -row[0])
    answers = []
    for limit in thresholds:
        seen, hits = set(), []
        for _, error, q, t in rows:
            hits.append(error < limit and (t, q) not in seen)
            seen |= {(t, q)} if hits[-1] else set()
        hits = np.cumsum(hits)
        precision, recall = hits / np.arange(1, len(hits) + 1), hits / present.sum()
        area = sum(
            precision[i:].max() * (recall[i] - (recall[i - 1] if i else 0.0)) for i in range(len(hits))
        )  # fmt: skip
        answers.append((area, recall[-1]))
    return np.array(answers)


@settings(deadline=None, max_examples=30)
@given(seed=st.integers(0, 9999))
def test_multi_person_score_equals_plain_loops(seed):
    generator = torch.Generator().manual_seed(seed)
    truth = poses(seed, 6, 3, 4)
    predicted = torch.cat([truth[:, torch.randperm(3, generator=generator)], poses(seed + 1, 6, 1, 4)], dim=1)
    predicted = predicted + 0.06 * poses(seed + 2, 6, 4, 4)
    predicted[:, 1] = predicted[:, 0] + 0.01  # two predictions of one person
    score, found = torch.rand(6, 4, generator=generator), torch.rand(6, 4, generator=generator) > 0.2
    present = torch.rand(6, 3, generator=generator) > 0.2
    present[0, 0] = found[0, 0] = True
    result = metrics.multi_person_score(predicted, score, found, truth, present, thresholds_m=(0.05, 0.1, 0.15, 0.5))
    expected = twin_score(*(x.numpy() for x in (predicted, score, found, truth, present)), (0.05, 0.1, 0.15, 0.5))
    assert torch.allclose(result.average_precision.double(), torch.tensor(expected[:, 0]))
    assert torch.allclose(result.recall.double(), torch.tensor(expected[:, 1]))


def test_perfect_poses_have_full_precision_and_no_pose_has_none():
    truth, all_there = poses(0, 3, 2, 4), torch.ones(3, 2, dtype=torch.bool)
    score = torch.rand(3, 2)
    perfect = metrics.multi_person_score(truth, score, all_there, truth, all_there)
    assert torch.allclose(perfect.average_precision, torch.ones(7, dtype=torch.float64))
    assert perfect.matched_mpjpe_m == 0
    nobody = metrics.multi_person_score(truth, score, ~all_there, truth, all_there)
    assert not nobody.average_precision.any()
    assert not nobody.recall.any()
    assert nobody.matched_mpjpe_m.isnan()

"""PSM and RPSM as the 3D step of networks whose maps are known."""

import pytest
import torch

from mvpose.errors import ConfigError
from mvpose.heatmaps import argmax, gaussian_targets, resized_points
from mvpose.models.multiview import Decoding, MultiViewPrediction, open_views, triangulated
from mvpose.models.network_settings import (
    AlgebraicMethod,
    CrossViewConfig,
    CrossViewMethod,
    FusionConfig,
    FusionMethod,
    PictorialConfig,
    TokenMethod,
    VolumetricMethod,
)
from mvpose.models.onnx_export import export_onnx
from mvpose.models.pictorial_step import PictorialStep, bone_name, evidence, solved_by
from mvpose.skeleton import HUMAN36M17
from tests.models.moving_people import LENGTHS, people, project, ring

SIZE, GRID = (256, 256), (64, 64)
PEAK = Decoding(kind="peak", sharpness=100.0)
WRIST = HUMAN36M17.index("left_wrist")
KNOWN = {bone_name(bone): length for bone, length in zip(HUMAN36M17.bones, LENGTHS.tolist(), strict=True)}


class KnownMaps(torch.nn.Module):
    """A method that answers with these maps, whatever the crops show."""

    def __init__(self, heatmaps):
        super().__init__()
        self.heatmaps = heatmaps

    def forward(self, crops, projections, present=None, keep_maps=False) -> MultiViewPrediction:
        return triangulated(self.heatmaps, open_views(crops, projections, present, 2.0), PEAK, keep_maps=keep_maps)


def scene(frames=2):
    """True joints, their pixels in maps, maps, cameras of crops of 256 pixels."""
    truth = people(frames, seed=3, bend=0.35)
    projections = ring(4, SIZE[0])
    pixels = resized_points(project(projections, truth), SIZE, GRID)
    return (
        truth,
        pixels.float(),
        gaussian_targets(pixels, GRID, 2.0).float(),
        projections.float().expand(frames, 4, 3, 4),
    )


def answered(heatmaps, projections, solver="rpsm", present=None):
    step = solved_by(KnownMaps(heatmaps), CrossViewMethod(), KNOWN, solver)
    return step(torch.zeros(len(heatmaps), 4, 3, *SIZE), projections, present)


def test_rpsm_places_joints_that_psm_places_to_a_bin():
    truth, _, heatmaps, projections = scene()
    errors = {
        solver: 1000 * (answered(heatmaps, projections, solver).joints - truth).norm(dim=-1).mean().item()
        for solver in ("dlt", "psm", "rpsm")
    }
    assert errors["dlt"] < 8 and errors["rpsm"] < 5 and 40 < errors["psm"] < 90


def test_2d_joints_are_the_maps_own_peaks_beside_a_brighter_one_of_somebody_else():
    """Fails if the highest peak of the map is passed on, the pose's own projection, or pixels of the maps."""
    truth, pixels, heatmaps, projections = scene()
    elsewhere = pixels[:, 1, WRIST] + torch.tensor([14.0, -9.0])
    moved = pixels[:, 1, WRIST] + torch.tensor([1.5, 0.0])
    heatmaps[:, 1, WRIST] = 0.7 * gaussian_targets(moved, GRID, 2.0) + gaussian_targets(elsewhere, GRID, 2.0)
    plain, found = (answered(heatmaps, projections, solver) for solver in ("dlt", "rpsm"))
    in_maps = resized_points(found.joints_2d, SIZE, GRID)
    assert (resized_points(plain.joints_2d, SIZE, GRID)[:, 1, WRIST] - elsewhere).norm(dim=-1).max() < 0.3
    assert (in_maps[:, 1, WRIST] - moved).norm(dim=-1).max() < 0.3
    others = [j for j in range(17) if j != WRIST]
    assert (in_maps[:, :, others] - pixels[:, :, others]).norm(dim=-1).max() < 0.3
    assert (found.joints[:, WRIST] - truth[:, WRIST]).norm(dim=-1).max() < 0.03
    assert (found.confidence_2d[:, 1, WRIST] - 0.7).abs().max() < 0.05
    assert (found.confidence_2d[:, 0, WRIST] - 1.0).abs().max() < 0.1


def test_a_joint_that_a_map_does_not_show_has_no_confidence_in_that_view_and_the_pose_s_place():
    """Fails if a view without evidence passes on a measurement."""
    truth, pixels, heatmaps, projections = scene()
    heatmaps[:, 2, WRIST] = -0.1
    found = answered(heatmaps, projections)
    assert not found.confidence_2d[:, 2, WRIST].any() and found.confidence_2d[:, [0, 1, 3], WRIST].min() > 0.8
    assert (resized_points(found.joints_2d, SIZE, GRID)[:, 2, WRIST] - pixels[:, 2, WRIST]).norm(dim=-1).max() < 0.5
    assert (found.joints[:, WRIST] - truth[:, WRIST]).norm(dim=-1).max() < 0.02 and found.valid.all()


def test_samples_without_a_joint_keep_the_method_s_answer_and_others_are_searched():
    truth, _, heatmaps, projections = scene(3)
    heatmaps[1] = 0.0
    present = torch.tensor([[True] * 4, [True] * 4, [False, True, False, False]])
    found, plain = (answered(heatmaps, projections, solver, present) for solver in ("rpsm", "dlt"))
    assert found.valid.any(dim=1).tolist() == plain.valid.any(dim=1).tolist()
    assert not found.valid[2].any() and torch.equal(found.joints[1:], plain.joints[1:])
    assert (found.joints[0] - truth[0]).norm(dim=-1).mean() < 0.005
    nothing = answered(torch.zeros_like(heatmaps[:1]), projections[:1])
    assert nothing.joints.isfinite().all()


def test_an_absent_view_has_no_part_in_the_search():
    _, _, heatmaps, projections = scene(1)
    present = torch.tensor([[True, True, False, True]])
    first = answered(heatmaps, projections, present=present)
    heatmaps[:, 2] = torch.rand(17, *GRID)
    second = answered(heatmaps, projections, present=present)
    assert torch.equal(first.joints, second.joints)
    assert not second.confidence_2d[:, 2].any() and not second.views_used[:, 2].any() and second.views_used[:, 3].all()


def test_maps_are_kept_on_request_alone():
    _, _, heatmaps, projections = scene(1)
    step = solved_by(KnownMaps(heatmaps), CrossViewMethod(), KNOWN, "psm")
    crops = torch.zeros(1, 4, 3, *SIZE)
    assert step(crops, projections).heatmaps is None
    assert torch.equal(step(crops, projections, keep_maps=True).heatmaps, heatmaps)


@pytest.mark.parametrize("kind", ["soft_argmax", "centre_of_mass", "argmax", "peak"])
def test_evidence_is_highest_where_a_map_says_and_never_negative(kind):
    points = torch.tensor([[[[10.0, 20.0]], [[5.0, 6.0]]]])
    targets = gaussian_targets(points, (32, 32), 2.0)
    raw = (40.0 * targets - 30.0) if kind == "soft_argmax" else targets - 0.1
    found = evidence(raw, Decoding(kind=kind))
    assert found.min() >= 0 and 0.85 < found.amax() < 1.0001
    assert torch.equal(argmax(found), points)
    weak = evidence(torch.cat([raw[:, :1], 0.5 * raw[:, 1:]], dim=1), Decoding(kind=kind))
    assert kind == "centre_of_mass" or weak[:, 1].amax() < 0.75 * weak[:, 0].amax()


def test_a_method_s_own_settings_of_the_search_are_used():
    config = PictorialConfig(bins=8, rounds=3)
    method = CrossViewMethod(cross_view=CrossViewConfig(pictorial=config))
    step = solved_by(torch.nn.Identity(), method, KNOWN, "rpsm")
    assert isinstance(step, PictorialStep) and step.config == config
    assert step.lengths.tolist() == pytest.approx(LENGTHS.tolist()) and step.decoding == method.cross_view.decoding
    psm = solved_by(torch.nn.Identity(), method, KNOWN, "psm")
    assert isinstance(psm, PictorialStep) and psm.config.rounds == 0 and psm.config.bins == 8


@pytest.mark.parametrize(
    ("method", "lengths", "message"),
    [
        (VolumetricMethod(), KNOWN, "the method volumetric does not triangulate any"),
        (TokenMethod(), KNOWN, "the method canonical_tokens does not"),
        (AlgebraicMethod(skeleton="coco17"), KNOWN, "coco17 is not a tree"),
        (
            FusionMethod(fusion=FusionConfig()),
            {"hip-spine": 0.2},
            "not known: hip-right_hip, hip-left_hip, spine-thorax",
        ),
    ],
)
def test_a_search_without_maps_tree_or_lengths_is_refused(method, lengths, message):
    with pytest.raises(ConfigError, match=message):
        solved_by(torch.nn.Identity(), method, lengths, "rpsm")


def test_a_search_is_not_exported_to_onnx(tmp_path):
    step = solved_by(torch.nn.Identity(), CrossViewMethod(), KNOWN, "psm")
    with pytest.raises(ConfigError, match="cannot be exported"):
        export_onnx(step, 4, SIZE, str(tmp_path / "step.onnx"), any_views=False)
    assert not (tmp_path / "step.onnx").exists()

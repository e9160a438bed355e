"""The network of part affinity fields: what its stages see, and what it is trained on."""

import pytest
import torch

from mvpose.heatmaps import gaussian_targets, resized_points
from mvpose.models.backbone_settings import ResNetBackbone
from mvpose.models.field_settings import FieldsConfig
from mvpose.models.method import build_method
from mvpose.models.network_settings import FieldsMethod
from mvpose.models.single_view.affinity_fields import affinity_targets
from mvpose.models.single_view.field_network import LabelledPeople, PartMaps, field_objective, labelled_pixels
from mvpose.skeleton import Skeleton

ARM = Skeleton("arm", ("shoulder", "elbow", "wrist"), (("shoulder", "elbow"), ("elbow", "wrist")))
METHOD = FieldsMethod(
    size=(64, 64),
    backbone=ResNetBackbone(depth=18, width=4),
    fields=FieldsConfig(stages=3, width=8, kernel=3, upsampled=3),
)
POINTS = torch.tensor([[[[10.0, 12.0], [30.0, 12.0], [30.0, 40.0]], [[14.0, 20.0], [14.0, 50.0], [40.0, 50.0]]]])
ALL = torch.ones(1, 2, 3, dtype=torch.bool)


def people(known=ALL, inside=None) -> LabelledPeople:
    return LabelledPeople(POINTS, known, known if inside is None else inside)


def maps_of(sigma=1.0, width=1.0) -> PartMaps:
    """Those of both people: the higher Gaussian of each joint, the mean vector of each limb."""
    points = resized_points(POINTS, (64, 64), (16, 16))
    heatmaps = torch.maximum(*gaussian_targets(points, (16, 16), sigma)[0])[None]
    return PartMaps(heatmaps, affinity_targets(points, ALL, ARM, (16, 16), width))


def terms(*stages: PartMaps, truth: LabelledPeople | None = None) -> dict[str, float]:
    found = field_objective(list(stages), truth or people(), ARM, (64, 64), 1.0, 1.0)
    return {name: float(value) for name, value in found.items()}


def test_maps_of_a_quarter_or_an_eighth_come_from_every_stage():
    for upsampled, side in ((3, 16), (2, 8)):
        method = FieldsMethod(
            size=(64, 64),
            backbone=METHOD.backbone,
            fields=FieldsConfig(stages=2, width=8, kernel=3, upsampled=upsampled),
        )
        stages = build_method(method).eval()(torch.rand(2, 3, 64, 64))
        assert [tuple(s.heatmaps.shape) for s in stages] == [(2, 17, side, side)] * 2
        assert [tuple(s.fields.shape) for s in stages] == [(2, 16, 2, side, side)] * 2


@pytest.mark.parametrize("branch", [0, 1])
def test_a_stage_sees_both_maps_of_the_one_before(branch):
    torch.manual_seed(0)
    network, images = build_method(METHOD).eval(), torch.rand(1, 3, 64, 64)
    with torch.no_grad():
        before = network(images)
        network.stages[0][branch][-1].bias += 1.0
        after = network(images)
    assert (after[1].heatmaps - before[1].heatmaps).abs().max() > 1e-4
    assert (after[1].fields - before[1].fields).abs().max() > 1e-4


def test_true_maps_cost_nothing_and_every_stage_counts():
    true = maps_of()
    assert terms(true) == {"heatmaps": 0.0, "fields": 0.0}
    off = PartMaps(true.heatmaps + 0.5, true.fields - 0.25)
    assert terms(off) == pytest.approx({"heatmaps": 0.25, "fields": 0.0625})
    assert terms(off, true, off) == pytest.approx({"heatmaps": 0.5, "fields": 0.125})


def test_pixels_of_a_person_whose_joint_nobody_labelled_do_not_count_in_this_joints_maps():
    known = ALL.clone()
    known[0, 1, 2] = False
    truth, true = people(known), maps_of()
    labelled = labelled_pixels(resized_points(POINTS, (64, 64), (16, 16)), known, (16, 16))
    assert labelled[0, :2].all()
    # The person's other joints are in columns 3 and rows 4.6 to 12.1 of the map: a box enlarged by a quarter of 7.5.
    assert not labelled[0, 2, 5:12, 3].any() and labelled[0, 2, :, 8:].all() and labelled[0, 2, :2].all()
    inside_the_box, beyond = true.heatmaps.clone(), true.heatmaps.clone()
    inside_the_box[0, 2, 10, 3] += 1.0
    beyond[0, 2, 10, 14] += 1.0
    clean = terms(true, truth=truth)
    assert terms(PartMaps(inside_the_box, true.fields), truth=truth)["heatmaps"] == clean["heatmaps"]
    assert terms(PartMaps(beyond, true.fields), truth=truth)["heatmaps"] > clean["heatmaps"]
    # The limb to the joint lacks its label, too; the other limb does not.
    limb = true.fields.clone()
    limb[0, 1, :, 10, 3] += 1.0
    assert terms(PartMaps(true.heatmaps, limb), truth=truth)["fields"] == clean["fields"]
    limb = true.fields.clone()
    limb[0, 0, :, 10, 3] += 1.0
    assert terms(PartMaps(true.heatmaps, limb), truth=truth)["fields"] > clean["fields"]


def test_a_joint_outside_the_image_has_neither_peak_nor_limb_and_empty_slots_are_nobody():
    inside = ALL.clone()
    inside[0, 0, 2] = False
    inside[0, 1] = False
    truth = LabelledPeople(POINTS, inside.clone(), inside)
    points = resized_points(POINTS, (64, 64), (16, 16))
    heatmaps = gaussian_targets(points[0, :1], (16, 16), 1.0)[0]
    heatmaps[2] = 0.0
    fields = affinity_targets(points[:, :1], ALL[:, :1], ARM, (16, 16), 1.0)
    fields[:, 1] = 0.0
    known = inside.clone()
    known[0, 0, 2] = True
    assert terms(PartMaps(heatmaps[None], fields), truth=LabelledPeople(POINTS, known, inside)) == {
        "heatmaps": 0.0,
        "fields": 0.0,
    }
    assert terms(PartMaps(heatmaps[None], fields), truth=truth)["fields"] == 0.0

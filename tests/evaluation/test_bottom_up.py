"""From the maps of a bottom-up network to figures, in 2D and 3D; the network is replaced by one with the true maps."""

from collections.abc import Iterable
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from mvpose.datasets.sample import TEST, Sample
from mvpose.datasets.sample_table import write_samples
from mvpose.evaluation.answers import Answers
from mvpose.evaluation.bottom_up import bottom_up_answers
from mvpose.evaluation.image_people import image_figures
from mvpose.evaluation.several_people import people_figures
from mvpose.evaluation.subject_errors import TruthTable, evaluate
from mvpose.heatmaps import gaussian_targets, resized_points
from mvpose.models.input_rule import input_rule
from mvpose.models.network_settings import FieldsMethod, NetworkConfig
from mvpose.models.saved import SavedModel
from mvpose.models.single_view.affinity_fields import affinity_targets, limb_tree
from mvpose.models.single_view.field_network import PartMaps
from mvpose.rendering.camera_rigs import static_rig
from mvpose.rendering.scene import ImageConfig, scene_people
from mvpose.skeleton import HALPE20, HALPE26
from mvpose.training.batches import CropView
from mvpose.training.group_reader import group_arrays
from tests.rendering.test_scene import Mannequins

METHOD = FieldsMethod(skeleton="halpe20", size=(384, 384))
RULE = input_rule(METHOD, 1.0)
GRID = (192, 192)


class TrueMaps(nn.Module):
    """The maps of the images' true people, frame by frame; with `hidden`, the people of these slots are missing."""

    def __init__(self, frames: Iterable[list[Sample]], hidden: tuple[int, ...] = ()) -> None:
        super().__init__()
        self.frames, self.hidden = iter(frames), hidden

    def forward(self, images: torch.Tensor) -> list[PartMaps]:
        """Maps of the next frame, whatever the images are."""
        people = next(self.frames)
        view = CropView(skeleton=HALPE20, crop=RULE.crop, views=len(images))
        arrays = group_arrays(people, view, np.random.default_rng(0))
        np.testing.assert_array_equal(images.numpy(), arrays["images"])
        points = resized_points(torch.from_numpy(arrays["points"]), METHOD.size, GRID)
        present = torch.from_numpy(arrays["inside"])
        present[:, list(self.hidden)] = False
        heatmaps = gaussian_targets(torch.where(present[..., None], points, torch.nan), GRID, 1.5).amax(dim=1)
        return [PartMaps(heatmaps, affinity_targets(points, present, limb_tree(HALPE20), GRID, 1.0))]


@pytest.fixture(scope="module")
def frames() -> list[list[Sample]]:
    images = ImageConfig(side=192, margin=1.2)
    return [scene_people(6, TEST, i, Mannequins(), static_rig("ring8"), images, group=2) for i in range(2)]


def model(frames, **settings) -> SavedModel:
    return SavedModel(TrueMaps(frames, **settings), RULE, METHOD, "0" * 64, {})


def answered(frames, **settings) -> Answers:
    return bottom_up_answers(model(frames, **settings), [s for people in frames for s in people])


def test_true_maps_give_everyone_their_joints_in_2d_and_3d(frames):
    answers = answered(frames)
    assert [(s.capture_id, s.person) for s in answers.samples] == [
        (people[0].capture_id, p) for people in frames for p in range(2)
    ]
    truth = np.stack([s.xyz[:20] for s in answers.samples])
    errors = np.linalg.norm(answers.joints - truth, axis=-1)
    # Rounding alone. With the lens of the stored image, which the network's image does not have, it is 2 mm.
    assert np.isfinite(errors).mean() > 0.95 and np.nanmean(errors) < 1e-4
    flat = {name: e.mean for name, e in image_figures(answers.images).items()}
    assert len(answers.images) == 16 and flat["ap_2d@0.5"] > 0.9 and flat["pckh_2d@0.5"] > 0.9
    space = {name: e.mean for name, e in people_figures(answers.people, all_people=True).items()}
    assert space["recall@500mm"] == 1.0 and space["ap@50mm"] > 0.9


def test_somebody_whom_no_map_shows_has_no_answer(frames):
    answers = answered(frames, hidden=(1,))
    assert np.isfinite(answers.joints[0::2]).all(axis=-1).mean() > 0.9
    assert np.isnan(answers.joints[1::2]).all()
    flat = image_figures(answers.images)
    assert flat["recall_2d@0.5"].mean == pytest.approx(0.5, abs=0.05)
    nobody = answered(frames, hidden=(0, 1))
    assert np.isnan(nobody.joints).all() and image_figures(nobody.images)["ap_2d"].mean == 0.0


def test_evaluate_reports_2d_and_3d_figures_of_a_bottom_up_network(frames, tmp_path):
    write_samples(str(tmp_path / "groups.parquet"), (s for people in frames for s in people), HALPE26, "groups")
    table = TruthTable(uri=str(tmp_path / "groups.parquet"))
    found = evaluate(model(frames), [table], NetworkConfig())
    assert {"ap_2d", "pcp_2d", "ap@50mm", "recall@500mm", "mpjpe_m"} <= set(found.estimates)
    assert len(found.rows) == 4 and found.rows["views"].tolist() == [8] * 4
    assert replace(found.subject, protocol="").model_sha256 == "0" * 64

"""A lifter judged on a table of samples: by one camera, with the detector's errors, placed as in a run."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from mvpose.datasets.sample import Labels, SampleImage, SampleScene, scene_samples
from mvpose.datasets.sample_table import write_samples
from mvpose.evaluation.answers import Scoring, rows_of
from mvpose.evaluation.comparison import one_view_table
from mvpose.evaluation.evaluation_page import evaluation_page
from mvpose.evaluation.lifted import lifted_answers
from mvpose.evaluation.subject_errors import Evaluation, TruthTable, evaluate
from mvpose.evaluation.summary import Subject, figures, left_out
from mvpose.metrics.joint_errors import structure
from mvpose.models.input_rule import input_rule
from mvpose.models.network_settings import LifterConfig, LiftingMethod, NetworkConfig
from mvpose.models.saved import SavedModel
from mvpose.models.single_view.lifting import Lifter
from mvpose.rendering.camera_rigs import static_rig
from mvpose.skeleton import HUMAN36M17
from tests.models.moving_people import smooth_people

FRAMES = 24


@pytest.fixture(scope="module")
def samples():
    rig = static_rig("ring4")
    found = []
    for c, joints in enumerate(smooth_people(2, FRAMES, seed=3).numpy()):
        scene = SampleScene(capture_id=f"c{c}", subject="", action="", split="test", rig=rig, skeleton=HUMAN36M17)
        labels = Labels(frame=np.arange(FRAMES) + 5, position=np.arange(FRAMES), xyz=joints)
        found += scene_samples(scene, labels, lambda _: dict.fromkeys(rig.names, SampleImage()))
    return found


class Flat(nn.Module):
    """Everybody is a flat figure of 1.7 m, as they look."""

    def forward(self, points, seen):
        """Standardised points have a mean square of 1, which is about 0.55 m of a body."""
        return torch.cat([0.55 * points, torch.zeros_like(points[..., :1])], dim=-1)


def model(window: int):
    method = "lifting_transformer" if window > 1 else "lifting_mlp"
    config = LiftingMethod(method=method, skeleton="human36m17", lifter=LifterConfig(window=window))
    return SavedModel(Lifter(Flat(), window).eval(), input_rule(config, 1.4), config, "0", {})


@pytest.mark.parametrize("window", [1, 5])
def test_a_flat_figure_is_put_where_the_person_is(samples, window):
    answers = lifted_answers(model(window), samples)
    rows = rows_of(answers, Scoring())
    assert 0.7 < rows.found.mean() <= 1.0 and (rows["views"] == 1).all()
    # Flat figures have wrong depths, but lie on the rays of the 2D joints.
    assert rows.pa_mpjpe_m.median() < 0.3
    for i, sample in enumerate(answers.samples):
        (name,) = answers.cameras[i]
        rig = sample.rig.select((name,))
        known = np.isfinite(answers.joints[i, :, 0])
        seen, _ = rig.project(torch.from_numpy(answers.joints[i, known]))
        true, _ = rig.project(torch.from_numpy(sample.xyz[known]))
        if known.sum() > 8:
            assert np.median((seen - true).norm(dim=-1).numpy()) < 0.06 * np.ptp(true.numpy()[0, :, 1])


def test_answers_follow_from_the_seed(samples):
    one, same, other = (lifted_answers(model(1), samples, seed).joints for seed in (0, 0, 1))
    assert np.array_equal(one, same, equal_nan=True) and not np.array_equal(one, other, equal_nan=True)


def test_a_figure_of_a_few_samples_is_left_out_with_the_reason_and_one_of_some_says_of_how_many(samples):
    """Fails if PSS of 19 whole poses of 48 is printed, if that of 20 is not, or if it does not say so."""
    truth = np.stack([sample.xyz for sample in samples])
    for whole, cell in ((19, "–"), (20, "100.0 (100.0 to 100.0) [20 of 48]")):
        joints = truth.copy()
        joints[: len(joints) - whole, 5] = np.nan
        answers = replace(lifted_answers(model(1), samples), samples=samples, joints=joints)
        rows = rows_of(answers, Scoring(), structure(torch.from_numpy(truth[[0, -1]]), [0]).numpy())
        subject = Subject(data_sha256="", model_sha256="", protocol="", skeleton=HUMAN36M17)
        found = Evaluation(rows, figures(rows, HUMAN36M17), subject, joints)
        assert one_view_table({"lifter": found}).splitlines()[-1].split(" | ")[-1] == f"{cell} |"
        page = evaluation_page("lifter", found, [])
        if whole < 20:
            (reason,) = left_out(rows)
            assert reason.startswith("pss is left out: it would rest on 19 of 48 samples, and at least 20 poses with")
            assert reason in page and not any(name.startswith("pss") for name in found.estimates)
        else:
            assert left_out(rows) == () and found.estimates["pss"].samples == 20 and "% [20 of 48]" in page


def test_a_table_of_few_samples_has_its_figures(samples):
    """Fails if 20 samples are asked for where there are 3. Only 2 of these have a previous frame."""
    rows = rows_of(replace(lifted_answers(model(1), samples[:3]), joints=np.zeros((3, 17, 3))), Scoring())
    assert figures(rows, HUMAN36M17)["mpjpe_m"].samples == 3
    assert [reason.split(" ")[0] for reason in left_out(rows)] == ["mpjve_m"]


def test_the_gate_can_tell_drawn_joints_from_images(samples, tmp_path):
    """Fails if a lifter's figures, of joints drawn from the truth, have the protocol of networks that see images."""
    write_samples(str(tmp_path / "table.parquet"), samples, HUMAN36M17, "moving")
    table = TruthTable(uri=str(tmp_path / "table.parquet"), protocol=None, views=(), scoring=Scoring())
    assert (
        evaluate(model(1), [table], NetworkConfig()).subject.protocol == "every sample, drawn 2D joints of one camera"
    )

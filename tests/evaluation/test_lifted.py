"""A lifter judged on a table of samples: by one camera, with the detector's errors, placed as in a run."""

import numpy as np
import pytest
import torch
from torch import nn

from mvpose.datasets.sample import Labels, SampleImage, SampleScene, scene_samples
from mvpose.datasets.sample_table import write_samples
from mvpose.evaluation.answers import Scoring, rows_of
from mvpose.evaluation.lifted import lifted_answers
from mvpose.evaluation.subject_errors import TruthTable, evaluate
from mvpose.models.input_rule import input_rule
from mvpose.models.network_settings import LifterConfig, LiftingMethod, NetworkConfig
from mvpose.models.saved import SavedModel
from mvpose.models.single_view.lifting import Lifter
from mvpose.rendering.camera_rigs import static_rig
from mvpose.skeleton import HUMAN36M17
from tests.models.moving_people import smooth_people

FRAMES = 12


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


def test_the_gate_can_tell_drawn_joints_from_images(samples, tmp_path):
    """Fails if a lifter's figures, of joints drawn from the truth, have the protocol of networks that see images."""
    write_samples(str(tmp_path / "table.parquet"), samples, HUMAN36M17, "moving")
    table = TruthTable(uri=str(tmp_path / "table.parquet"), protocol=None, views=(), scoring=Scoring())
    assert (
        evaluate(model(1), [table], NetworkConfig()).subject.protocol == "every sample, drawn 2D joints of one camera"
    )

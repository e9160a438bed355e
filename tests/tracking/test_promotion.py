"""The gate, and aliases that move through it."""

import json

import numpy as np
import pytest

from mlflow import MlflowClient
from mvpose.commands.promote import Promote
from mvpose.commands.promote import run as promote_command
from mvpose.errors import ConfigError
from mvpose.tracking.gate import Gate, decide_promotion
from mvpose.tracking.promotion import promote, roll_back
from mvpose.tracking.registry import CHAMPION, RegistryError, register, resolve
from tests.tracking.models import evaluated, saved

CAPTURES, FRAMES = 12, 20


def errors(seed: int, better_m: float = 0.0) -> np.ndarray:
    """Sequences differ by centimetres, models by what is said: only a paired comparison sees it."""
    hard = np.random.default_rng(0).normal(0.08, 0.03, (CAPTURES, 1))
    return hard - better_m + np.random.default_rng(seed).normal(0.0, 0.01, (CAPTURES, FRAMES))


def judged(tmp_path, candidate: np.ndarray, rival: np.ndarray, gate: Gate | None = None, data: str = "held-out"):
    ours = evaluated(str(tmp_path / "candidate"), "new", candidate)
    return decide_promotion(ours, evaluated(str(tmp_path / "rival"), "old", rival, data), gate or Gate())


def test_a_model_that_is_better_on_hard_and_easy_sequences_alike_passes(tmp_path):
    verdict = judged(tmp_path, errors(1, better_m=0.005), errors(2))
    assert verdict.passed and 0.002 < verdict.low_m < verdict.improvement_m < 0.008
    assert verdict.samples == CAPTURES * FRAMES and verdict.sequences == CAPTURES


@pytest.mark.parametrize("better_m", [-0.005, 0.0])
def test_a_model_that_is_worse_or_the_same_is_refused(tmp_path, better_m):
    assert not judged(tmp_path, errors(1, better_m), errors(1 if better_m == 0 else 2)).passed


def test_an_improvement_below_the_margin_is_refused(tmp_path):
    assert judged(tmp_path, errors(1, 0.005), errors(2), Gate(margin_m=0.001)).passed
    assert not judged(tmp_path, errors(1, 0.005), errors(2), Gate(margin_m=0.006)).passed


def test_an_improvement_on_one_sequence_of_many_frames_is_chance(tmp_path):
    lucky = errors(2)
    lucky[0] -= 0.05
    verdict = judged(tmp_path, lucky, errors(2))
    assert verdict.improvement_m > 0.004 and not verdict.passed


def test_equal_models_pass_about_as_rarely_as_the_interval_says(tmp_path):
    passed = sum(judged(tmp_path / str(s), errors(100 + s), errors(500 + s)).passed for s in range(60))
    # One side of a 95 % interval is 1.5 of 60; over 12 sequences it is somewhat narrow.
    assert passed <= 8


def test_a_model_cannot_win_by_leaving_out_what_is_hard(tmp_path):
    silent = errors(1, better_m=0.02)
    silent[:, :3] = np.nan
    verdict = judged(tmp_path, silent, errors(2))
    assert not verdict.passed and "answers 204 of 240 samples, the present version 240" in verdict.reason


def test_other_data_or_other_samples_are_not_compared(tmp_path):
    verdict = judged(tmp_path / "a", errors(1, 0.02), errors(2), data="another")
    assert not verdict.passed and "held-out and another" in verdict.reason
    verdict = judged(tmp_path / "b", errors(1, 0.02), errors(2)[:, :5])
    assert not verdict.passed and "different samples" in verdict.reason


def test_few_sequences_decide_nothing(tmp_path):
    verdict = judged(tmp_path, errors(1, 0.02)[:3], errors(2)[:3])
    assert not verdict.passed and "3 held-out sequences are too few; 5 are needed" in verdict.reason


@pytest.fixture
def registered(config, tmp_path):
    """Three versions: a first one, a worse, a better."""
    digests = []
    for seed, better_m in enumerate((0.0, -0.01, 0.01)):
        folder = str(tmp_path / f"model{seed}")
        digests.append(saved(folder, seed))
        evaluation = evaluated(f"{folder}/evaluation", digests[-1], errors(seed, better_m))
        assert register(config, folder, "net", evaluation).version == seed + 1
    return digests


def test_the_champion_is_replaced_by_a_better_version_alone_and_comes_back_by_one_command(config, registered, capsys):
    def ask(version: int, **flags) -> int:
        return promote_command(Promote(name="net", version=version, tracking=config, **flags))

    assert ask(1) == 0 and resolve(config, "models:/net@champion").weights_sha256 == registered[0]
    assert ask(2) == 4 and resolve(config, "models:/net@champion").version == 1
    reported = capsys.readouterr().out.splitlines()
    assert reported[0].startswith("champion of net is version 1: mpjpe_m") and reported[0].endswith("and no rival.")
    assert (
        reported[1].startswith("Refused: mpjpe_m")
        and "-10." in reported[1]
        and reported[1].endswith("is still version 1.")
    )
    assert ask(3) == 0 and ask(3) == 0 and resolve(config, "models:/net@champion").version == 3
    assert ask(0, rollback=True) == 0 and resolve(config, "models:/net@champion").weights_sha256 == registered[0]
    assert capsys.readouterr().out.splitlines()[-1] == "champion of net is version 1 again; it was version 3."

    decision = json.loads(MlflowClient(config.uri).get_model_version("net", "2").tags["mvpose.decision.champion"])
    assert decision["outcome"] == "refused" and decision["rival"] == 1 and decision["who"] and decision["when"]
    assert decision["improvement_m"] == pytest.approx(-0.01, abs=0.003) and decision["low_m"] < decision["high_m"] < 0


def test_roll_back_goes_only_to_versions_that_held_the_alias(config, registered):
    with pytest.raises(RegistryError, match="can only return to a version that held it before: none"):
        roll_back(config, "net", CHAMPION)
    promote(config, "net", 2, CHAMPION, Gate())
    promote(config, "net", 1, CHAMPION, Gate())
    promote(config, "net", 3, CHAMPION, Gate())
    with pytest.raises(RegistryError, match="held it before: 2, 1"):
        roll_back(config, "net", CHAMPION, 3)
    assert roll_back(config, "net", CHAMPION, 2).now == 2
    with pytest.raises(RegistryError, match="none"):
        roll_back(config, "net", CHAMPION)


def test_an_alias_that_was_moved_by_hand_can_be_rolled_back_too(config, registered):
    promote(config, "net", 1, CHAMPION, Gate())
    MlflowClient(config.uri).set_registered_model_alias("net", CHAMPION, "2")
    assert promote(config, "net", 3, CHAMPION, Gate()).before == 2
    assert roll_back(config, "net", CHAMPION).now == 2
    assert roll_back(config, "net", CHAMPION).now == 1


def test_an_evaluation_of_other_weights_is_refused(config, registered, tmp_path):
    other = evaluated(str(tmp_path / "other"), registered[2], errors(0))
    with pytest.raises(ConfigError, match="is of weights"):
        promote(config, "net", 1, CHAMPION, Gate(), evaluation=other)


def test_a_version_without_evaluation_is_refused_until_it_has_one(config, tmp_path):
    digest = saved(str(tmp_path / "bare"))
    register(config, str(tmp_path / "bare"), "net")
    with pytest.raises(ConfigError, match="registered without an evaluation"):
        promote(config, "net", 1, CHAMPION, Gate())
    evaluation = evaluated(str(tmp_path / "evaluation"), digest, errors(0))
    assert promote(config, "net", 1, CHAMPION, Gate(), evaluation=evaluation).moved


def test_a_name_or_version_that_is_not_there_is_reported_with_those_that_are(config, registered):
    with pytest.raises(RegistryError, match=r"no version 9 .* it has versions 1, 2, 3"):
        promote(config, "net", 9, CHAMPION, Gate())
    with pytest.raises(RegistryError, match="no alias champion"):
        resolve(config, "models:/net@champion")
    with pytest.raises(RegistryError, match=r"no alias champoin .* and aliases challenger"):
        resolve(config, "models:/net@champoin")
    with pytest.raises(RegistryError, match=r"no such model is registered \(there are net\)"):
        resolve(config, "models:/nothing@champion")
    with pytest.raises(RegistryError, match=r"did you mean net\?"):
        resolve(config, "models:/nett@champion")

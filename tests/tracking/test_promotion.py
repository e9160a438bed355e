"""The gate, and aliases that move through it."""

import json
import time

import numpy as np
import pandas as pd
import pytest

from mlflow import MlflowClient
from mvpose.commands.promote import Promote
from mvpose.commands.promote import run as promote_command
from mvpose.errors import ConfigError
from mvpose.models.shipped import FUSION, model_folder
from mvpose.tracking.chosen_model import choose_model, lineage_of
from mvpose.tracking.gate import Gate, decide_promotion
from mvpose.tracking.promotion import STALE_NS, alone, decision_history, promote, roll_back
from mvpose.tracking.registry import CHAMPION, RegistryError, register, resolve
from mvpose.tracking.tracking_config import TrackingConfig
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
    # Errors with fewer views are a metre larger; those with the most count.
    assert verdict.candidate_m < verdict.rival_m < 0.2


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
    assert not verdict.passed and "it finds 408, its rival 480" in verdict.reason


def test_a_model_cannot_win_by_leaving_out_its_hard_joint(tmp_path):
    """Fails if each network's own mean over its own answers is compared."""
    hard, easy = errors(2) + 0.05, errors(2)
    both = [[h, e] for h, e in zip(hard.ravel(), easy.ravel(), strict=True)]
    rival = evaluated(str(tmp_path / "rival"), "old", (hard + easy) / 2, joint_error_m=both)
    one = [[np.nan, e] for e in easy.ravel()]
    candidate = evaluated(str(tmp_path / "candidate"), "new", easy, joint_error_m=one)
    verdict = decide_promotion(candidate, rival, Gate())
    assert not verdict.passed and verdict.improvement_m == 0 and "over 1 joints" in verdict.reason
    other = decide_promotion(candidate, rival, Gate(metric="pa_mpjpe_m"))
    assert not other.passed and "different joints" in other.reason


def test_rendered_samples_of_one_motion_are_one_sequence(tmp_path):
    """Their captures are single frames. Fails if captures are drawn: 240 of them see an improvement that 3 motions
    do not."""
    columns = {
        "dataset": "rendered",
        "capture": [f"test-{i:06d}" for i in range(CAPTURES * FRAMES)],
        "action": np.repeat([f"m{m}" for m in range(CAPTURES)], FRAMES),
    }
    lucky = errors(2)
    lucky[0] -= 0.05
    for better, passes in ((errors(1, 0.005), True), (lucky, False)):
        candidate = evaluated(str(tmp_path / "candidate"), "new", better, **columns)
        rival = evaluated(str(tmp_path / "rival"), "old", errors(2), **columns)
        verdict = decide_promotion(candidate, rival, Gate())
        assert verdict.passed == passes and verdict.sequences == CAPTURES
    columns["action"] = np.repeat(["m0", "m1", "m2"], CAPTURES * FRAMES // 3)
    rival = evaluated(str(tmp_path / "rival"), "old", errors(2), **columns)
    verdict = decide_promotion(evaluated(str(tmp_path / "candidate"), "new", errors(1, 0.05), **columns), rival, Gate())
    assert not verdict.passed and "3 held-out sequences are too few" in verdict.reason


def test_other_data_or_other_samples_are_not_compared(tmp_path):
    verdict = judged(tmp_path / "a", errors(1, 0.02), errors(2), data="another")
    assert not verdict.passed and "held-out and another" in verdict.reason
    verdict = judged(tmp_path / "b", errors(1, 0.02), errors(2)[:, :5])
    assert not verdict.passed and "different samples" in verdict.reason


def test_few_sequences_decide_nothing(tmp_path):
    verdict = judged(tmp_path, errors(1, 0.02)[:3], errors(2)[:3])
    assert not verdict.passed and "3 held-out sequences are too few; 5 are needed" in verdict.reason


@pytest.fixture
def default(tmp_path) -> str:
    """An evaluation of the default pipeline that every version here is better than."""
    return evaluated(str(tmp_path / "default"), choose_model(FUSION, TrackingConfig()).weights_sha256, errors(7, -0.05))


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


def test_the_champion_is_replaced_by_a_better_version_alone_and_comes_back_by_one_command(
    config, registered, default, capsys
):
    def ask(version: int, **flags) -> int:
        return promote_command(Promote(name="net", version=version, tracking=config, **flags))

    assert (
        ask(1, rival_evaluation=default) == 0
        and resolve(config, "models:/net@champion").weights_sha256 == registered[0]
    )
    assert ask(2) == 4 and resolve(config, "models:/net@champion").version == 1
    reported = capsys.readouterr().out.splitlines()
    assert reported[0].startswith("champion of net is version 1: mpjpe_m") and "over 2 joints" in reported[0]
    assert (
        reported[1].startswith("Refused: mpjpe_m")
        and "-10." in reported[1]
        and reported[1].endswith("is still version 1.")
    )
    assert ask(3) == 0 and ask(3) == 0 and resolve(config, "models:/net@champion").version == 3
    assert ask(0, rollback=True) == 0 and resolve(config, "models:/net@champion").weights_sha256 == registered[0]
    assert capsys.readouterr().out.splitlines()[-1] == "champion of net is version 1 again; it was version 3."

    decision = json.loads(MlflowClient(config.uri).get_model_version("net", "2").tags["mvpose.decision.champion"])
    figures = decision["figures"]
    assert decision["outcome"] == "refused" and decision["before"] == 1 and decision["who"] and decision["when"]
    assert figures["improvement_m"] == pytest.approx(-0.01, abs=0.003) and figures["low_m"] < figures["high_m"] < 0


def test_every_decision_is_kept_and_a_rollback_adds_one(config, registered, default, capsys):
    """Fails if a rollback, or a later decision about the same version, takes the place of an earlier one."""
    promote(config, "net", 1, CHAMPION, Gate(), rival_evaluation=default)
    for version in (2, 2, 3):
        promote(config, "net", version, CHAMPION, Gate())
    roll_back(config, "net", CHAMPION)
    promote(config, "net", 3, CHAMPION, Gate())
    kept = [(d.version, d.outcome, d.before) for d in decision_history(config, "net", CHAMPION)]
    assert kept == [
        (1, "moved", None),
        (2, "refused", 1),
        (2, "refused", 1),
        (3, "moved", 1),
        (1, "rolled back", 3),
        (3, "moved", 1),
    ]
    assert promote_command(Promote(name="net", history=True, tracking=config)) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 6 and "version 1 rolled back (holder before: version 3)" in lines[4]
    assert roll_back(config, "net", CHAMPION).now == 1
    with pytest.raises(RegistryError, match="none"):
        roll_back(config, "net", CHAMPION)
    assert len(decision_history(config, "net", CHAMPION)) == 7


def test_the_first_holder_must_beat_the_default_pipeline(config, registered, default, tmp_path):
    """Fails if it needs no rival, or is compared with an evaluation of anything else."""
    refused = promote(config, "net", 1, CHAMPION, Gate())
    assert (
        not refused.moved
        and "no version has passed the gate, so it must beat the default pipeline" in refused.verdict.reason
    )
    digest = choose_model(FUSION, config).weights_sha256
    better = evaluated(str(tmp_path / "better"), digest, errors(7, 0.05))
    refused = promote(config, "net", 1, CHAMPION, Gate(), rival_evaluation=better)
    assert not refused.moved and refused.verdict.improvement_m < 0
    other = evaluated(str(tmp_path / "other"), registered[1], errors(7, -0.05))
    with pytest.raises(ConfigError, match="is of weights"):
        promote(config, "net", 1, CHAMPION, Gate(), rival_evaluation=other)
    assert promote(config, "net", 1, CHAMPION, Gate(), rival_evaluation=default).moved


def test_the_default_pipeline_itself_may_be_the_first_holder(config, default, tmp_path, weights, monkeypatch):
    monkeypatch.setenv("MVPOSE_WEIGHTS", weights)
    register(config, model_folder(FUSION), "net")
    assert promote(config, "net", 1, CHAMPION, Gate()).moved
    digest = saved(str(tmp_path / "model"))
    register(config, str(tmp_path / "model"), "net", evaluated(str(tmp_path / "mine"), digest, errors(1)))
    assert promote(config, "net", 2, CHAMPION, Gate(), rival_evaluation=default).moved


@pytest.mark.parametrize(
    ("columns", "reason"),
    [
        ({"capture": "walk"}, "it was trained on captures walk of held: evaluate it on samples that it has not seen"),
        ({"subject": "A"}, "it was trained on people A of held: evaluate it on samples that it has not seen"),
        ({"capture": "run"}, "it was selected by captures run of held: evaluate it on samples that it has not seen"),
        ({"capture": "walk", "dataset": "another"}, ""),
    ],
)
def test_a_version_that_has_seen_its_evaluation_is_refused(config, default, tmp_path, columns, reason):
    """Fails if any of captures, people and validation is not compared with the lineage, or datasets are mixed up."""
    digest = saved(str(tmp_path / "model"))
    changed = {name: [value] + ["c"] * (CAPTURES * FRAMES - 1) for name, value in columns.items()}
    # The first capture alone is what it has seen.
    mine = evaluated(str(tmp_path / "mine"), digest, errors(1), **changed)
    register(config, str(tmp_path / "model"), "net", mine)
    decision = promote(config, "net", 1, CHAMPION, Gate())
    assert not decision.moved and decision.verdict.reason.startswith(reason or "no version has passed the gate")


def test_motions_of_rendered_people_that_training_has_seen_are_refused(config, tmp_path):
    seen = [{"dataset": "rendered", "recordings": ["cmu/01_01"], "people": []}]
    digest = saved(str(tmp_path / "model"), seen={"trained_on": seen, "validated_on": []})
    mine = evaluated(str(tmp_path / "mine"), digest, errors(1), dataset="rendered", action="cmu/01_01")
    register(config, str(tmp_path / "model"), "net", mine)
    verdict = promote(config, "net", 1, CHAMPION, Gate()).verdict
    assert verdict.reason.startswith("it was trained on motions cmu/01_01 of rendered: ")


def test_a_version_that_does_not_say_what_it_was_trained_on_is_refused(config, default, tmp_path):
    digest = saved(str(tmp_path / "model"), seen={})
    register(config, str(tmp_path / "model"), "net", evaluated(str(tmp_path / "mine"), digest, errors(1)))
    verdict = promote(config, "net", 1, CHAMPION, Gate(), rival_evaluation=default).verdict
    assert not verdict.passed and "its lineage does not name what it was trained on" in verdict.reason


def test_samples_of_the_training_under_other_names_are_refused(config, tmp_path):
    """A copied table with another dataset, captures and people. Fails if names alone are compared."""
    seen = [{"dataset": "held", "recordings": ["walk"], "people": [], "poses": [f"{11:06x}{19:06x}"]}]
    for number, (own, reason) in enumerate(
        ((seen, "it was trained on the poses of 1 or more"), ([], "no version has"))
    ):
        folder = str(tmp_path / f"model{number}")
        digest = saved(folder, seen={"trained_on": own, "validated_on": []})
        mine = evaluated(f"{folder}/mine", digest, errors(1), dataset="mine")
        register(config, folder, "net", mine)
        assert promote(config, "net", number + 1, CHAMPION, Gate()).verdict.reason.startswith(reason)


def test_a_recording_that_is_copied_is_not_another_sequence(tmp_path):
    """Fails if the copies of one recording, under other names, count as many."""
    copies = [f"{0:06x}{f:06x}" for _ in range(CAPTURES) for f in range(FRAMES)]
    candidate = evaluated(str(tmp_path / "candidate"), "new", errors(1, 0.02), pose=copies)
    with pytest.raises(ConfigError, match="has the same poses in c0 and c1: evaluate on each sample once"):
        decide_promotion(candidate, evaluated(str(tmp_path / "rival"), "old", errors(2), pose=copies), Gate())


@pytest.mark.parametrize("key", ["model_sha256", "data_sha256", "protocol", "metrics", "rows", "seal"])
def test_an_evaluation_that_was_edited_or_is_of_two_is_refused(config, registered, default, tmp_path, key):
    """Fails if anything that the gate reads can be edited: another model's figures, other data, fewer rows."""
    mine, other = (evaluated(str(tmp_path / n), registered[i], errors(i)) for n, i in (("mine", 0), ("other", 2)))
    with open(f"{other if key == 'model_sha256' else mine}/summary.json") as file:
        summary = json.load(file)
    if key == "rows":
        pd.read_parquet(f"{mine}/samples.parquet").iloc[20:].to_parquet(f"{mine}/samples.parquet", index=False)
    elif key == "seal":
        del summary["seal"]
    else:
        summary[key] = registered[0] if key == "model_sha256" else {"mpjpe_m": 0.01} if key == "metrics" else "another"
    with open(f"{other if key == 'model_sha256' else mine}/summary.json", "w") as file:
        json.dump(summary, file)
    reason = "earlier version" if key == "seal" else "was changed after it was written"
    folder = other if key == "model_sha256" else mine
    with pytest.raises(ConfigError, match=reason):
        promote(config, "net", 1, CHAMPION, Gate(), evaluation=folder, rival_evaluation=default)
    with pytest.raises(ConfigError, match=reason):
        register(config, str(tmp_path / "model0"), "net", folder)


def test_who_moves_the_alias_by_hand_does_not_lower_the_bar(config, registered, default):
    """Version 2 is the worst. Fails if a version must beat only what was put there, or nothing once it is removed."""
    assert promote(config, "net", 3, CHAMPION, Gate(), rival_evaluation=default).moved
    client = MlflowClient(config.uri)
    client.set_registered_model_alias("net", CHAMPION, "2")
    refused = promote(config, "net", 1, CHAMPION, Gate())
    assert not refused.moved and refused.before == 2 and refused.verdict.improvement_m < -0.005
    client.delete_registered_model_alias("net", CHAMPION)
    refused = promote(config, "net", 1, CHAMPION, Gate())
    assert not refused.moved and refused.verdict.improvement_m < -0.005
    assert promote(config, "net", 3, CHAMPION, Gate()).moved


def test_a_holder_that_somebody_put_there_first_does_not_replace_the_default_pipeline(config, registered, tmp_path):
    """Fails if the first that passes the gate needs to beat a bad holder alone."""
    MlflowClient(config.uri).set_registered_model_alias("net", CHAMPION, "2")
    refused = promote(config, "net", 1, CHAMPION, Gate())
    assert not refused.moved and "it must beat the default pipeline" in refused.verdict.reason
    digest = choose_model(FUSION, config).weights_sha256
    better, worse = (evaluated(str(tmp_path / f"{mm}"), digest, errors(7, mm / 1000)) for mm in (50, -50))
    assert not promote(config, "net", 1, CHAMPION, Gate(), rival_evaluation=better).moved
    assert promote(config, "net", 1, CHAMPION, Gate(), rival_evaluation=worse).moved


def test_a_version_that_was_put_back_by_hand_and_rolled_back_to_is_no_bar(config, registered, default):
    """Fails if a return to what never passed the gate counts as passing it."""
    promote(config, "net", 3, CHAMPION, Gate(), rival_evaluation=default)
    MlflowClient(config.uri).set_registered_model_alias("net", CHAMPION, "2")
    promote(config, "net", 1, CHAMPION, Gate(margin_m=-1.0))
    assert roll_back(config, "net", CHAMPION).now == 2
    assert not promote(config, "net", 1, CHAMPION, Gate()).moved


def test_two_decisions_about_one_alias_are_not_made_at_once(config, registered, default, monkeypatch):
    """Fails if both are compared with the same holder, or if a process that died blocks the alias for ever."""
    client = MlflowClient(config.uri)
    with alone(client, "net", CHAMPION):
        for decide in (lambda: promote(config, "net", 1, CHAMPION, Gate()), lambda: roll_back(config, "net", CHAMPION)):
            with pytest.raises(RegistryError, match="is deciding about champion of net at this moment"):
                decide()
        assert promote(config, "net", 1, "second", Gate(), rival_evaluation=default).moved
    client.set_registered_model_tag("net", f"mvpose.decision_open.{CHAMPION}.{time.time_ns() - STALE_NS}.dead", "dead")
    assert promote(config, "net", 1, CHAMPION, Gate(), rival_evaluation=default).moved
    assert [d.outcome for d in decision_history(config, "net", CHAMPION)] == ["moved"]


def test_the_shipped_network_is_judged_like_any_other(config, registered, default, tmp_path, weights, monkeypatch):
    """By rendered people of its training's split it is refused; by others it is the better one."""
    monkeypatch.setenv("MVPOSE_WEIGHTS", weights)
    promote(config, "net", 1, CHAMPION, Gate(), rival_evaluation=default)
    digest, trained = choose_model(FUSION, config).weights_sha256, lineage_of(model_folder(FUSION))["trained_on"]
    motions = [trained[0]["recordings"][0], *(f"test/{i}" for i in range(CAPTURES - 1))]
    for version, (first, moved) in enumerate(((motions[0], False), ("test/unseen", True)), 4):
        columns = {"dataset": "rendered", "action": np.repeat([first, *motions[1:]], FRAMES)}
        mine = evaluated(str(tmp_path / f"{version}"), digest, errors(3, 0.05), **columns)
        rival = evaluated(str(tmp_path / f"rival{version}"), registered[0], errors(0), **columns)
        register(config, model_folder(FUSION), "net", mine)
        decision = promote(config, "net", version, CHAMPION, Gate(), rival_evaluation=rival)
        assert decision.moved == moved
        assert moved or decision.verdict.reason == (
            f"it was trained on motions {motions[0]} of rendered: evaluate it on samples that it has not seen"
        )


def test_roll_back_goes_only_to_versions_that_held_the_alias(config, registered, default):
    with pytest.raises(RegistryError, match="can only return to a version that held it before: none"):
        roll_back(config, "net", CHAMPION)
    promote(config, "net", 2, CHAMPION, Gate(), rival_evaluation=default)
    promote(config, "net", 1, CHAMPION, Gate())
    promote(config, "net", 3, CHAMPION, Gate())
    with pytest.raises(RegistryError, match="held it before: 2, 1"):
        roll_back(config, "net", CHAMPION, 3)
    assert roll_back(config, "net", CHAMPION, 2).now == 2
    with pytest.raises(RegistryError, match="none"):
        roll_back(config, "net", CHAMPION)


def test_an_alias_that_was_moved_by_hand_can_be_rolled_back_too(config, registered, default):
    promote(config, "net", 1, CHAMPION, Gate(), rival_evaluation=default)
    MlflowClient(config.uri).set_registered_model_alias("net", CHAMPION, "2")
    assert promote(config, "net", 3, CHAMPION, Gate()).before == 2
    assert roll_back(config, "net", CHAMPION).now == 2
    assert roll_back(config, "net", CHAMPION).now == 1


def test_an_evaluation_of_other_weights_is_refused(config, registered, tmp_path):
    other = evaluated(str(tmp_path / "other"), registered[2], errors(0))
    with pytest.raises(ConfigError, match="is of weights"):
        promote(config, "net", 1, CHAMPION, Gate(), evaluation=other)


def test_a_version_without_evaluation_is_refused_until_it_has_one(config, default, tmp_path):
    digest = saved(str(tmp_path / "bare"))
    register(config, str(tmp_path / "bare"), "net")
    with pytest.raises(ConfigError, match="registered without an evaluation"):
        promote(config, "net", 1, CHAMPION, Gate())
    evaluation = evaluated(str(tmp_path / "evaluation"), digest, errors(0))
    assert promote(config, "net", 1, CHAMPION, Gate(), evaluation=evaluation, rival_evaluation=default).moved


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

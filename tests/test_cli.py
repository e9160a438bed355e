"""The command line: its flags, and how it says no."""

import os
import subprocess
import sys
from dataclasses import MISSING, fields, is_dataclass, replace
from typing import get_args, get_type_hints

import pytest
import tyro

from mvpose.cli import VERBS, command_of, run
from mvpose.commands.parsing import CONFIG
from mvpose.config import tagged_union, with_kind
from tests.pipeline.coded_footage import write_capture

GOLDEN = os.path.join(os.path.dirname(os.path.abspath(__file__)), "golden", "flags.txt")


def _flags(parser, prefix: str) -> list[str]:
    """Every flag of a parser and of its subcommands, one a line."""
    lines = []
    for action in parser._actions:
        if action.choices and hasattr(action.choices, "items"):
            for name, below in action.choices.items():
                lines += _flags(below, f"{prefix} {name}")
        elif action.option_strings and "--help" not in action.option_strings:
            lines.append(f"{prefix} {' '.join(action.option_strings)}")
        elif not action.option_strings:
            lines.append(f"{prefix} {action.dest}")
    return lines


def _flags_of_verb(verb: str) -> list[str]:
    """Every flag of a verb and its actions; flags of kinds that are not the default have the kind behind them."""
    command = command_of(verb)
    actions = [(f"{verb} {choice.name}", action) for action, choice in map(get_args, get_args(command))]
    lines = []
    for prefix, action in actions or [(verb, command)]:
        if any(f.default is MISSING and f.default_factory is MISSING for f in fields(action)):
            lines += _flags(tyro.extras.get_parser(action), prefix)
            continue
        lines += (known := _flags(_parser(action()), prefix))
        for kind, other in _other_kinds(action()):
            lines += [f"{line} ({kind})" for line in _flags(_parser(other), prefix) if line not in known]
    return lines


def _parser(default):
    return tyro.extras.get_parser(type(default), default=default, config=CONFIG)


def _other_kinds(config):
    """The config with each kind of each of its unions that is not the one it has."""
    hints = get_type_hints(type(config))
    for name in (f.name for f in fields(config)):
        if not is_dataclass(value := getattr(config, name)):
            continue
        if union := tagged_union(hints[name]):
            for kind in union.members:
                if kind != getattr(value, union.tag):
                    yield f"{union.tag} {kind}", replace(config, **{name: with_kind(value, hints[name], kind)})
        for kind, other in _other_kinds(value):
            yield kind, replace(config, **{name: other})


def test_the_set_of_flags_is_the_one_that_was_agreed():
    """To change it deliberately: MVPOSE_GOLDEN=write pytest tests/test_cli.py, and say so in CHANGELOG.md."""
    flags = [line for verb in VERBS for line in _flags_of_verb(verb)]
    text = "\n".join(flags) + "\n"
    if os.environ.get("MVPOSE_GOLDEN") == "write":
        with open(GOLDEN, "w") as file:
            file.write(text)
    with open(GOLDEN) as file:
        assert text == file.read()


def test_help_lists_every_verb(capsys):
    assert run(["--help"]) == 0
    said = capsys.readouterr().out
    assert all(verb in said for verb in VERBS)


def test_a_mistyped_verb_is_named_and_corrected_in_one_line(capsys):
    assert run(["reconstrct"]) == 2
    said = capsys.readouterr().err
    assert said == "mvpose: no verb is named 'reconstrct' (did you mean reconstruct?)\n"
    assert run(["qqq"]) == 2
    said = capsys.readouterr().err
    assert all(verb in said for verb in VERBS)


WRONG_NAMES = {
    "flag": (["reconstruct", "a", "--outptu", "b"], "--output"),
    "format": (["export", "r", "--format", "tcr"], "trc"),
    "subcommand": (["dataset", "convrt"], "did you mean convert?"),
    "tool": (["import", "openpsoe", "joints", "--fps", "30"], "did you mean openpose?"),
    "rig": (["dataset", "render", "--rig", "ring5", "--output", "o"], "ring4"),
    "smoothing": (["reconstruct", "a", "--output", "b", "--filtering.smoothing", "buterworth"], "butterworth"),
    "action": (["models", "fetsh"], "fetch"),
    "benchmark": (["evaluate", "m", "--benchmark", "rendered-rig4"], "did you mean rendered-ring4?"),
    "protocol": (["evaluate", "m", "--data", "t", "--protocol", "human36m-every-64"], "did you mean human36m-every64?"),
    "detector": (["check", "{archive}", "--detector.detector", "mvpose.models.detection.detector:TopDwnDetector"],
                 "did you mean TopDownDetector?"),
    "card": (["check", "{archive}", "--detector.person-card", "yolox_tiny_humanat"],
             "did you mean yolox_tiny_humanart?"),
    "model": (["reconstruct", "{archive}", "--output", "b", "--model", "{models}/fusd"], "there are fused/model"),
}  # fmt: skip


@pytest.mark.parametrize("what", WRONG_NAMES)
def test_a_wrong_name_is_answered_with_the_right_one(what, tmp_path, capsys):
    archive, models = write_capture(str(tmp_path / "archive" / "one"), 2), tmp_path / "models" / "fused" / "model"
    models.mkdir(parents=True)
    (models / "model.json").write_text("{}")
    arguments, right = WRONG_NAMES[what]
    places = {"archive": os.path.dirname(archive), "models": str(tmp_path / "models")}
    try:
        code = run([a.format(**places) for a in arguments])
    except SystemExit as refused:  # of tyro
        code = refused.code
    said = capsys.readouterr()
    assert code != 0 and right in said.err + said.out
    assert "Traceback" not in said.err


def test_a_wrong_setting_in_a_named_run_is_one_sentence(tmp_path, capsys):
    (tmp_path / "run.toml").write_text("clip_frame = 3\n")
    assert run(["reconstruct", "--config", str(tmp_path / "run.toml"), "a", "--output", "b"]) == 1
    said = capsys.readouterr().err
    assert "clip_frame" in said and "run.toml" in said and said.count("\n") == 1


def test_flags_override_a_named_run(tmp_path, monkeypatch):
    from mvpose.cli import parse

    (tmp_path / "run.toml").write_text("clip_frames = 3\n[detector]\nmax_boxes = 2\n")
    command = parse("reconstruct", ["a", "--output", "b", "--config", str(tmp_path / "run.toml"), "--clip-frames", "9"])
    assert (command.clip_frames, command.detector.max_boxes, command.archive) == (9, 2, "a")


@pytest.mark.parametrize("verb", ["reconstruct", "view", "index"])
def test_a_verb_without_its_argument_says_what_is_missing(verb, capsys):
    assert run([verb]) == 1
    assert f"mvpose {verb}" in capsys.readouterr().err


def test_an_installation_without_onnx_runtime_says_what_to_install():
    code = "import sys; sys.modules['onnxruntime'] = None; from mvpose.cli import run; sys.exit(run(['reconstruct']))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 1 and "install mvpose[cpu] or mvpose[gpu], not both" in done.stderr
    assert "Traceback" not in done.stderr


HEAVY = ["torch", "pyarrow", "pandas", "scipy", "cv2", "av", "onnxruntime", "numba", "matplotlib", "mlflow", "ray"]
LIGHT = {
    "nothing": "import mvpose",
    "usage": "import mvpose.cli as c; c.run(['--help'])",
    "mistake": "import mvpose.cli as c; c.run(['reconstrct'])",
} | {
    verb: f"import mvpose.cli as c\ntry: c.run(['{verb}', '--help'])\nexcept SystemExit: pass"
    for verb in VERBS
    if verb not in ("dataset", "benchmark")  # their flags are the fields of the readers and measurements themselves
}


@pytest.mark.parametrize("what", LIGHT)
def test_the_command_starts_without_loading_what_it_does_not_need(what):
    code = f"import sys\n{LIGHT[what]}\nprint(sorted(set({HEAVY}) & sys.modules.keys()))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"


def test_the_door_offers_its_names_and_no_others():
    import mvpose

    assert set(mvpose.__all__) <= set(dir(mvpose))
    for name in mvpose.__all__:
        assert getattr(mvpose, name).__name__ == name
    with pytest.raises(AttributeError, match="no attribute 'triangulat'"):
        mvpose.triangulat  # noqa: B018

"""What README shows works: Python blocks run, commands of mvpose have the flags they are shown with."""

import os
import re
import shlex

import pytest

from mvpose.archive.capture_toml import CAPTURE_TOML, read_capture_toml
from mvpose.cli import VERBS, parse

REPOSITORY = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))


def _blocks(language: str) -> list[str]:
    with open(os.path.join(REPOSITORY, "README.md")) as readme:
        return re.findall(rf"```{language}\n(.*?)```", readme.read(), flags=re.DOTALL)


def _commands() -> list[str]:
    lines = [line for block in _blocks("sh") for line in block.replace("\\\n", " ").splitlines()]
    return [line.split("#")[0].strip() for line in lines if line.startswith("mvpose ")]


def test_readme_shows_code_and_commands():
    assert _blocks("python") and _commands()


@pytest.mark.parametrize("block", _blocks("python"), ids=range(len(_blocks("python"))))
def test_python_blocks_of_readme_run(block, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    exec(compile(block, "README.md", "exec"), {})


@pytest.mark.parametrize("block", _blocks("toml"), ids=range(len(_blocks("toml"))))
def test_the_capture_toml_of_readme_is_read(block, tmp_path):
    (tmp_path / CAPTURE_TOML).write_text(block)
    settings = read_capture_toml(str(tmp_path), (), False)
    assert settings.fps and settings.videos["cam02"].first_frame == 12


@pytest.mark.parametrize("command", _commands())
def test_commands_of_readme_have_the_flags_they_show(command, monkeypatch):
    monkeypatch.chdir(REPOSITORY)
    _, verb, *arguments = shlex.split(command)
    assert verb in VERBS
    parse(verb, arguments)


def test_make_targets_of_readme_exist():
    with open(os.path.join(REPOSITORY, "Makefile")) as makefile:
        targets = set(re.findall(r"^(\w+):", makefile.read(), flags=re.MULTILINE))
    shown = {line.split()[1] for block in _blocks("sh") for line in block.splitlines() if line.startswith("make ")}
    assert {"demo", "test"} <= shown <= targets

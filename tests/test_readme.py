"""What README shows works: Python blocks run, commands of mvpose have the flags they are shown with."""

import os
import re
import shlex

import pytest

from mvpose.cli import VERBS, parse
from mvpose.footage.capture_toml import CAPTURE_TOML, read_capture_toml

REPOSITORY = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))


PAGES = ("README.md", "jobs/README.md", "mvpose/README.md", "cluster/README.md", "mlflow/README.md")


def _blocks(language: str, pages: tuple[str, ...] = PAGES) -> list[str]:
    found = []
    for page in pages:
        with open(os.path.join(REPOSITORY, page)) as file:
            found += re.findall(rf"```{language}\n(.*?)```", file.read(), flags=re.DOTALL)
    return found


def _commands() -> list[str]:
    lines = [line for block in _blocks("sh") for line in block.replace("\\\n", " ").splitlines()]
    return [line.split("#")[0].strip() for line in lines if re.match(r"mvpose [a-z]", line)]


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


def test_links_between_the_pages_lead_somewhere():
    for page in PAGES:
        folder = os.path.dirname(os.path.join(REPOSITORY, page))
        with open(os.path.join(REPOSITORY, page)) as file:
            links = re.findall(r"\]\(([^)#]+)(?:#([^)]*))?\)", file.read())
        for target, section in links:
            if target.startswith("http"):
                continue
            path = os.path.join(folder, target)
            assert os.path.exists(path), (page, target)
            if section:
                with open(path) as file:
                    headings = re.findall(r"^#+ (.*)$", file.read(), flags=re.MULTILINE)
                assert section in {h.lower().replace(" ", "-") for h in headings}, (page, section)


def test_the_map_names_every_room():
    with open(os.path.join(REPOSITORY, "mvpose", "README.md")) as file:
        page = file.read()
    rooms = {e for e in os.listdir(os.path.join(REPOSITORY, "mvpose")) if not e.startswith("_") and e != "README.md"}
    missing = {room for room in rooms if f"`{room}" not in page}
    assert not missing


# Words that read as translated, or have a standard term in this field.
UNWANTED = re.compile(
    r"\b(told|whom|badness|swept|strangers?|leftovers|gone on|go on|in spite of|dear|pictures?|begun|anew)\b",
    re.IGNORECASE,
)


def test_code_help_errors_and_pages_use_plain_words():
    files = [os.path.join(REPOSITORY, page) for page in PAGES]
    for folder in ("mvpose", "jobs"):
        for place, _, names in os.walk(os.path.join(REPOSITORY, folder)):
            files += [os.path.join(place, name) for name in names if name.endswith((".py", ".toml", ".js"))]
    found = []
    for path in files:
        with open(path, encoding="utf-8") as file:
            for number, line in enumerate(file, start=1):
                found += [f"{path}:{number}: {word.group()}" for word in UNWANTED.finditer(line)]
    assert not found, "\n".join(found)

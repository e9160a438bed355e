"""Named runs that extend one another, kinds of settings, and the two lengths of help."""

import os
import subprocess
import sys

import pytest

from mvpose.cli import common_flags, parse, run
from mvpose.commands.parsing import named_run
from mvpose.commands.run_flags import Reconstruct
from mvpose.errors import ConfigError
from mvpose.temporal.filter_settings import ButterworthFilter, MedianFilter, OneEuroFilter

GOLDEN = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "golden")
JOB = ["reconstruct", "archive", "--output", "out"]


def written(folder, **files: str) -> dict[str, str]:
    """Locations of TOML files by name."""
    for name, text in files.items():
        (folder / f"{name}.toml").write_text(text)
    return {name: str(folder / f"{name}.toml") for name in files}


def test_a_named_run_extends_another_of_its_folder_and_later_keys_win(tmp_path, monkeypatch):
    (tmp_path / "below").mkdir()
    files = written(
        tmp_path,
        ground="clip_frames = 7\nmax_failed_share = 0.5\n[detector]\nmax_boxes = 2\nbatch_size = 3\n",
        middle='extends = "ground.toml"\nclip_frames = 8\n[detector]\nmax_boxes = 5\n',
    )
    (tmp_path / "below" / "top.toml").write_text('extends = "../middle.toml"\nclip_frames = 9\n')
    for uri in (str(tmp_path / "below" / "top.toml"), "below/top.toml"):
        monkeypatch.chdir(tmp_path)
        job = named_run(uri, Reconstruct)
        assert (job.clip_frames, job.max_failed_share) == (9, 0.5)
        assert (job.detector.max_boxes, job.detector.batch_size) == (5, 3)
    assert named_run(files["ground"], Reconstruct).clip_frames == 7


def test_lists_are_replaced_and_not_joined(tmp_path):
    from mvpose.commands.network_flags import Train

    files = written(
        tmp_path,
        ground='[samples]\ncameras = ["a", "b"]\n',
        top='extends = "ground.toml"\n[samples]\ncameras = ["c"]\n',
    )
    assert named_run(files["top"], Train).samples.cameras == ("c",)


@pytest.mark.parametrize(
    ("files", "said"),
    [
        ({"a": 'extends = "b.toml"', "b": 'extends = "a.toml"'}, "extends itself"),
        ({"a": 'extends = "a.toml"'}, "extends itself"),
        ({"a": 'extends = "gone.toml"'}, "gone.toml: there is no such file"),
        ({"a": "extends = 3"}, "the name of a file"),
        ({"a": 'extends = "b.toml"', "b": "clip_frame = 3"}, "clip_frame"),
    ],
)
def test_a_chain_that_leads_nowhere_is_refused(files, said, tmp_path, capsys):
    assert run([*JOB, "--config", written(tmp_path, **files)["a"]]) == 1
    assert said in (told := capsys.readouterr().err) and told.count("\n") == 1


def test_a_flag_chooses_the_kind_and_sets_what_belongs_to_it():
    assert parse("reconstruct", JOB[1:]).filtering == ButterworthFilter()
    flags = ["--filtering.smoothing", "one_euro", "--filtering.one-euro-beta=2", "--filtering.gap-frames", "3"]
    assert parse("reconstruct", [*JOB[1:], *flags]).filtering == OneEuroFilter(one_euro_beta=2.0, gap_frames=3)
    chosen = parse("import", ["pose2sim", "joints", "--output", "o", "--filtering.smoothing=median"])
    assert chosen.filtering == MedianFilter()


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (["--filtering.one-euro-beta", "2"], "--filtering.one-euro-beta belongs to --filtering.smoothing one_euro"),
        (["--filtering.one_euro_beta=2"], "belongs to --filtering.smoothing one_euro, but --filtering.smoothing is bu"),
        (["--filtering.smoothing", "median", "--filtering.cutoff-hz", "4"], "butterworth and kalman_velocity"),
        (["--filtering.smoothing", "medina"], "'medina' is not one of butterworth"),
    ],
)
def test_a_flag_of_another_kind_is_refused_with_the_kind_it_belongs_to(flags, said, capsys):
    assert run([*JOB, *flags]) == 1
    assert said in (told := capsys.readouterr().err) and told.count("\n") == 1


def test_a_setting_of_another_kind_in_a_named_run_is_refused(tmp_path, capsys):
    files = written(tmp_path, a='[filtering]\nsmoothing = "median"\nbutterworth_order = 2\n')
    assert run([*JOB, "--config", files["a"]]) == 1
    assert "butterworth_order belongs to smoothing butterworth, but smoothing is median" in capsys.readouterr().err


def test_another_kind_by_flag_keeps_of_a_named_run_what_both_kinds_have(tmp_path):
    files = written(tmp_path, a="[filtering]\ngap_frames = 4\nbutterworth_order = 2\n")
    chosen = parse("reconstruct", [*JOB[1:], "--config", files["a"], "--filtering.smoothing", "median"])
    assert chosen.filtering == MedianFilter(gap_frames=4)


HELPS = [["reconstruct"], ["import", "pose2sim"], ["train"], ["tune"]]


def helped(arguments: list[str], capsys) -> str:
    with pytest.raises(SystemExit) as left:
        run(arguments)
    assert left.value.code == 0
    return capsys.readouterr().out


def test_the_short_helps_show_the_flags_that_were_agreed(capsys, monkeypatch):
    """To change them deliberately: MVPOSE_GOLDEN=write pytest tests/commands/test_parsing.py."""
    monkeypatch.setenv("COLUMNS", "80")
    lines = []
    for verb in HELPS:
        shown = [line[2:] for line in helped([*verb, "--help"], capsys).splitlines() if line.startswith("  -")]
        lines += [f"{' '.join(verb)} {line}" for line in shown]
        flags = {flag.rstrip(",") for line in shown for flag in line.split() if flag.startswith("--")}
        assert set(common_flags(verb[0])) - flags == set()
    path, text = os.path.join(GOLDEN, "short_help.txt"), "\n".join(lines) + "\n"
    if os.environ.get("MVPOSE_GOLDEN") == "write":
        with open(path, "w") as file:
            file.write(text)
    with open(path) as file:
        assert text == file.read()


@pytest.mark.parametrize("verb", HELPS)
def test_a_short_help_fits_on_two_screens_and_names_the_long_one(verb):
    code = f"from mvpose.cli import run; run({[*verb, '--help']})"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, stdin=subprocess.DEVNULL)
    assert len(done.stdout.splitlines()) <= 100 and "--help-all" in done.stdout
    assert max(map(len, done.stdout.splitlines())) <= 120


def test_the_long_help_shows_every_flag(capsys):
    said = helped(["reconstruct", "--help-all"], capsys)
    assert "--max-attempts" in said and "--filtering.butterworth-order" in said
    assert "--filtering.one-euro-beta" in helped(
        ["reconstruct", "--filtering.smoothing", "one_euro", "--help-all"], capsys
    )
    assert "--max-attempts" not in helped(["reconstruct", "--help"], capsys)


def test_an_incomplete_command_line_still_gets_the_short_help(tmp_path, capsys):
    with pytest.raises(ConfigError):
        parse("reconstruct", ["--config"])
    assert "usage: mvpose reconstruct [ARCHIVE]" in helped(["reconstruct", "-h"], capsys)


def test_former_settings_of_people_name_the_one_that_replaces_them(tmp_path, capsys):
    for flag in ("--reconstruction.max-people", "--detector.max_people=3"):
        with pytest.raises(ConfigError, match="--people N or all"):
            parse("reconstruct", ["a", "--output", "b", flag, "2"])
    for table in ("reconstruction", "detector"):
        files = written(tmp_path, old=f"[{table}]\nmax_people = 2\n")
        with pytest.raises(ConfigError, match="--people N or all"):
            named_run(files["old"], Reconstruct)


@pytest.mark.parametrize(("text", "people"), [("3", 3), ('"all"', "all")])
def test_people_are_a_number_or_all(text, people, tmp_path):
    assert named_run(written(tmp_path, run=f"people = {text}\n")["run"], Reconstruct).people == people
    assert parse("reconstruct", ["--people", str(people)]).people == people


@pytest.mark.parametrize("text", ["0", '"some"', "true", "2.5"])
def test_people_of_another_kind_are_refused(text, tmp_path):
    with pytest.raises(ConfigError, match="people"):
        named_run(written(tmp_path, run=f"people = {text}\n")["run"], Reconstruct)


def test_the_former_size_of_waves_says_that_it_is_not_needed():
    with pytest.raises(ConfigError, match=r"unknown flag --wave-clips: leave it out: captures are finished one by one"):
        parse("reconstruct", ["a", "--output", "b", "--wave-clips", "2"])

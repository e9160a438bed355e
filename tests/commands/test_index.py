"""An archive is indexed again and again: what is known is not opened, what changed is, and SQL engines can read it."""

import os

import pyarrow.compute as pc
import pyarrow.dataset as ds
import pytest

from mvpose.commands.index import Index, run
from mvpose.errors import ConfigError
from mvpose.footage import catalogue as catalogue_module
from mvpose.footage.catalogue import CatalogueConfig, find_captures, rig_digest
from mvpose.footage.catalogue_table import known_videos, read_capture, read_catalogue
from tests.footage.archives import pose2sim, write, write_images, write_video

CAMERAS = ["cam01", "cam02", "cam03"]


@pytest.fixture
def opened(monkeypatch) -> list[str]:
    """Names of the captures whose videos are opened; they are opened all the same."""
    seen: list[str] = []
    probe = catalogue_module.probe

    def spied(uri: str, *rest):
        seen.append(uri.split("/archive/")[1].split("/")[0])
        return probe(uri, *rest)

    monkeypatch.setattr(catalogue_module, "probe", spied)
    return seen


@pytest.fixture
def archive(tmp_path) -> str:
    for name in ("one", "two"):
        pose2sim(str(tmp_path / "archive" / name), num_frames=3)
    return str(tmp_path / "archive")


def indexed(archive: str, **settings) -> str:
    output = os.path.join(os.path.dirname(archive), "catalogue.parquet")
    run(Index(archive=archive, output=output, **settings))
    return output


def test_what_is_known_is_not_opened_again(archive, opened, capsys):
    first = read_catalogue(indexed(archive))
    assert sorted(set(opened)) == ["one", "two"] and len(opened) == 6
    opened.clear()
    again = read_catalogue(indexed(archive))
    assert opened == [] and "0 videos were opened" in capsys.readouterr().out
    assert [c.videos for c in again.captures] == [c.videos for c in first.captures]
    assert [rig_digest(c.rig) for c in again.captures] == [rig_digest(c.rig) for c in first.captures]


def test_new_and_changed_videos_are_opened_and_those_that_went_are_forgotten(archive, opened):
    indexed(archive)
    opened.clear()
    write_video(os.path.join(archive, "two", "videos", "cam01.mp4"), num_frames=5)
    pose2sim(os.path.join(archive, "three"), num_frames=3)
    output = indexed(archive)
    assert sorted(opened) == ["three"] * 3 + ["two"]
    assert [c.videos[0].num_frames for c in read_catalogue(output).captures] == [3, 3, 5]
    os.rename(os.path.join(archive, "one"), os.path.join(archive, ".gone"))
    assert [c.capture_id for c in read_catalogue(indexed(archive)).captures] == ["three", "two"]


def test_full_opens_every_video(archive, opened):
    indexed(archive)
    opened.clear()
    indexed(archive, full=True)
    assert len(opened) == 6


def test_another_rate_or_calibration_holds_without_a_video_being_opened(archive, opened):
    before = read_catalogue(indexed(archive, catalogue=CatalogueConfig(fps=50.0))).captures[0]
    opened.clear()
    calibration = os.path.join(archive, "one", "calibration", "Calib.toml")
    with open(calibration) as file:
        text = file.read()
    write(calibration, text.replace("110.0", "112.0"))
    after = read_catalogue(indexed(archive)).captures[0]
    assert opened == [] and (before.fps, after.fps) == (50.0, 30.0)
    assert rig_digest(after.rig) != rig_digest(before.rig)


def test_images_whose_rate_is_told_no_more_are_a_problem_though_they_are_known(tmp_path):
    archive = str(tmp_path / "archive")
    pose2sim(f"{archive}/one")
    for camera in CAMERAS:
        os.remove(f"{archive}/one/videos/{camera}.mp4")
        write_images(f"{archive}/one/videos/{camera}")
    known = known_videos(indexed(archive, catalogue=CatalogueConfig(fps=25.0)))
    assert len(known) == 3
    assert find_captures(archive, CatalogueConfig(), known).problems


def test_the_catalogue_answers_questions_as_a_table(archive):
    write(os.path.join(archive, "bad", "capture.toml"), "[")
    write_video(os.path.join(archive, "two", "videos", "extra.mp4"))
    table = ds.dataset(indexed(archive))
    frames = table.to_table(filter=(pc.field("camera") == "cam02") & (pc.field("num_frames") == 3), columns=["capture"])
    assert sorted(frames["capture"].to_pylist()) == ["one", "two"]
    (bad,) = table.to_table(filter=~pc.field("reason").is_null()).to_pylist()
    assert bad["capture"] == "bad" and bad["reason"] == "config" and "capture.toml" in bad["detail"]
    notes = table.to_table(filter=pc.field("camera").is_null() & pc.field("reason").is_null())["detail"].to_pylist()
    assert any("extra" in note for note in notes)


def test_one_capture_is_read_alone(archive):
    output = indexed(archive)
    whole = read_catalogue(output).captures[1]
    alone = read_capture(output, "two")
    assert (alone.capture_id, alone.videos, rig_digest(alone.rig)) == ("two", whole.videos, rig_digest(whole.rig))
    with pytest.raises(ConfigError, match="no capture three"):
        read_capture(output, "three")


def test_a_catalogue_that_cannot_be_used_is_refused_with_the_way_out(archive):
    output = write(os.path.join(os.path.dirname(archive), "catalogue.parquet"), "damaged")
    with pytest.raises(ConfigError, match="cannot be read as a catalogue"):
        indexed(archive)
    assert run(Index(archive=archive, output=output, full=True)) == 0


def test_more_captures_than_are_held_at_a_time_are_all_found_once(archive, tmp_path, monkeypatch):
    monkeypatch.setattr(catalogue_module, "CAPTURES_AT_ONCE", 2)
    for i in range(5):
        pose2sim(os.path.join(archive, "below", f"take{i}"), num_frames=2)
    found = [c.capture_id for c in find_captures(archive, CatalogueConfig()).captures]
    assert found == [*(f"below/take{i}" for i in range(5)), "one", "two"]

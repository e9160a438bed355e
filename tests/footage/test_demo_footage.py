"""The demo archive from a folder that stands for the wheel: what is there stays, what is missing is made."""

import os
import shutil

import pytest

from mvpose.errors import VideoError
from mvpose.footage.demo_footage import CAPTURES, DAMAGED, VIDEOS, make_demo_archive


@pytest.fixture
def source(tmp_path) -> str:
    """The footage's files, of a hundred bytes each."""
    for demo, calibration in CAPTURES.values():
        for i, file in enumerate((*VIDEOS, calibration)):
            path = tmp_path / "Pose2Sim" / demo / file
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(f"{demo} {i} ".encode().ljust(100))
    return str(tmp_path / "Pose2Sim")


def files(folder: str) -> dict[str, bytes]:
    found = {}
    for place, _, names in os.walk(folder):
        for name in names:
            with open(os.path.join(place, name), "rb") as file:
                found[os.path.relpath(os.path.join(place, name), folder)] = file.read()
    return found


def test_the_archive_has_both_captures_whole_and_a_copy_with_one_video_cut_off(source, tmp_path):
    archive = make_demo_archive(str(tmp_path / "archive"), source)
    assert sorted(os.listdir(archive)) == sorted([*CAPTURES, DAMAGED])
    made = files(archive)
    for name, (demo, _) in CAPTURES.items():
        whole = files(os.path.join(source, demo))
        assert {file: made[f"{name}/{file}"] for file in whole} == whole
    halves = {file for file in files(f"{archive}/{DAMAGED}") if len(made[f"{DAMAGED}/{file}"]) == 50}
    assert halves == {VIDEOS[2]}


@pytest.mark.parametrize("lost", [*CAPTURES, DAMAGED])
def test_a_missing_capture_is_made_again_and_the_others_are_not_touched(source, tmp_path, lost):
    archive = make_demo_archive(str(tmp_path / "archive"), source)
    whole = files(archive)
    for name in {*CAPTURES, DAMAGED} - {lost}:
        with open(os.path.join(archive, name, "mine.txt"), "w") as note:
            note.write("mine")
    shutil.rmtree(os.path.join(archive, lost))
    make_demo_archive(archive, source)
    again = files(archive)
    assert sum(os.path.basename(file) == "mine.txt" for file in again) >= 2
    assert {file: again[file] for file in whole} == whole


def test_the_damaged_copy_is_made_of_what_is_there_without_the_source(source, tmp_path):
    archive = make_demo_archive(str(tmp_path / "archive"), source)
    shutil.rmtree(os.path.join(archive, DAMAGED))
    make_demo_archive(archive, str(tmp_path / "nowhere"))
    assert VIDEOS[2] in files(os.path.join(archive, DAMAGED))


def test_a_source_that_is_not_whole_is_told_and_leaves_no_half_capture(source, tmp_path):
    os.remove(os.path.join(source, "Demo_MultiPerson", VIDEOS[3]))
    with pytest.raises(VideoError, match=r"Demo_MultiPerson.*cam04\.mp4 is missing"):
        make_demo_archive(str(tmp_path / "archive"), source)
    assert os.listdir(tmp_path / "archive") == ["single_person"]

import pytest

from mvpose.archive.capture_toml import read_capture_toml
from mvpose.archive.catalogue import CatalogueConfig, find_captures
from mvpose.errors import ConfigError
from tests.archive.archives import pose2sim, small_ring, write, write_pictures, write_video
from tests.archive.calibration.rig_files import toml_text


def test_everything_can_be_told_explicitly(tmp_path):
    cameras = small_ring(["a", "b", "c"])
    write(str(tmp_path / "rigs" / "monday.toml"), toml_text(cameras, scale=1 / 0.0254))
    write_video(str(tmp_path / "raw" / "x1.mp4"), num_frames=6)
    write_video(str(tmp_path / "raw" / "x2.mp4"), num_frames=8, size=(112, 96))
    write_pictures(str(tmp_path / "walk" / "c_frames"), num_frames=5)
    write(
        str(tmp_path / "walk" / "capture.toml"),
        """
        id = "monday/walk 3"
        calibration = "../rigs/monday.toml"
        unit = "in"
        up = "z"
        fps = 50.0
        [videos]
        b = { uri = "../raw/x2.mp4", first_frame = 3, picture_fit = "scale" }
        a = "../raw/x1.mp4"
        c = "c_frames"
        """,
    )
    catalogue = find_captures(str(tmp_path), CatalogueConfig())
    (capture,) = catalogue.captures
    assert capture.capture_id.startswith("monday/walk_3-")
    assert capture.rig.names == ("a", "b", "c") and capture.fps == 50.0
    assert [v.first_frame for v in capture.videos] == [0, 3, 0] and capture.num_frames == 5
    assert capture.rig.focal[1, 0] == pytest.approx(110.0 * 112 / 128)
    assert capture.rig.centres_world[0, 2] == pytest.approx(1.4)


@pytest.mark.parametrize(
    "location",
    ["../../secret.mp4", "/etc/passwd", "s3://other/x.mp4", "file:///etc/passwd", "a/../../../x", "a\\u0000b"],
)
def test_a_location_cannot_leave_the_archive(location, tmp_path):
    pose2sim(str(tmp_path / "archive" / "w"))
    write(str(tmp_path / "archive" / "w" / "capture.toml"), f'[videos]\ncam01 = "{location}"\n')
    (problem,) = find_captures(str(tmp_path / "archive"), CatalogueConfig()).problems
    assert "outside the archive" in problem.detail or "control character" in problem.detail


def test_absolute_locations_are_taken_where_the_job_allows_them(tmp_path):
    pose2sim(str(tmp_path / "elsewhere"))
    videos = "\n".join(f'cam0{i} = "{tmp_path}/elsewhere/videos/cam0{i}.mp4"' for i in (1, 2))
    calibration = f'calibration = "{tmp_path}/elsewhere/calibration/Calib.toml"\n'
    write(str(tmp_path / "archive" / "capture.toml"), f"{calibration}[videos]\n{videos}\n")
    assert find_captures(str(tmp_path / "archive"), CatalogueConfig()).problems
    (capture,) = find_captures(str(tmp_path / "archive"), CatalogueConfig(outside_archive=True)).captures
    assert capture.rig.names == ("cam01", "cam02")
    write(str(tmp_path / "archive" / "capture.toml"), '[videos]\na = "../elsewhere/videos/cam01.mp4"\n')
    assert find_captures(str(tmp_path / "archive"), CatalogueConfig(outside_archive=True)).problems


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("unit = 'km'", "unit"),
        ("fps = 'fast'", "fps"),
        ("fps = -1.0", "fps"),
        ("fps = nan", "fps"),
        ("videos = 3", "videos"),
        ("[videos]\na = { uri = 'x', first_frame = -2 }", "first_frame of a"),
        ("[videos]\na = { uri = 'x', first_frame = 1.5 }", "first_frame of a is 1.5"),
        ("[videos]\na = { url = 'x' }", "url"),
        ("[videos]\na = { uri = 'x', picture_fit = 'squeeze' }", "picture_fit"),
        ("a = " + "[" * 5000, "capture.toml"),
        ("colour = 'red'", "colour"),
        ("pairing = 'time'", "pairing: 'time' is not one of clock, order$"),
    ],
)
def test_wrong_keys_and_values_are_named(text, said, tmp_path):
    write(str(tmp_path / "w" / "capture.toml"), text)
    with pytest.raises(ConfigError, match=said) as error:
        read_capture_toml(str(tmp_path), ["w"], False)
    assert "capture.toml" in str(error.value)


def test_an_offset_beyond_the_end_is_a_problem(tmp_path):
    pose2sim(str(tmp_path / "w"))
    text = '[videos]\ncam01 = "videos/cam01.mp4"\ncam02 = { uri = "videos/cam02.mp4", first_frame = 4 }\n'
    write(str(tmp_path / "w" / "capture.toml"), text)
    (problem,) = find_captures(str(tmp_path), CatalogueConfig()).problems
    assert "cam02 (4)" in problem.detail


def test_a_capture_toml_without_any_videos_says_so(tmp_path):
    write(str(tmp_path / "w" / "capture.toml"), "id = 'w'")
    (problem,) = find_captures(str(tmp_path), CatalogueConfig()).problems
    assert "names no videos" in problem.detail

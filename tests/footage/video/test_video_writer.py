import av
import numpy as np
import pytest

from mvpose.errors import ResultsError
from mvpose.footage.video.frames import probe, read_frames
from mvpose.footage.video.video_writer import write_video
from tests.footage.numbered_video import HEIGHT, WIDTH, numbered_image, numbers_of, opencv_images


def test_what_was_written_is_read_back(tmp_path) -> None:
    uri = f"{tmp_path}/new/folder/film.mp4"
    write_video(uri, (numbered_image(k) for k in range(50)), 29.97)
    video = probe(uri, "film")
    assert (video.num_frames, video.size) == (50, (WIDTH, HEIGHT))
    assert video.fps == pytest.approx(29.97, rel=1e-6)
    assert numbers_of(read_frames(video, 0, 50)) == list(range(50)) == numbers_of([np.stack([*opencv_images(uri)])])


@pytest.mark.parametrize("colour", [(255, 0, 0), (0, 255, 0), (0, 0, 255), (200, 120, 40), (255, 255, 255), (0, 0, 0)])
def test_colours_survive(tmp_path, colour: tuple[int, int, int]) -> None:
    uri = f"{tmp_path}/colour.mp4"
    write_video(uri, [np.full((64, 96, 3), colour, np.uint8)] * 3, 30.0)
    frames = next(read_frames(probe(uri, "film"), 0, 3))
    np.testing.assert_allclose(frames[1].astype(int), np.broadcast_to(colour, (64, 96, 3)), atol=4)


@pytest.mark.parametrize(("height", "width"), [(95, 127), (96, 127), (95, 128), (1, 1)])
def test_odd_sizes_are_padded_by_their_last_row_and_column(tmp_path, height: int, width: int) -> None:
    uri = f"{tmp_path}/odd.mp4"
    image = np.full((height, width, 3), 180, np.uint8)
    write_video(uri, [image] * 2, 25.0)
    frames = next(read_frames(probe(uri, "film"), 0, 2))
    assert frames.shape == (2, height + height % 2, width + width % 2, 3)
    np.testing.assert_allclose(frames.astype(int), 180, atol=4)


def test_every_player_can_show_it(tmp_path) -> None:
    uri = f"{tmp_path}/film.mp4"
    write_video(uri, [numbered_image(k) for k in range(5)], 60.0)
    with av.open(uri) as container:
        stream = container.streams.video[0]
        assert (stream.codec_context.name, stream.pix_fmt, stream.average_rate) == ("h264", "yuv420p", 60)
    with open(uri, "rb") as file:
        data = file.read()
    assert data.index(b"moov") < data.index(b"mdat")


def test_a_video_can_be_written_to_s3(s3: str) -> None:
    write_video(f"{s3}/report/film.mp4", [numbered_image(k) for k in range(9)], 30.0)
    assert numbers_of(read_frames(probe(f"{s3}/report/film.mp4", "film"), 3, 9)) == list(range(3, 9))


def test_no_frames_and_frames_of_several_sizes_are_value_errors(tmp_path) -> None:
    with pytest.raises(ValueError, match="no frames"):
        write_video(f"{tmp_path}/none.mp4", [], 30.0)
    with pytest.raises(ValueError, match="cannot both be written"):
        write_video(f"{tmp_path}/two.mp4", [numbered_image(0), numbered_image(1)[:64]], 30.0)
    assert not list(tmp_path.iterdir())


def test_a_place_that_cannot_be_written_is_said(tmp_path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(ResultsError, match=r"file/film.mp4"):
        write_video(f"{tmp_path}/file/film.mp4", [numbered_image(0)], 30.0)

import os
import struct
from zlib import crc32

import cv2
import numpy as np
import pytest
from fsspec.implementations.local import LocalFileSystem

from mvpose.errors import VideoError, VideoTooShortError
from mvpose.footage.video import video_container
from mvpose.footage.video.frame_clock import ticks_of
from mvpose.footage.video.frames import probe, read_frames, read_images
from mvpose.storage.commits import write_whole
from tests.footage.numbered_video import HEIGHT, WIDTH, numbered_image, numbers_of


def write_images(folder: str, names: dict[int, str]) -> str:
    os.makedirs(folder, exist_ok=True)
    for number, name in names.items():
        assert cv2.imwrite(os.path.join(folder, name), numbered_image(number)[..., ::-1])
    return folder


@pytest.mark.parametrize(
    "names",
    [
        {k: f"{k}.png" for k in range(12)},
        {k: f"frame_{k + 1:06d}.jpg" for k in range(12)},
        {k: f"cam01.2024-{5 * k + 100}_hd.JPEG" for k in range(12)},
    ],
)
def test_images_are_frames_in_the_order_of_their_numbers(tmp_path, names: dict[int, str]) -> None:
    folder = write_images(f"{tmp_path}/cam01", names)
    (tmp_path / "cam01" / "notes.txt").write_text("no image")
    video = probe(folder, "cam01", fps=50.0)
    assert (video.num_frames, video.size, video.fps) == (12, (WIDTH, HEIGHT), 50.0)
    for start in range(12):
        assert numbers_of(read_frames(video, start, 12, chunk=5)) == list(range(start, 12))


def test_a_png_is_read_exactly_and_in_rgb(tmp_path) -> None:
    folder = write_images(f"{tmp_path}/cam01", {5: "0.png"})
    np.testing.assert_array_equal(next(read_frames(probe(folder, "c", fps=1.0), 0, 1))[0], numbered_image(5))


def test_gaps_in_the_numbers_are_kept_with_the_video(tmp_path) -> None:
    numbers = [*(k for k in range(12) if k not in (3, 7, 8)), 900_000_000]
    folder = write_images(f"{tmp_path}/cam01", {k % 4096: f"{k:04d}.png" for k in numbers})
    video = probe(folder, "cam01", fps=50.0)
    assert ticks_of(video.clock, video.num_frames).tolist() == numbers


def test_a_image_that_is_too_large_is_refused_before_it_is_decoded(tmp_path, monkeypatch) -> None:
    """Its header says so: decoding 24,000 x 24,000 pixels takes 1.7 GB, in as many threads as there are cameras."""
    _, png = cv2.imencode(".png", numbered_image(0))
    _, jpeg = cv2.imencode(".jpg", numbered_image(0))
    frame = jpeg.tobytes().index(b"\xff\xc0")
    monkeypatch.setattr(cv2, "imdecode", lambda *_: pytest.fail("decoded"))
    for name, data, place, form in (("0.png", png, 16, ">II"), ("0.jpg", jpeg, frame + 5, ">HH")):
        content = bytearray(data.tobytes())
        struct.pack_into(form, content, place, 24_000, 24_000)
        os.makedirs(f"{tmp_path}/{name}.cam")
        with open(f"{tmp_path}/{name}.cam/{name}", "wb") as file:
            file.write(content)
        with pytest.raises(VideoError, match=r"24000 x 24000 pixels, above the limit"):
            probe(f"{tmp_path}/{name}.cam", "cam01", fps=50.0)


def test_two_images_of_one_number_are_refused(tmp_path) -> None:
    folder = write_images(f"{tmp_path}/cam01", {0: "0.png", 1: "1.png", 2: "001.jpg"})
    with pytest.raises(VideoError, match=r"two images numbered 1, 001.jpg and 1.png"):
        probe(folder, "cam01", fps=50.0)


def test_a_folder_states_no_rate(tmp_path) -> None:
    folder = write_images(f"{tmp_path}/cam01", {0: "0.png"})
    with pytest.raises(VideoError, match="no frame rate: set `fps`"):
        probe(folder, "cam01")


def test_a_folder_without_images_is_an_error(tmp_path) -> None:
    (tmp_path / "cover.png").touch()
    with pytest.raises(VideoError, match="no numbered JPEG or PNG images"):
        probe(str(tmp_path), "cam01", fps=50.0)


def test_images_of_another_size_or_broken_ones_are_named(tmp_path) -> None:
    folder = write_images(f"{tmp_path}/cam01", {k: f"{k}.png" for k in range(6)})
    video = probe(folder, "cam01", fps=50.0)
    cv2.imwrite(f"{folder}/4.png", numbered_image(4)[:64])
    with pytest.raises(VideoError, match="frame 4 is 128 x 64 pixels but the video is 128 x 96"):
        list(read_frames(video, 2, 6))
    for content in (b"", b"no image"):
        with open(f"{folder}/1.png", "wb") as file:
            file.write(content)
        with pytest.raises(VideoError, match=r"1.png is not an image"):
            list(read_frames(video, 0, 3))


def test_images_that_went_since_probing_are_missed(tmp_path) -> None:
    folder = write_images(f"{tmp_path}/cam01", {k: f"{k}.png" for k in range(6)})
    video = probe(folder, "cam01", fps=50.0)
    os.remove(f"{folder}/5.png")
    assert numbers_of(read_frames(video, 0, 5)) == list(range(5))
    with pytest.raises(VideoTooShortError, match="has 5 images left, but frames 4 to 5 were requested"):
        list(read_frames(video, 4, 6))


def test_large_images_are_refused(tmp_path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = write_images(f"{tmp_path}/cam01", {0: "0.png"})
    monkeypatch.setattr(video_container, "MAX_PIXELS", WIDTH * HEIGHT - 1)
    with pytest.raises(VideoError, match="128 x 96 pixels, above the limit"):
        probe(folder, "cam01", fps=50.0)


def test_a_folder_on_s3_is_read_as_one_on_disk(s3: str, tmp_path) -> None:
    folder = write_images(f"{tmp_path}/cam01", {k: f"{k}.png" for k in range(12)})
    for name in os.listdir(folder):
        with open(os.path.join(folder, name), "rb") as file:
            write_whole(f"{s3}/cam01/{name}", file.read())
    video = probe(f"{s3}/cam01", "cam01", fps=50.0)
    assert numbers_of(read_frames(video, 4, 12)) == list(range(4, 12))


@pytest.mark.parametrize("frames", [6, 60])
def test_the_folder_is_listed_once_a_read_and_never_once_a_frame(tmp_path, frames, monkeypatch) -> None:
    """Peers list the folder again for every frame: quadratic, and minutes a frame where a folder holds 10^5 files."""
    folder = write_images(f"{tmp_path}/cam01", {k: f"{k}.png" for k in range(frames)})
    listings, ls = [], LocalFileSystem.ls
    monkeypatch.setattr(LocalFileSystem, "ls", lambda *args, **kwargs: listings.append(args) or ls(*args, **kwargs))
    scandir = os.scandir
    monkeypatch.setattr(os, "scandir", lambda *args: listings.append(args) or scandir(*args))
    video = probe(folder, "cam01", fps=50.0)
    assert numbers_of(read_frames(video, 0, frames, chunk=2)) == list(range(frames))
    assert 1 <= len(listings) <= 8


def marked(image: np.ndarray, suffix: str, orientation: int, order: str = "<") -> bytes:
    """A JPEG or PNG of a stored image that states an EXIF orientation after another entry."""
    data = cv2.imencode(suffix, image[..., ::-1])[1].tobytes()
    entries = struct.pack(f"{order}HHII", 0x0100, 4, 1, WIDTH) + struct.pack(
        f"{order}HHIHH", 0x0112, 3, 1, orientation, 0
    )
    exif: bytes = {"<": b"II", ">": b"MM"}[order] + struct.pack(f"{order}HIH", 42, 8, 2) + entries + bytes(4)
    if suffix == ".png":
        chunk = b"eXIf" + exif
        return data[:33] + struct.pack(">I", len(exif)) + chunk + struct.pack(">I", crc32(chunk)) + data[33:]
    return data[:2] + struct.pack(">HH", 0xFFE1, len(exif) + 8) + b"Exif\0\0" + exif + data[2:]


@pytest.mark.parametrize(("suffix", "order"), [(".jpg", "<"), (".jpg", ">"), (".png", ">")])
def test_images_are_turned_as_they_are_marked_and_the_turn_is_known(tmp_path, suffix, order) -> None:
    """Fails if a turn is not passed on: half a turn, which the size does not reveal, would never be asked about."""
    for orientation, turns in ((1, 0), (3, 2), (6, 1), (8, 3), (9, 0)):
        folder = tmp_path / f"cam{orientation}"
        folder.mkdir()
        for number in range(4):
            stored = np.ascontiguousarray(np.rot90(numbered_image(number), turns))
            (folder / f"{number}{suffix}").write_bytes(marked(stored, suffix, orientation, order))
        video = probe(str(folder), "cam01", fps=50.0)
        assert (video.size, video.shown_turns) == ((WIDTH, HEIGHT), turns)
        assert numbers_of(read_frames(video, 0, 4)) == list(range(4))
        assert len(list(read_images(video, 0, 4))) == 4


def test_images_of_one_folder_that_are_marked_differently_or_mirrored_are_named(tmp_path) -> None:
    folder = write_images(f"{tmp_path}/cam01", {k: f"{k}.png" for k in range(4)})
    (tmp_path / "cam01" / "2.png").write_bytes(marked(numbered_image(2), ".png", 3))
    video = probe(folder, "cam01", fps=50.0)
    assert numbers_of(read_frames(video, 0, 2)) == [0, 1]
    with pytest.raises(VideoError, match=r"2\.png is marked to be shown turned by 180 degrees, but the first .* by 0:"):
        list(read_frames(video, 0, 3))
    with pytest.raises(VideoError, match=r"2\.png is marked"):
        list(read_images(video, 0, 3))
    (tmp_path / "cam01" / "0.png").write_bytes(marked(numbered_image(0), ".png", 2))
    with pytest.raises(VideoError, match=r"0\.png is marked to be shown mirrored"):
        probe(folder, "cam01", fps=50.0)

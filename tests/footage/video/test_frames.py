import os
import weakref
from collections.abc import Callable
from typing import Any

import av
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from s3fs.core import S3File

from mvpose.errors import FailureReason, VideoError, VideoTooShortError
from mvpose.footage.video import video_container
from mvpose.footage.video.frames import prefetched, probe, read_frames, read_images
from mvpose.images import Planes
from mvpose.storage.commits import write_whole
from tests.footage.numbered_video import (
    HEIGHT,
    NAMES,
    WIDTH,
    number_of,
    numbered_image,
    numbers_of,
    opencv_images,
    write_named,
    write_numbered,
)

FOOTAGE_VIDEOS = [  # one recorder wrote all four: one with every run
    pytest.param(f"Demo_SinglePerson/videos/cam0{i}.mp4", marks=[pytest.mark.slow] * (i > 1)) for i in (1, 2, 3, 4)
]


@pytest.fixture(scope="module")
def named(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], str]:
    folder = str(tmp_path_factory.mktemp("videos"))

    def written(name: str) -> str:
        uri = os.path.join(folder, name)
        return uri if os.path.exists(uri) else write_named(folder, name)

    return written


@pytest.mark.parametrize("name", NAMES)
def test_frames_are_those_that_opencv_reads_from_first_to_last(named: Callable[[str], str], name: str) -> None:
    uri = named(name)
    expected = [number_of(image) for image in opencv_images(uri)]
    video = probe(uri, "cam01")
    assert video.num_frames == len(expected) > 30
    assert video.size == (WIDTH, HEIGHT)
    assert numbers_of(read_frames(video, 0, video.num_frames)) == expected == list(range(expected[0], 60))


@pytest.mark.parametrize("name", NAMES)
def test_frame_k_is_frame_k_wherever_reading_starts(named: Callable[[str], str], name: str) -> None:
    video = probe(named(name), "cam01")
    first = 60 - video.num_frames
    for start in range(video.num_frames):
        stop = min(start + 2, video.num_frames)
        assert numbers_of(read_frames(video, start, stop)) == list(range(first + start, first + stop))


@settings(max_examples=30, deadline=None)
@given(bounds=st.tuples(st.integers(0, 60), st.integers(0, 60)), chunk=st.integers(1, 70), threads=st.integers(1, 3))
def test_chunks_tile_the_range(named: Callable[[str], str], bounds: tuple[int, int], chunk: int, threads: int) -> None:
    start, stop = sorted(bounds)
    chunks = list(read_frames(probe(named("open_gop.mp4"), "cam01"), start, stop, chunk=chunk, threads=threads))
    assert numbers_of(chunks) == list(range(start, stop))
    assert all(len(frames) == chunk for frames in chunks[:-1])
    assert all(frames.flags.owndata and frames.flags.c_contiguous for frames in chunks)


def test_a_chunk_is_held_by_its_consumer_alone(named: Callable[[str], str]) -> None:
    for source in (
        read_frames(probe(named("b_frames.mp4"), "cam01"), 0, 60),
        prefetched(read_frames(probe(named("b_frames.mp4"), "cam01"), 0, 60)),
    ):
        held = weakref.ref(next(source))
        next(source)
        assert held() is None


@pytest.mark.parametrize("name", ["cut_open_gop.mp4", "edit_list.mp4"])
def test_the_count_of_a_cut_file_is_not_what_its_container_states(named: Callable[[str], str], name: str) -> None:
    uri = named(name)
    with av.open(uri) as container:
        stated = container.streams.video[0].frames
    assert probe(uri, "cam01").num_frames < stated


def test_the_rate_is_the_mean_rate(named: Callable[[str], str]) -> None:
    assert probe(named("b_frames.mp4"), "cam01").fps == pytest.approx(30, abs=1e-9)
    assert probe(named("open_gop.mkv"), "cam01").fps == pytest.approx(30, rel=1e-3)  # its clock ticks in milliseconds
    with av.open(named("irregular.mkv")) as container:
        times = sorted(p.pts for p in container.demux(video=0) if p.pts is not None)
    assert probe(named("irregular.mkv"), "cam01").fps == pytest.approx(59_000 / (times[-1] - times[0]))
    assert probe(named("irregular.mp4"), "cam01").fps == pytest.approx(59_000 / (times[-1] - times[0]), rel=0.05)
    assert probe(named("b_frames.mp4"), "cam01", fps=240.0).fps == 240.0


@pytest.mark.parametrize(
    ("degrees", "mirrored", "turned"),
    [
        (90, False, lambda p: np.rot90(p)),
        (180, False, lambda p: np.rot90(p, 2)),
        (270, False, lambda p: np.rot90(p, 3)),
        (0, True, lambda p: p[:, ::-1]),
        (180, True, lambda p: p[::-1]),
    ],
)
def test_rotation_and_mirror_flags_are_applied(
    tmp_path, degrees: float, mirrored: bool, turned: Callable[[np.ndarray], np.ndarray]
) -> None:
    uri = write_numbered(f"{tmp_path}/turned.mp4", 10, rotation=(degrees, mirrored))
    video = probe(uri, "cam01")
    frames = np.concatenate(list(read_frames(video, 0, 10)))
    assert video.size == (frames.shape[2], frames.shape[1])
    for number, frame in enumerate(frames):
        np.testing.assert_allclose(frame.astype(int), turned(numbered_image(number)), atol=40)
    for image, frame in zip(read_images(video, 0, 10), frames, strict=True):
        assert isinstance(image, Planes)
        np.testing.assert_allclose(image.rgb().astype(int), frame, atol=6)
    if not mirrored:  # OpenCV takes a mirror for half a turn
        np.testing.assert_array_equal(frames, list(opencv_images(uri)))


def test_a_gpu_s_decoder_that_is_not_there_is_an_error_of_the_video_and_never_another_decoder(tmp_path, monkeypatch):
    # Fails if FFmpeg falls back to the CPU without a word.
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    video = probe(write_numbered(f"{tmp_path}/plain.mp4", 10), "cam01")
    with pytest.raises(VideoError, match=r"plain\.mp4"):
        next(iter(read_images(video, 0, 10, "cuda")))


def test_a_turn_that_is_no_quarter_turn_is_refused(tmp_path) -> None:
    uri = write_numbered(f"{tmp_path}/askew.mp4", 10, rotation=(30, False))
    with pytest.raises(VideoError, match=r"askew.mp4 is marked to be shown turned by -?(29|30) degrees"):
        probe(uri, "cam01")


@pytest.mark.parametrize("share", [0.4, 0.6, 0.75, 0.9, 0.97])
def test_a_cut_off_file_gives_its_frames_and_then_says_where_it_ends(
    named: Callable[[str], str], tmp_path, share: float
) -> None:
    with open(named("index_first.mp4"), "rb") as file:
        data = file.read()
    uri = f"{tmp_path}/cut_off.mp4"
    with open(uri, "wb") as file:
        file.write(data[: int(len(data) * share)])
    video = probe(uri, "cam01")
    assert video.num_frames == 60
    numbers = []
    with pytest.raises(
        VideoTooShortError, match=r"data end before frame (\d+), but its header lists frames 0 to 59"
    ) as cut:
        for frames in read_frames(video, 0, 60, chunk=1):
            numbers += numbers_of([frames])
    assert 0 < len(numbers) < 60
    assert numbers == list(range(len(numbers)))
    assert f"before frame {len(numbers)}," in str(cut.value)
    assert cut.value.reason is FailureReason.VIDEO_TOO_SHORT
    with pytest.raises(VideoTooShortError, match="frames 58 to 59 were requested"):
        list(read_frames(video, 58, 60))


def test_frames_after_the_last_are_refused_and_not_clamped(named: Callable[[str], str]) -> None:
    video = probe(named("edit_list.mp4"), "cam01")
    with pytest.raises(VideoTooShortError, match="has frames 0 to 32, but frames 30 to 33 were requested"):
        read_frames(video, 30, 34)


@pytest.mark.parametrize(("start", "stop", "chunk"), [(-1, 3, 8), (5, 4, 8), (0, 4, 0)])
def test_a_range_that_is_none_is_a_value_error(named: Callable[[str], str], start: int, stop: int, chunk: int) -> None:
    with pytest.raises(ValueError, match=r"start <= stop|at least 1"):
        read_frames(probe(named("b_frames.mp4"), "cam01"), start, stop, chunk)


def test_a_damaged_frame_is_named_and_the_others_keep_their_numbers(tmp_path) -> None:
    uri = write_numbered(f"{tmp_path}/damaged.mov", codec="mjpeg", pix_fmt="yuvj420p")
    with av.open(uri) as container:
        packet: Any = [p for p in container.demux(video=0) if p.size][20]
    with open(uri, "r+b") as file:
        file.seek(packet.pos)
        file.write(bytes(packet.size))
    video = probe(uri, "cam01")
    assert numbers_of(read_frames(video, 21, 60)) == list(range(21, 60))
    with pytest.raises(VideoError, match="frame 20 is listed but cannot be decoded"):
        list(read_frames(video, 15, 25))


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "Invalid data"),
        (b"one two three\n" * 1000, "Invalid data"),
        (bytes(100_000), "Invalid data"),
    ],
)
def test_what_is_no_video_is_an_error_with_path_and_reason(tmp_path, content: bytes, reason: str) -> None:
    uri = f"{tmp_path}/broken.mp4"
    with open(uri, "wb") as file:
        file.write(content)
    with pytest.raises(VideoError, match=f"broken.mp4 cannot be read as a video: .*{reason}"):
        probe(uri, "cam01")


def test_a_video_that_is_not_there_is_an_error_with_its_path(tmp_path) -> None:
    with pytest.raises(VideoError, match=r"none.mp4 does not exist"):
        probe(f"{tmp_path}/none.mp4", "cam01")


def test_a_recording_that_died_before_its_index_was_written_is_an_error(named: Callable[[str], str], tmp_path) -> None:
    with open(named("b_frames.mp4"), "rb") as file:
        data = file.read()
    with open(f"{tmp_path}/died.mp4", "wb") as file:
        file.write(data[: data.index(b"moov") - 4])
    with pytest.raises(VideoError, match=r"died.mp4 cannot be read as a video"):
        probe(f"{tmp_path}/died.mp4", "cam01")


def test_a_sound_file_has_no_video_stream(tmp_path) -> None:
    uri = f"{tmp_path}/sound.mov"
    with av.open(uri, "w") as container:
        stream = container.add_stream("pcm_s16le", rate=8000)
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 8000), np.int16), layout="mono")
        frame.sample_rate = 8000
        container.mux(stream.encode(frame))
    with pytest.raises(VideoError, match=r"sound.mov has no video stream"):
        probe(uri, "cam01")


def test_reordered_frames_without_presentation_times_are_refused(tmp_path) -> None:
    uri = write_numbered(f"{tmp_path}/reordered.avi")
    with pytest.raises(VideoError, match="AVI does not store their presentation times"):
        probe(uri, "cam01")


def test_images_above_the_limit_are_refused(named: Callable[[str], str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(video_container, "MAX_PIXELS", WIDTH * HEIGHT - 1)
    with pytest.raises(VideoError, match="128 x 96 pixels, above the limit"):
        probe(named("vp9.mp4"), "cam01")


def test_a_file_that_was_replaced_is_read_anew(tmp_path) -> None:
    uri = f"{tmp_path}/again.mp4"
    for num_frames in (20, 35):
        write_numbered(uri, num_frames)
        assert numbers_of(read_frames(probe(uri, "cam01"), 15, num_frames)) == list(range(15, num_frames))


@pytest.mark.parametrize("name", ["open_gop.mp4", "open_gop.mkv"])
def test_a_video_on_s3_is_read_as_one_on_disk(named: Callable[[str], str], s3: str, name: str) -> None:
    with open(named(name), "rb") as file:
        write_whole(f"{s3}/session/{name}", file.read())
    video = probe(f"{s3}/session/{name}", "cam01")
    assert video.num_frames == 60
    assert numbers_of(read_frames(video, 37, 50)) == list(range(37, 50))
    with pytest.raises(VideoError, match=r"none.mp4"):
        probe(f"{s3}/session/none.mp4", "cam01")


def test_a_video_on_s3_is_not_read_whole(s3: str, tmp_path, monkeypatch: pytest.MonkeyPatch) -> None:
    noise = np.random.default_rng(0).integers(0, 255, (480, 640, 3), dtype=np.uint8)
    with av.open(f"{tmp_path}/large.mov", "w") as container:
        stream = container.add_stream("mjpeg", rate=30, options={"qmin": "1", "qmax": "1"})
        stream.width, stream.height, stream.pix_fmt = 640, 480, "yuvj420p"
        for _ in range(60):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(noise, format="rgb24")))
        container.mux(stream.encode(None))
    with open(f"{tmp_path}/large.mov", "rb") as file:
        data = file.read()
    write_whole(f"{s3}/large.mov", data)
    fetched = []
    fetch = S3File._fetch_range
    monkeypatch.setattr(
        S3File, "_fetch_range", lambda f, start, end: fetched.append(end - start) or fetch(f, start, end)
    )
    video = probe(f"{s3}/large.mov", "cam01")
    assert sum(len(frames) for frames in read_frames(video, 40, 45)) == 5
    assert sum(fetched) < 10e6 < len(data) / 2


@pytest.mark.footage
@pytest.mark.parametrize("name", FOOTAGE_VIDEOS)
def test_real_footage_is_read_as_opencv_reads_it(footage: str, name: str) -> None:
    video = probe(f"{footage}/{name}", "cam01")
    assert (video.num_frames, video.fps) == (100, 60.0)
    ours = (image for frames in read_frames(video, 0, 100) for image in frames)
    assert all(np.array_equal(a, b) for a, b in zip(ours, opencv_images(video.uri), strict=True))


@pytest.mark.footage
def test_real_footage_is_read_from_any_frame(footage: str) -> None:
    video = probe(f"{footage}/Demo_SinglePerson/videos/cam02.mp4", "cam02")
    whole = np.concatenate(list(read_frames(video, 60, 100)))
    for start in (61, 77, 99):
        np.testing.assert_array_equal(next(read_frames(video, start, start + 1))[0], whole[start - 60])

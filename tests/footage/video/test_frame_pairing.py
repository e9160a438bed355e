"""Frames of several views are paired by what identifies them, or refused; never shifted."""

import os
import re
from dataclasses import replace

import av
import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mvpose.capture import Capture
from mvpose.errors import ConfigError
from mvpose.footage.catalogue import CatalogueConfig, find_captures
from mvpose.footage.video.capture_frames import frames_of_views
from mvpose.footage.video.frame_clock import lattice, runs_of, ticks_of
from mvpose.footage.video.frame_pairing import Pairing, paired
from mvpose.footage.video.frames import probe
from mvpose.records import ClockKind, FrameClock, Video
from mvpose.scenes import ring4
from tests.footage.archives import pose2sim
from tests.footage.numbered_video import number_of, numbered_image, write_numbered

RIG = ring4(num_frames=1).rig


def views(ticks: list[list[int]], kind: ClockKind = ClockKind.NUMBER, fps: float = 30.0) -> tuple[Video, ...]:
    clocks = [FrameClock(kind, runs_of(np.array(own))) for own in ticks]
    return tuple(
        Video(f"cam{v}", f"{v}", fps, len(own), (8, 8), clock=clock)
        for v, (own, clock) in enumerate(zip(ticks, clocks, strict=True))
    )


def shown_ticks(videos: tuple[Video, ...], num_frames: int, ticks: list[list[int]]) -> np.ndarray:
    """(V, T): the tick of each view's frame, -1 where it is missing."""
    own = [video.frames_of(np.arange(num_frames)) for video in videos]
    return np.array([np.where(f >= 0, np.append(t, -1)[f], -1) for f, t in zip(own, ticks, strict=True)])


lost = st.lists(st.sets(st.integers(0, 59), max_size=20), min_size=2, max_size=4)


@given(lost, st.sampled_from([1, 2, 5]), st.integers(0, 10**9), st.sampled_from(ClockKind))
def test_every_frame_shows_its_instant_whatever_the_views_lost(lost, step, first, kind):
    step = step if kind is ClockKind.NUMBER else 1
    kept = [[k for k in range(60) if k not in gone] for gone in lost]
    ticks = [[first + step * k for k in own] for own in kept]
    try:
        result = paired(views(ticks, kind), None)
    except ConfigError as error:
        assert "pairing" in str(error) and len({own[0] for own in kept}) > 1
        result = paired(views(ticks, kind), Pairing.CLOCK)
    capture = Capture("c", RIG, result.videos, result.breaks)
    seen = shown_ticks(capture.videos, capture.num_frames, kept)
    assert capture.num_frames == min(own[-1] for own in kept) + 1 - capture_start(kept)
    expected = capture_start(kept) + capture.positions(np.arange(capture.num_frames))
    for own, row in zip(kept, seen, strict=True):
        assert (row == np.where(np.isin(expected, own), expected, -1)).all()


def capture_start(kept: list[list[int]]) -> int:
    return next(k for k in range(60) if sum(k in own for own in kept) > 1)


@given(st.lists(st.integers(0, 500), min_size=1, max_size=40, unique=True).map(sorted))
def test_runs_of_ticks_are_the_ticks(ticks):
    clock = FrameClock(ClockKind.NUMBER, runs_of(np.array(ticks)))
    assert ticks_of(clock, len(ticks)).tolist() == ticks


@given(st.sets(st.integers(1, 298), max_size=60), st.floats(0.0, 0.1), st.sampled_from([3000.0, 33.3333, 4.1667]))
def test_lost_frames_are_told_from_jitter(gone, jitter, period):
    kept = np.array([k for k in range(300) if k not in gone])
    times = kept + np.random.default_rng(0).uniform(-jitter, jitter, len(kept))
    found = lattice(np.round(times * period))
    assert found.is_constant and (found.ticks == kept).all()


def test_jitter_below_half_a_period_is_no_lost_frame():
    times = np.arange(300) + np.random.default_rng(0).uniform(-0.45, 0.45, 300)
    assert lattice(times * 3000).is_plain


def test_ordinary_views_are_left_as_they_are():
    plain = views([[*range(30)], [*range(33)]], ClockKind.TIME)
    assert paired(plain, None).videos == plain
    started = (plain[0], replace(plain[1], first_frame=3))
    assert paired(started, None).videos == started


def test_uneven_numbers_that_all_views_share_are_instants_with_their_time():
    numbers = [4500, 5514, 5520, 900_000_000]
    result = paired(views([numbers, numbers]), None)
    capture = Capture("c", RIG, result.videos, result.breaks)
    frames = np.array([0, 1, 7, 8])
    assert capture.num_frames == 9
    assert shown_ticks(capture.videos, 9, [numbers] * 2)[:, frames].tolist() == [numbers] * 2
    np.testing.assert_allclose(capture.times_s(frames), (np.array(numbers) - 4500) / 30)


def test_two_readings_are_refused_and_pairing_says_which():
    later = views([[*range(60)], [*range(6, 66)]], ClockKind.TIME)
    with pytest.raises(ConfigError, match=r"cam0 0, cam1 6.*`pairing = \"clock\"` or `pairing = \"order\"`"):
        paired(later, None)
    assert paired(later, Pairing.ORDER).videos == later
    assert paired(later, Pairing.CLOCK).videos[1].frames_of(np.arange(2)).tolist() == [0, 1]
    assert paired(later, Pairing.CLOCK).videos[0].frames_of(np.arange(2)).tolist() == [6, 7]
    counters = views([[*range(60)], [*range(1000, 1060)]])
    with pytest.raises(ConfigError, match="pairing"):
        paired(counters, None)
    with pytest.raises(ConfigError, match="no partner"):
        paired(views([[*range(0, 60, 5)], [*range(1, 66, 5)]]), None)


def test_a_camera_that_began_later_and_stopped_with_the_others_is_paired_by_its_clock():
    result = paired(views([[*range(60)], [*range(6, 60)], [*range(60)]], ClockKind.TIME), None)
    assert result.videos[1].frames_of(np.arange(8)).tolist() == [-1] * 6 + [0, 1]
    assert "missing frames per view, of 60: cam1 6" in result.notes[0]


def test_first_frame_says_where_a_view_begins_and_its_clock_what_it_lost_after():
    kept = [k for k in range(100, 160) if k != 120]
    videos = views([[*range(60)], kept])
    result = paired((videos[0], replace(videos[1], first_frame=10)), None)
    assert result.videos[1].frames_of(np.array([0, 9, 10, 11])).tolist() == [10, 19, -1, 20]


def numbered_archive(tmp_path, kept: list[list[int]]) -> str:
    """Images that carry their numbers, of two cameras."""
    names = ["cam01", "cam02"]
    pose2sim(f"{tmp_path}/w", names)
    for name, own in zip(names, kept, strict=True):
        os.remove(f"{tmp_path}/w/videos/{name}.mp4")
        os.makedirs(f"{tmp_path}/w/videos/{name}")
        for k in own:
            cv2.imwrite(f"{tmp_path}/w/videos/{name}/{k:06d}.png", numbered_image(k)[..., ::-1])
    return str(tmp_path)


def test_images_of_one_frame_carry_one_number_and_what_is_missing_is_black(tmp_path):
    archive = numbered_archive(tmp_path, [[*range(12)], [0, 1, 2, 5, 6, 9, 10, 11]])
    (capture,) = find_captures(archive, CatalogueConfig(fps=30.0)).captures
    seen = [[number_of(p) if p.any() else -1 for p in views] for views in frames_of_views(capture, 0, 12)]
    assert seen == [[k, k if k not in (3, 4, 7, 8) else -1] for k in range(12)]


def numbered_videos(tmp_path, lost: dict[str, set[int]], **how) -> list[str]:
    names = ["cam01", "cam02", "cam03"]
    pose2sim(f"{tmp_path}/w", names)
    for name in names:
        kept = [k for k in range(60) if k not in lost.get(name, ())]
        write_numbered(f"{tmp_path}/w/videos/{name}.mp4", len(kept), ticks=[3000 * k for k in kept], **how)
    return names


def test_wall_times_of_the_recorder_pair_its_videos_and_give_their_rate(tmp_path):
    """caliscope's table: 6 frames/s in files that play at 30, one camera begun later and with a frame lost."""
    names = numbered_videos(tmp_path, {})
    for v, name in enumerate(names):
        os.rename(f"{tmp_path}/w/videos/{name}.mp4", f"{tmp_path}/w/videos/cam_{v + 1}.mp4")
    ticks = {1: [*range(60)], 2: [k + 2 + (k > 30) for k in range(60)], 3: [*range(60)]}
    rows = [f"{camera},{900 + tick / 6 + 0.01 * camera}" for camera, own in ticks.items() for tick in own]
    with open(f"{tmp_path}/w/videos/timestamps.csv", "w") as file:
        file.write("\n".join(["cam_id,frame_time", *reversed(rows)]))
    (capture,) = find_captures(str(tmp_path), CatalogueConfig()).captures
    assert capture.fps == pytest.approx(6.0)
    own = capture.videos[1].frames_of(np.arange(60)).tolist()
    assert own == [-1, -1, *range(31), -1, *range(31, 57)]


@pytest.mark.parametrize("folder", ["synchronized_videos", "synchronized_videos/timestamps", "timestamps"])
def test_times_of_freemocap_give_the_rate_and_the_pauses_of_its_videos(tmp_path, folder):
    """Row k is frame k of every camera: 10 frames/s in files that play at 30, and three frames that nobody has."""
    numbered_videos(tmp_path, {})
    os.rename(f"{tmp_path}/w/videos", f"{tmp_path}/w/synchronized_videos")
    os.makedirs(f"{tmp_path}/w/{folder}", exist_ok=True)
    rows = [f"{k},{(k + 3 * (k >= 20)) / 10}" for k in range(60)]
    table = f"{tmp_path}/w/{folder}/walk_timestamps.csv"
    with open(table, "w") as file:
        file.write("\n".join([",timestamp_from_zero_s", *rows]))
    (capture,) = find_captures(str(tmp_path), CatalogueConfig()).captures
    assert capture.fps == pytest.approx(10.0) and capture.num_frames == 63
    for video in capture.videos:
        assert video.frames_of(np.arange(63)).tolist() == [*range(20), -1, -1, -1, *range(20, 60)]
    with open(table, "w") as file:
        file.write("\n".join([",timestamp_from_zero_s", *rows[:-1]]))
    (problem,) = find_captures(str(tmp_path), CatalogueConfig()).problems
    assert "59 times" in problem.detail and "cam01 60" in problem.detail


@pytest.mark.parametrize(
    ("table", "said"),
    [
        ("a,b\n1,2\n", "not a table of frame times .* frame_time: .* Remove it"),
        ("cam_id,frame_time\n1,2\n", "1 times for cam01, but its video has 60 frames. .* Remove the table"),
    ],
)
def test_a_table_of_wall_times_that_is_not_of_the_videos_is_refused_with_what_to_do(table, said, tmp_path):
    numbered_videos(tmp_path, {})
    (tmp_path / "w" / "videos" / "timestamps.csv").write_text(table)
    (problem,) = find_captures(str(tmp_path), CatalogueConfig()).problems
    assert re.search(said, problem.detail)


def test_a_rate_that_no_camera_has_or_that_the_file_contradicts_is_asked_for(tmp_path):
    fast = write_numbered(f"{tmp_path}/fast.mp4", 20, ticks=[75 * k for k in range(20)])
    with pytest.raises(ConfigError, match=r"timestamps give 1200 frames/s.*`fps`"):
        probe(fast, "cam01")
    assert (probe(fast, "cam01", fps=60.0).fps, probe(fast, "cam01", fps=60.0).stated_fps) == (60.0, None)
    slow = f"{tmp_path}/slow.mp4"
    with av.open(fast) as source, av.open(slow, "w", options={"movflags": "use_metadata_tags"}) as target:
        target.metadata["com.android.capture.fps"] = "240.0"
        copy = target.add_stream_from_template(source.streams.video[0])
        for packet in source.demux(video=0):
            if packet.size:
                packet.pts, packet.dts, packet.stream = packet.pts * 40, packet.dts * 40, copy
                target.mux(packet)
    with pytest.raises(ConfigError, match="plays at 30 frames/s but states that it was filmed at 240"):
        probe(slow, "cam01")
    assert probe(slow, "cam01", fps=240.0).fps == 240.0


@pytest.mark.parametrize("frames", [{20}, {30}, {0, 1, 2}, {40, 41, 42}])
def test_a_video_whose_time_stamps_say_that_frames_were_lost_is_not_shifted(tmp_path, frames):
    """With B-frames, whose decoding times have the gap before another frame."""
    names = numbered_videos(tmp_path, {"cam02": frames}, options={"x264-params": "bframes=3:b-adapt=0:keyint=20"})
    (capture,) = find_captures(str(tmp_path), CatalogueConfig()).captures
    assert [video.camera for video in capture.videos] == names and capture.fps == 30.0
    own = capture.videos[1].frames_of(np.arange(60))
    assert np.flatnonzero(own < 0).tolist() == sorted(frames)
    assert own[own >= 0].tolist() == [*range(60 - len(frames))]


@given(st.lists(st.tuples(st.integers(1, 5), st.integers(1, 6)), min_size=1, max_size=5))
def test_the_place_of_a_frame_is_where_the_capture_shows_it(runs):
    """Stretches of so many frames, each after a gap."""
    shown, at, own = [], 0, 2
    for gap, count in runs:
        shown.append((at + gap, own, count))
        at, own = at + gap + count, own + count
    video = Video("cam01", "a.mp4", 30.0, own, (64, 48), shown=tuple(shown))
    frames = np.arange(at)
    found = video.frames_of(frames)
    assert [video.place_of(float(f)) for f in found[found >= 0]] == frames[found >= 0].tolist()
    assert Video("cam01", "a.mp4", 30.0, 9, (64, 48), first_frame=3).place_of(5.5) == 2.5

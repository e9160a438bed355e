"""Which frame of a run a frame of the truth is, by time and by where both begin."""

from dataclasses import replace

import numpy as np
import pytest

from mvpose.capture import Capture
from mvpose.datasets.sample import Labels, Sample, SampleImage, SampleScene, scene_samples
from mvpose.errors import ConfigError
from mvpose.evaluation.paired_frames import paired_frames
from mvpose.records import Video
from mvpose.scenes import ring4
from mvpose.skeleton import HALPE26

SHOWN = ring4(num_frames=1)


def capture(num_frames: int = 100, fps: float = 30.0, first: tuple[int, ...] = (0, 0, 0, 0), **changes) -> Capture:
    videos = tuple(
        Video(**{"camera": name, "uri": f"{name}.mp4", "fps": fps, "num_frames": num_frames + f, "size": (8, 8),
                 "first_frame": f, "stated_fps": fps} | changes)
        for name, f in zip(SHOWN.rig.names, first, strict=True)
    )  # fmt: skip
    return Capture("a", SHOWN.rig, videos)


def truth(frames: range, fps: float = float("nan"), videos: bool = False) -> list[Sample]:
    scene = SampleScene(
        capture_id="a", subject="s", action="walk", split="test", rig=SHOWN.rig, skeleton=HALPE26, fps=fps
    )
    at = np.array(frames)
    labels = Labels(frame=at, position=np.arange(len(at)), xyz=np.repeat(SHOWN.joints[:1, 0], len(at), axis=0))
    names = SHOWN.rig.names
    return list(scene_samples(scene, labels, lambda f: {n: SampleImage("v.mp4", f if videos else -1) for n in names}))


def test_equal_rates_pair_equal_frames_and_say_nothing():
    assert paired_frames(capture(), truth(range(0, 100, 7))).frames == list(range(0, 100, 7))
    assert paired_frames(capture(fps=30.0), truth(range(100), fps=30000 / 1001)).frames == list(range(100))
    assert paired_frames(capture(), truth(range(100))).notes == ()


def test_footage_that_begins_later_than_the_recording_is_paired_by_its_first_frame():
    """Frame 0 of the run is frame 12 of the recording."""
    found = paired_frames(capture(first=(12, 12, 12, 12)), truth(range(12, 112)))
    assert found.frames == list(range(100)) and found.notes == ()


def test_cameras_that_begin_each_elsewhere_are_paired_by_the_frames_of_their_own_videos():
    own = (3, 0, 5, 2)
    samples = [
        replace(s, images=tuple(SampleImage("v.mp4", s.frame + f) for f in own)) for s in truth(range(100), videos=True)
    ]
    assert paired_frames(capture(first=own), samples).frames == list(range(100))
    with pytest.raises(ConfigError, match=r"by one camera and frame .* by another.*first_frame"):
        paired_frames(capture(first=own), truth(range(100)))


def test_truth_of_a_higher_rate_is_scored_where_the_run_has_a_frame_and_reported():
    found = paired_frames(capture(fps=25.0), truth(range(200), fps=50.0))
    assert found.frames == [f // 2 if f % 2 == 0 else None for f in range(200)]
    assert found.notes == ("a: 100 frames of the truth are between frames of the run: skipped",)


def test_truth_of_a_lower_rate_is_paired_with_the_nearest_frame():
    found = paired_frames(capture(fps=60.0), truth(range(40), fps=25.0))
    assert found.frames == [round(f * 2.4) for f in range(40)]


def test_images_at_another_rate_than_the_truths_leave_two_readings_and_are_refused():
    with pytest.raises(ConfigError, match=r"25 frames/s.*assumed 30.*fps in capture\.toml"):
        paired_frames(capture(stated_fps=None), truth(range(100), fps=25.0))


def test_less_than_half_of_the_truth_is_refused_with_both_ranges():
    with pytest.raises(
        ConfigError, match=r"frames 52 to 151, and the run's 100 frames correspond to 0 to 99.*48\.0%.*first_frame"
    ):
        paired_frames(capture(), truth(range(52, 152)))
    with pytest.raises(ConfigError, match=r"0\.0%"):
        paired_frames(capture(fps=25.0), truth(range(1, 100, 2), fps=50.0))


def test_more_than_half_is_scored_and_the_overlap_reported():
    found = paired_frames(capture(), truth(range(40, 140)))
    assert found.frames == list(range(40, 140))
    (note,) = found.notes
    assert "frames 40 to 139" in note and "0 to 99 of those" in note and "60.0%" in note

import pytest

from mvpose.benchmarks.memory import MIB, MemoryBenchmark, run
from mvpose.benchmarks.scale_footage import write_archive
from mvpose.footage.video.frames import probe, read_frames


def test_footage_that_is_repeated_decodes_to_the_same_images_again(tmp_path):
    write_archive(str(tmp_path / "footage"), 1, 5, (64, 48), repeats=3)
    video = probe(str(tmp_path / "footage" / "repeated.mp4"), "camera")
    assert (video.num_frames, video.fps) == (15, 30.0)
    images = [image.tobytes() for chunk in read_frames(video, 0, 15) for image in chunk]
    assert images[:5] == images[5:10] == images[10:] and len(set(images)) == 5


@pytest.mark.slow
def test_the_peaks_of_two_lengths_are_reported_with_their_ratio(tmp_path, capsys):
    figures = run(MemoryBenchmark(minutes=(1 / 6, 1 / 3), width=160, height=90, scratch=str(tmp_path)))
    assert [figures[f"{minutes:g} min, frames"] for minutes in (1 / 6, 1 / 3)] == [300, 600]
    ratios = [figures[f"longest over shortest, {what}"] for what in MIB]
    assert all(isinstance(ratio, float) and 0.5 < ratio < 2 for ratio in ratios)
    assert "longest over shortest, MiB of the driver" in capsys.readouterr().out
    assert not any(tmp_path.iterdir())

"""Labels from footage that nobody annotated: what a run found, as samples."""

import numpy as np
import pytest

from mvpose.datasets.run_labels import FinishedRun
from mvpose.errors import ConfigError, ResultsError
from mvpose.models.detection.detector_settings import DetectorConfig
from mvpose.pipeline.engine import EngineConfig
from mvpose.pipeline.job import ReconstructJob, reconstruct_archive
from mvpose.run.run_folder import RunFolder
from tests.pipeline import coded_footage

FRAMES = 24


LEAD = 3


def finished(folder) -> str:
    output = str(folder / "run")
    detector = DetectorConfig(detector=coded_footage.DETECTOR)
    reconstruct_archive(
        ReconstructJob(
            archive=str(folder / "archive"), output=output, detector=detector, engine=EngineConfig(local=True)
        )
    )
    return output


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> str:
    """A finished run of one capture, of which the truth is known."""
    folder = tmp_path_factory.mktemp("labels")
    coded_footage.write_capture(str(folder / "archive" / "one"), FRAMES)
    return finished(folder)


def test_images_of_a_camera_that_started_earlier_are_those_of_its_own_frames(tmp_path) -> None:
    """Fails if a label of frame t is given to image t of every video, whatever offset synchronises them."""
    one = tmp_path / "archive" / "one"
    coded_footage.write_capture(str(one), FRAMES)
    coded_footage.write_video(str(one / "videos" / "cam2.mp4"), 2, FRAMES, lead=LEAD)
    videos = [f'cam{v} = {{ uri = "videos/cam{v}.mp4", first_frame = {LEAD if v == 2 else 0} }}' for v in range(4)]
    (one / "capture.toml").write_text("\n".join(["[videos]", *videos]))
    samples = list(FinishedRun(folder=finished(tmp_path), every=4).read("one"))
    assert samples
    for sample in samples:
        frames = {camera: image.frame for camera, image in zip(sample.rig.names, sample.images, strict=True)}
        assert frames == {f"cam{v}": sample.frame + (LEAD if v == 2 else 0) for v in range(4)}


def test_labels_are_where_the_people_were_and_name_the_frame_of_each_video(run: str) -> None:
    dataset = FinishedRun(folder=run, every=4)
    assert dataset.shards() == ["one"]
    samples = list(dataset.read("one"))
    truth = coded_footage.scene(40).joints
    assert {s.frame for s in samples} == set(range(0, FRAMES, 4))
    for sample in samples:
        error = np.linalg.norm(sample.xyz[None] - truth[sample.frame], axis=-1)
        assert np.nanmin(np.nanmean(error, axis=-1)) < 0.02
        assert [p.frame for p in sample.images] == [sample.frame] * len(sample.rig)
        assert len(sample.rig) == 4 and np.isfinite(sample.box).all()


def test_joints_that_few_views_agreed_on_are_no_labels(run: str) -> None:
    poses = RunFolder(run).poses(RunFolder(run).plans()[0])
    assert poses is not None
    sure = int(((poses.num_views >= 4) & (poses.error_px <= 10)).sum())
    found = list(FinishedRun(folder=run, min_views=4, min_joints=1).read("one"))
    assert sum(int(s.valid.sum()) for s in found) == sure
    assert not list(FinishedRun(folder=run, min_views=5).read("one"))


def test_the_end_of_each_capture_is_held_out_for_validation(run: str) -> None:
    """Fails if frames of both splits are neighbours in more than one place, or if any frame is in both or in none."""
    every = list(FinishedRun(folder=run, held_out=0.25).read("one"))
    frames = {split: {s.frame for s in every if s.split == split} for split in ("train", "validation")}
    assert frames["train"] == set(range(18)) and frames["validation"] == set(range(18, FRAMES))
    assert {s.split for s in FinishedRun(folder=run, split="test").read("one")} == {"test"}


def test_what_cannot_be_is_a_sentence(tmp_path) -> None:
    with pytest.raises(ConfigError, match="held_out"):
        FinishedRun(folder=str(tmp_path), held_out=1.0)
    with pytest.raises(ConfigError, match="min_views 1"):
        FinishedRun(folder=str(tmp_path), min_views=1)
    with pytest.raises(ResultsError, match="not the output"):
        FinishedRun(folder=str(tmp_path)).shards()

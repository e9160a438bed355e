"""From a dataset on disk to a table of samples and back, through the doors that users take."""

import json
import os
from dataclasses import replace

import cv2
import numpy as np
import pytest
import torch

from mvpose.commands import dataset as command
from mvpose.datasets.conversion import convert_shard
from mvpose.datasets.crops import CropConfig, VideoReader, cropped_samples
from mvpose.datasets.panoptic import Panoptic
from mvpose.datasets.sample import Sample, SampleImage
from mvpose.datasets.sample_table import read_samples
from mvpose.datasets.statistics import measured
from mvpose.errors import ConfigError, ResultsError
from mvpose.pipeline.dataset_shards import convert
from mvpose.pipeline.engine import EngineConfig
from mvpose.report.sample_sheet import sample_sheet
from tests.datasets import test_panoptic as panoptic
from tests.footage.numbered_video import number_of, write_numbered

SEQUENCES = ("160906_pizza1", "160906_ian3", "171204_pose5")
LOCAL = EngineConfig(local=True)


@pytest.fixture
def folder(tmp_path) -> str:
    """Three sequences; the last has a damaged file."""
    for sequence in SEQUENCES:
        poses = tmp_path / "in" / sequence / "hdPose3d_stage1_coco19"
        poses.mkdir(parents=True)
        (tmp_path / "in" / sequence / f"calibration_{sequence}.json").write_text(json.dumps(panoptic.calibration()))
        for i in range(4):
            content = json.dumps(panoptic.scene_file(2))
            (poses / f"body3DScene_{i:08d}.json").write_text("{" if i == 3 and "pose5" in sequence else content)
    return str(tmp_path / "in")


def dataset(folder: str, **changes) -> Panoptic:
    return replace(Panoptic(folder=folder, cameras="3,6,12", interval=1), **changes)


def test_a_plain_loop_and_ray_data_make_the_same_files(folder, tmp_path, shared_ray):
    made = {}
    for name, engine in (("loop", LOCAL), ("ray", EngineConfig(workers=1))):
        receipts = list(convert(dataset(folder), CropConfig(), str(tmp_path / name), engine))
        reported = sorted((r.shard, r.rows, bool(r.problem)) for r in receipts)
        assert reported == [("160906_ian3", 8, False), ("160906_pizza1", 8, False), ("171204_pose5", 0, True)]
        samples = tmp_path / name / "samples"
        made[name] = {f: (samples / f).read_bytes() for f in os.listdir(samples)}
    assert made["loop"] == made["ray"] and sorted(made["ray"]) == ["160906_ian3.parquet", "160906_pizza1.parquet"]


def test_a_second_run_does_what_is_missing_and_leaves_the_rest(folder, tmp_path):
    output = str(tmp_path / "out")
    assert [r.problem for r in convert(dataset(folder), CropConfig(), output, LOCAL)][2]
    stamp = os.stat(f"{output}/samples/160906_ian3.parquet").st_mtime_ns
    with open(f"{folder}/171204_pose5/hdPose3d_stage1_coco19/body3DScene_00000003.json", "w") as file:
        json.dump(panoptic.scene_file(1), file)
    assert [r.rows for r in convert(dataset(folder), CropConfig(), output, LOCAL)] == [-1, -1, 7]
    assert os.stat(f"{output}/samples/160906_ian3.parquet").st_mtime_ns == stamp


def test_other_settings_in_the_same_output_are_refused_by_name(folder, tmp_path):
    list(convert(dataset(folder), CropConfig(), str(tmp_path / "out"), LOCAL))
    with pytest.raises(ConfigError, match=r"dataset\.interval: was 1, now 2"):
        list(convert(dataset(folder, interval=2), CropConfig(), str(tmp_path / "out"), LOCAL))


def test_a_table_is_written_to_and_read_from_s3(folder, s3):
    receipt = convert_shard("160906_ian3", dataset(folder), CropConfig(), f"{s3}/table")
    assert receipt.file == f"{s3}/table/samples/160906_ian3.parquet"
    on_s3, direct = list(read_samples(f"{s3}/table")), list(dataset(folder).read("160906_ian3"))
    assert len(on_s3) == len(direct) == 8
    np.testing.assert_allclose(on_s3[5].xyz, direct[5].xyz, atol=1e-6)
    assert torch.equal(on_s3[5].rig.projections, direct[5].rig.projections)


def test_a_disk_that_cannot_be_written_stops_the_conversion(folder, tmp_path):
    (tmp_path / "out").write_text("a file, not a folder")
    with pytest.raises((ResultsError, ConfigError, OSError)):
        list(convert(dataset(folder), CropConfig(), str(tmp_path / "out"), LOCAL))


# ---- crops


def painted(sample: Sample, tmp_path, joint: int) -> Sample:
    """The sample with images in which one joint is a soft white spot."""
    pixels, _ = sample.rig.project(torch.from_numpy(sample.xyz))
    images = []
    for view, (width, height) in enumerate(sample.rig.size.tolist()):
        x, y = np.meshgrid(np.arange(width), np.arange(height))
        far = (x - float(pixels[view, joint, 0])) ** 2 + (y - float(pixels[view, joint, 1])) ** 2
        uri = str(tmp_path / f"{view}.png")
        cv2.imwrite(uri, (250 * np.exp(-far / (2 * 6.0**2))).astype(np.uint8))
        images.append(SampleImage(uri))
    return replace(sample, images=tuple(images))


@pytest.mark.parametrize("side", [64, 256])
def test_joints_stay_where_they_were_in_the_image_when_the_person_is_cut_out(folder, tmp_path, side):
    """Through a distorting lens, shrunk and enlarged, half-pixel rule included."""
    sample = painted(next(dataset(folder).read("160906_ian3")), tmp_path, joint=5)
    (cut,) = cropped_samples([sample], CropConfig(side=side, quality=95))
    projected, _ = cut.rig.project(torch.from_numpy(cut.xyz))
    assert cut.rig.lens.coefficients.any() and cut.rig.size.tolist() == [[side, side]] * 3
    for view, image in enumerate(cut.images):
        pixels = cv2.imdecode(np.frombuffer(image.crop or b"", np.uint8), cv2.IMREAD_GRAYSCALE)
        assert pixels is not None
        mass = np.where(pixels > 40, pixels, 0).astype(float)
        y, x = np.mgrid[:side, :side]
        centre = np.array([(mass * x).sum(), (mass * y).sum()]) / mass.sum()
        assert np.abs(centre - projected[view, 5].numpy()).max() < 0.15
    np.testing.assert_array_equal(cut.xyz, sample.xyz)
    # The box stays about the joints it was about.
    seen = projected[0][torch.from_numpy(cut.visible[0])].numpy()
    np.testing.assert_allclose(cut.box[0], [*seen.min(axis=0), *seen.max(axis=0)], atol=1e-6)


def test_a_person_at_the_edge_is_cut_out_with_black_beyond(folder, tmp_path):
    sample = painted(next(dataset(folder).read("160906_ian3")), tmp_path, joint=5)
    box = sample.box.copy()
    box[0], box[1] = [-300.0, -300.0, 40.0, 40.0], np.nan
    (cut,) = cropped_samples([replace(sample, box=box)], CropConfig(side=64))
    assert cut.rig.names == ("00_03", "00_12")
    pixels = cv2.imdecode(np.frombuffer(cut.images[0].crop or b"", np.uint8), cv2.IMREAD_GRAYSCALE)
    assert pixels is not None and pixels[:30].max() == 0


def test_frames_of_a_video_are_the_ones_asked_for_in_any_order(tmp_path):
    reader = VideoReader(write_numbered(str(tmp_path / "a.mp4"), 100))
    for frame in (3, 4, 4, 9, 90, 12, 13, 99, 0):
        assert number_of(reader.frame(frame)) == frame
    reader.close()


def test_a_video_that_is_missing_is_the_problem_of_its_shard_alone(folder, tmp_path):
    receipt = convert_shard("160906_ian3", dataset(folder), CropConfig(side=64), str(tmp_path / "out"))
    assert "hd_00_03.mp4" in receipt.problem and not receipt.file
    assert not os.path.exists(tmp_path / "out" / "samples")


# ---- figures and images


def test_figures_tell_right_units_from_wrong_ones(folder):
    samples = list(dataset(folder).read("160906_ian3"))
    reported = measured(samples)
    assert (reported.samples, reported.frames, reported.captures, reported.views) == (8, 4, 1, (3, 3))
    assert reported.splits == {"train": 8} and reported.actions == {"ian": 8} and reported.damaged == 0
    assert reported.valid_share == 1.0 and reported.visible_share > 0.9 and reported.boxed_share == 1.0
    assert 1.2 < reported.extent_m[1] < 2.0 and reported.height_m[0] > 0.0
    moved = [replace(s, xyz=s.xyz + np.array([0.5, 0.0, 0.0])) for s in samples]
    assert measured(moved).boxed_share < 0.9
    with pytest.raises(ConfigError, match="no samples"):
        measured([])


def test_a_sheet_shows_a_row_a_sample_with_its_joints_in_their_places(folder, tmp_path):
    sample = painted(next(dataset(folder).read("160906_ian3")), tmp_path, joint=5)
    sheet = sample_sheet([sample, sample], views=2)
    assert sheet.shape == (512, 512, 3) and sheet.max() > 200
    with pytest.raises(ConfigError, match="no samples"):
        sample_sheet([])


def test_the_verb_converts_measures_and_shows(folder, tmp_path, capsys):
    import tyro

    def run(*arguments: str) -> int:
        return command.run(tyro.cli(command.Dataset, args=list(arguments)))

    output = str(tmp_path / "out")
    source = ["panoptic", "--folder", folder, "--cameras", "3,6,12", "--interval", "1"]
    assert run("convert", "--output", output, "--local", *source) == command.WITH_PROBLEMS
    said = capsys.readouterr().out
    assert "160906_ian3: 8 samples" in said and "body3DScene_00000003.json" in said and "16 samples in" in said
    assert run("stats", output) == command.COMPLETE
    assert "samples: 16" in capsys.readouterr().out
    with pytest.raises(ConfigError, match="no sample for this protocol"):
        run("stats", output, "--protocol", "panoptic-cmu0")

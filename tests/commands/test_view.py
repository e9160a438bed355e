"""`mvpose view` on runs made through the production door."""

import os
import re
import shutil
from collections.abc import Iterator

import cv2
import numpy as np
import pytest

from mvpose.commands.view import View, run
from mvpose.errors import ConfigError
from mvpose.models.detection.detector_settings import DetectorConfig
from mvpose.pipeline.engine import EngineConfig
from mvpose.pipeline.job import ReconstructJob, reconstruct_archive
from mvpose.report import run_report
from mvpose.report.report_settings import ReportConfig
from mvpose.run.run_folder import RunFolder
from mvpose.temporal.filter_settings import ButterworthFilter
from tests.pipeline import coded_footage

FRAMES = 24
SHORT = ReportConfig(max_overlay_frames=4)


@pytest.fixture(scope="module", autouse=True)
def plots_kept() -> Iterator[None]:
    """Plots of the same poses are drawn once: they take half the time of a page."""
    drawn, kept = run_report._plots, {}

    def plots(subject):
        key = subject.capture.capture_id, subject.poses.xyz.tobytes()
        if key not in kept:
            kept[key] = drawn(subject)
        return kept[key]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(run_report, "_plots", plots)
        yield


@pytest.fixture(scope="module")
def finished(tmp_path_factory) -> str:
    """A run of two captures, of one of which nothing could be decoded."""
    archive = tmp_path_factory.mktemp("archive")
    for name in ("one", "two"):
        coded_footage.write_capture(str(archive / name), FRAMES)
    (archive / "two" / "videos" / "cam1.mp4").write_bytes(b"this is not a video")
    output = str(tmp_path_factory.mktemp("output") / "run")
    reconstruct_archive(
        ReconstructJob(
            archive=str(archive), output=output, clip_frames=12, engine=EngineConfig(local=True),
            detector=DetectorConfig(detector=coded_footage.DETECTOR), filtering=ButterworthFilter(cutoff_hz=2.0),
        )
    )  # fmt: skip
    return output


def text(*path: str) -> str:
    with open(os.path.join(*path)) as file:
        return file.read()


def test_the_index_lists_every_capture_worst_first_and_its_links_lead_to_sections(finished):
    assert run(View(report=SHORT, run=(finished,))) == 0
    index = text(finished, "view", "index.html")
    assert index.index(">two<") < index.index(">one<")
    for page, anchor in re.findall(r'href="([^"#]+)#([^"]+)"', index):
        assert f'id="{anchor}"' in text(finished, "view", page)
    assert 'href="report.html#capture-one"' in index and "video unreadable" in index


def test_the_index_of_several_runs_links_to_the_page_of_each(finished, tmp_path):
    other = str(tmp_path / "a second run")
    shutil.copytree(finished, other)
    assert run(View(report=SHORT, run=(finished, other), output=str(tmp_path / "index"))) == 0
    index = text(str(tmp_path), "index", "index.html")
    linked = re.findall(r'href="([^"#]+)#capture-one"', index)
    assert len(linked) == 2
    for link in linked:
        assert os.path.exists(os.path.join(tmp_path, "index", link.replace("%20", " ")))
    with pytest.raises(ConfigError, match="--output"):
        run(View(report=SHORT, run=(finished, other)))


def test_filtered_poses_are_shown_when_asked_for_and_raw_ones_otherwise(finished):
    run(View(report=SHORT, run=(finished,)))
    run(View(report=SHORT, run=(finished,), filtered=True))
    raw, filtered = text(finished, "view", "report.html"), text(finished, "view_filtered", "report.html")
    folder = RunFolder(finished)
    plan = next(p for p in folder.plans() if p.capture.capture_id == "one")
    made = folder.filtered(plan)
    for page, poses in ((raw, made.raw), (filtered, made.poses)):
        there = np.rint(1000 * poses.xyz[10, 0, 0]).astype(int).tolist()
        assert str(there).replace(" ", "") in page
    assert not np.allclose(made.raw.xyz[10, 0, 0], made.poses.xyz[10, 0, 0], atol=0.0005)
    assert "filled" in filtered and "filled" not in raw.split("Definitions")[0]


def test_another_run_is_shown_beside_with_its_figures(finished, tmp_path):
    """Fails if the two sides are of one run, or if a page made before is not made again."""
    other = str(tmp_path / "other")
    shutil.copytree(finished, other)
    assert run(View(report=SHORT, run=(finished,))) == 0
    assert run(View(report=SHORT, run=(finished,), beside=other)) == 0
    page = text(finished, "view", "report.html")
    assert "Beside another run" in page and f"right {other}" in page
    image = cv2.imread(os.path.join(finished, "view", "one", "beside.png"))
    left, right = np.split(image, 2, axis=1)
    np.testing.assert_array_equal(left, right)


def test_no_run_is_one_sentence():
    with pytest.raises(ConfigError, match="no run given"):
        run(View())

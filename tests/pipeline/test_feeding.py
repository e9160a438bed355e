"""What keeps a GPU busy, as a dry run says it."""

import pytest

from mvpose.footage.video.frames import probe
from mvpose.models.detection.detector import TopDownDetector
from mvpose.models.detection.detector_settings import DetectorConfig
from mvpose.pipeline.feeding import Feeding, measured_feeding


@pytest.mark.parametrize(
    ("feeding", "said"),
    [
        (Feeding(4.5, 0.5, 4), "10 CPUs keep one busy (--cpus-per-worker 10 --clips-per-worker 3)"),
        (Feeding(2.0, 50.0, 4), "1 CPUs keep one busy (--cpus-per-worker 1 --clips-per-worker 1)"),
        (Feeding(2.0, None, 4), "How many CPUs a GPU needs: mvpose benchmark gpu"),
    ],
)
def test_the_cpus_are_those_whose_frames_the_gpu_takes(feeding, said):
    assert said in str(feeding)


def test_both_are_measured_on_the_footage_itself(footage, weights, monkeypatch):
    """On the CPU. Fails if either is left out, or is given for all frames or cameras together."""
    monkeypatch.setenv("MVPOSE_WEIGHTS", weights)
    videos = [probe(f"{footage}/Demo_SinglePerson/videos/cam0{i}.mp4", f"cam0{i}") for i in (1, 2)]
    detector = TopDownDetector(DetectorConfig(precision="float32"))
    found = measured_feeding(videos, 60.0, detector)
    assert found.cameras == 2 and found.device_ms is not None
    # Of one core: a frame takes 2 to 10 ms to decode and 20 to 100 to look at; 32 of them would take much longer.
    assert 0 < found.decode_ms < found.device_ms
    assert measured_feeding(videos, 60.0, None).device_ms is None

"""What a decoder has given is gone when its reader is done with it, without Python having to look for cycles."""

import gc

import pytest
from av.video.frame import VideoFrame

from mvpose.footage.video.frames import probe, read_frames, read_images
from tests.footage.archives import write_video


@pytest.fixture
def without_collection():
    gc.collect()
    gc.disable()
    yield
    gc.enable()


def test_no_decoded_frame_outlives_its_chunk(tmp_path, without_collection):
    video = probe(write_video(str(tmp_path / "v.mp4"), num_frames=20), "camera")
    for _ in read_frames(video, 0, 20, chunk=4):
        pass
    assert sum(isinstance(item, VideoFrame) for item in gc.get_objects()) == 0


def test_an_image_as_decoded_keeps_its_frame_and_no_other(tmp_path, without_collection):
    video = probe(write_video(str(tmp_path / "v.mp4"), num_frames=20), "camera")
    images = read_images(video, 0, 20)
    kept = [next(images), next(images)]
    for _ in images:
        pass
    assert sum(isinstance(item, VideoFrame) for item in gc.get_objects()) <= 3
    del kept, images, _
    assert sum(isinstance(item, VideoFrame) for item in gc.get_objects()) == 0

"""Recordings read back by Rerun's own reader."""

import sys
from dataclasses import replace

import cv2
import numpy as np
import pytest
import torch

from mvpose.errors import ConfigError
from mvpose.footage.video.video_writer import write_video
from mvpose.report.rerun_recording import RecordingConfig, ideal_rig, undistortion_maps, write_recording
from tests.report.walkers import capture_report, without_joint

chunk = pytest.importorskip("rerun.chunk")
NUM_FRAMES, FIRST_FRAME = 8, 2
SMALL = RecordingConfig(largest_side=160)


@pytest.fixture(scope="module")
def filmed(tmp_path_factory):
    """Footage whose frame k has the grey level 40 + 10 k; frame 0 of the capture is frame 2 of the videos."""
    folder = tmp_path_factory.mktemp("footage")
    uris = tuple(str(folder / f"{name}.mp4") for name in "abcd")
    for uri in uris:
        levels = range(40, 40 + 10 * (NUM_FRAMES + FIRST_FRAME), 10)
        write_video(uri, (np.full((240, 320, 3), level, dtype=np.uint8) for level in levels), 30.0)
    return capture_report(NUM_FRAMES, people=2, noise_px=1.0, uris=uris, first_frame=FIRST_FRAME)


def read(path: str) -> dict[tuple[str, str], list]:
    """Values by entity and component, in the order of the frames; of what has frames, those under `frame`."""
    rows: dict[tuple[str, str], list] = {}
    for part in chunk.RrdReader(path).stream():
        batch = part.to_record_batch()
        frames = [0] * part.num_rows if part.is_static else batch.column("frame").to_pylist()
        for name in batch.schema.names:
            if ":" in name:
                rows.setdefault((part.entity_path, name), []).extend(
                    zip(frames, batch.column(name).to_pylist(), strict=True)
                )
    values = {key: [value for _, value in sorted(pairs, key=lambda p: p[0])] for key, pairs in rows.items()}
    frames = {(entity, "frame"): sorted(f for f, _ in pairs) for (entity, _), pairs in rows.items()}
    return values | frames


def recorded(subject, tmp_path, config=SMALL):
    path = str(tmp_path / "out.rrd")
    count = write_recording(subject, path, config)
    return read(path), count


def test_people_are_where_they_were_reconstructed_frame_by_frame(filmed, tmp_path):
    missing = without_joint(filmed, "left_wrist", slice(3, 5))
    found, count = recorded(missing, tmp_path)
    assert count == NUM_FRAMES
    for p, track in enumerate(missing.poses.track_id):
        entity = f"/world/people/{track}"
        assert found[entity, "frame"] == list(range(NUM_FRAMES))
        for row in range(NUM_FRAMES):
            known = np.flatnonzero(np.isfinite(missing.poses.xyz[row, p, :, 0]))
            assert len(known) == 8 - (row in (3, 4))
            assert found[entity, "Points3D:keypoint_ids"][row] == known.tolist()
            assert np.allclose(found[entity, "Points3D:positions"][row], missing.poses.xyz[row, p, known], atol=1e-6)


def test_recorded_cameras_see_recorded_people_where_detections_are_recorded(filmed, tmp_path):
    found, _ = recorded(filmed, tmp_path)
    for name in filmed.capture.rig.names:
        camera = f"/world/cameras/{name}"
        k = np.array(found[camera, "Pinhole:image_from_camera"][0]).reshape(3, 3).T
        world_from_camera = np.array(found[camera, "Transform3D:mat3x3"][0]).reshape(3, 3).T
        centre = np.array(found[camera, "Transform3D:translation"][0]).ravel()
        joints = [found[f"/world/people/{track}", "Points3D:positions"][4] for track in filmed.poses.track_id]
        image = (np.array(joints) - centre) @ world_from_camera @ k.T
        pixels = image[..., :2] / image[..., 2:]
        drawn = np.array([found[f"{camera}/detections/{p}", "Points2D:positions"][4] for p in range(2)])
        apart = np.linalg.norm(pixels[:, None] - drawn[None], axis=-1).mean(axis=-1)
        assert apart.min(axis=1).max() < 2.0


def test_images_are_those_of_their_frames(filmed, tmp_path):
    found, count = recorded(filmed, tmp_path, replace(SMALL, start=1, every=3, max_frames=2))
    assert count == 2
    for name in filmed.capture.rig.names:
        images = found[f"/world/cameras/{name}/image", "EncodedImage:blob"]
        assert found[f"/world/cameras/{name}/image", "frame"] == [1, 4]
        for frame, blob in zip((1, 4), images, strict=True):
            image = cv2.imdecode(np.array(blob, np.uint8).ravel(), cv2.IMREAD_COLOR)
            assert image is not None and image.shape == (120, 160, 3)
            assert image[60, 80].mean() == pytest.approx(40 + 10 * (frame + FIRST_FRAME), abs=4)


def test_images_may_be_left_out(filmed, tmp_path):
    bare = replace(filmed, keypoints=None)
    found, _ = recorded(bare, tmp_path, replace(SMALL, images=False))
    assert ("/world/people/0", "frame") in found
    assert not [entity for entity, _ in found if "image" in entity or "detections" in entity]


def test_bones_and_joints_have_their_names(filmed, tmp_path):
    found, _ = recorded(filmed, tmp_path, replace(SMALL, images=False))
    reported = str(found["/", "AnnotationContext:context"])
    assert all(joint in reported for joint in filmed.poses.skeleton.joints)


def test_any_name_of_a_camera_will_do(filmed, tmp_path):
    rig = replace(filmed.capture.rig, names=("a/b", "c d", "é", "{}"))
    subject = replace(filmed, capture=replace(filmed.capture, rig=rig))
    found, _ = recorded(subject, tmp_path, replace(SMALL, max_frames=1))
    assert len({entity for entity, name in found if name == "Pinhole:resolution"}) == 4


def test_a_straight_image_shows_a_point_where_the_ideal_camera_sees_it(filmed):
    rig = filmed.capture.rig
    ideal = ideal_rig(rig, 160)
    points = torch.from_numpy(filmed.poses.xyz[0].reshape(-1, 3))
    distorted, _ = rig.project(points)
    homogeneous = torch.cat([points, torch.ones_like(points[:, :1])], dim=-1) @ ideal.projections.transpose(-1, -2)
    straight = (homogeneous[..., :2] / homogeneous[..., 2:]).float().numpy()
    for v, where in enumerate(undistortion_maps(rig, ideal)):
        looked_up = cv2.remap(where, straight[v][None], np.empty(0), cv2.INTER_LINEAR)[0]
        # OpenCV interpolates at 1/32 of a pixel, twice as large in the video.
        assert np.abs(looked_up - distorted[v].numpy()).max() < 0.1


def test_without_rerun_the_error_says_what_to_install(filmed, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "rerun", None)
    with pytest.raises(ConfigError, match=r"mvpose\[viz\]"):
        write_recording(filmed, str(tmp_path / "out.rrd"), SMALL)


def test_nothing_to_record_is_an_error(filmed, tmp_path):
    with pytest.raises(ConfigError, match="before frame 99"):
        write_recording(filmed, str(tmp_path / "out.rrd"), replace(SMALL, start=99))
    with pytest.raises(ConfigError, match="every"):
        RecordingConfig(every=0)

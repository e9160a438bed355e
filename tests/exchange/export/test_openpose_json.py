"""OpenPose JSON read back by the json module alone."""

import json

import numpy as np

from mvpose.exchange.export.openpose_json import openpose_files
from mvpose.scenes import dropped_frame


def test_every_camera_and_frame_has_a_file_and_missing_joints_are_zero():
    scene = dropped_frame(num_frames=32)
    keypoints = scene.keypoints()
    keypoints.confidence[0, 5, 0, 3], keypoints.xy[0, 5, 0, 3] = 0.0, np.nan
    files = dict(openpose_files(keypoints, scene.rig.names))
    assert len(files) == 4 * 32
    for v, camera in enumerate(scene.rig.names):
        for t in range(32):
            frame = json.loads(files[f"{camera}_json/{camera}_{t:012d}_keypoints.json"])
            people = np.flatnonzero(keypoints.box_score[v, t] > 0)
            assert frame["version"] == 1.3 and len(frame["people"]) == len(people)
            for place, person in zip(people, frame["people"], strict=True):
                triples = np.array(person["pose_keypoints_2d"]).reshape(26, 3)
                there = keypoints.confidence[v, t, place] > 0
                assert np.allclose(triples[there, :2], keypoints.xy[v, t, place][there], atol=1e-4)
                assert np.allclose(triples[:, 2], keypoints.confidence[v, t, place], atol=1e-5)
                assert (triples[~there] == 0).all()
                assert person["person_id"] == [-1] and person["face_keypoints_2d"] == []


def test_a_frame_without_people_is_an_empty_list():
    scene = dropped_frame(num_frames=32)
    files = dict(openpose_files(scene.keypoints(), scene.rig.names))
    assert json.loads(files["cam02_json/cam02_000000000012_keypoints.json"])["people"] == []

"""`mvpose import`, as a user types it: 2D joints of a known scene, in the files of other tools, to 3D."""

import json
import os
from collections.abc import Callable
from dataclasses import replace

import h5py
import numpy as np
import pandas as pd
import pytest
import torch
from trc import TRCData

from mvpose.cli import run
from mvpose.exchange.calibration_export import pose2sim_toml
from mvpose.exchange.keypoints import captures
from mvpose.footage.video.video_writer import write_video
from mvpose.report import run_report
from mvpose.run.run_folder import RunFolder
from mvpose.run.store import ClipStore, Commit
from mvpose.scenes import Scene, ring4, two_people_crossing
from mvpose.skeleton import BODY25, COCO17, HALPE26

FRAMES = 24
LOCAL = ("--local", "--tracking.no-enabled")
RESULTS = ("keypoints", "tracks", "identities", "poses", "filtered", "quality", "failures", "summary.json", "run.json")


def pixels(scene: Scene) -> np.ndarray:
    """V T P J 2, exact and distorted."""
    return scene.rig.project(torch.from_numpy(scene.joints))[0].numpy()


def write(path: str, content: str) -> str:
    os.makedirs(os.path.dirname(path), exist_ok=True)
    with open(path, "w") as file:
        file.write(content)
    return path


def calibration(folder, scene: Scene) -> str:
    return write(f"{folder}/Calib.toml", pose2sim_toml(scene.rig))


def person(xy: np.ndarray) -> dict:
    values = np.column_stack([xy, np.full(len(xy), 0.9)])
    return {"person_id": [-1], "pose_keypoints_2d": values.ravel().tolist()}


def everybody(_view: int, _frame: int, people: list[dict]) -> list[dict]:
    return people


def openpose(
    folder, scene: Scene, *, first: int = 0, shown: Callable[[int, int, list[dict]], list[dict] | None] = everybody
) -> str:
    """A folder a camera, a file a frame, numbered from `first`, people shuffled; no file where None is shown."""
    xy, rng = pixels(scene), np.random.default_rng(0)
    for v, camera in enumerate(scene.rig.names):
        for frame in range(len(scene.joints)):
            people = shown(v, frame, [person(each) for each in rng.permutation(xy[v, frame])])
            if people is not None:
                file = f"{folder}/{camera}_json/{camera}_{first + frame:012d}_keypoints.json"
                write(file, json.dumps({"version": 1.3, "people": people}))
    return str(folder)


def imported(output, *arguments: str, exit_code: int = 0) -> RunFolder:
    assert run(["import", *arguments, "--output", str(output), *LOCAL]) == exit_code
    return RunFolder(str(output))


def worst_mm(folder: RunFolder, scene: Scene, capture_id: str | None = None, first: int = 0) -> float:
    """Largest error of any joint, frame 0 of the scene being frame `first` of the run; everybody is there all the time.

    People come in the order of their support: who is who is told by the distance.
    """
    (plan,) = [p for p in folder.plans() if capture_id in (None, p.capture_id)]
    xyz = folder.poses(plan).xyz
    assert len(xyz) == first + len(scene.joints) and np.isnan(xyz[:first]).all()
    apart = np.linalg.norm(xyz[first:, :, None] - scene.joints[:, None], axis=-1)
    assert np.isfinite(apart).all() and apart.shape[1] == apart.shape[2]
    return 1000 * float(apart.max(axis=(0, 3)).min(axis=1).max())


def contents(output: str) -> dict[str, bytes]:
    """The bytes of every result. Commits hold timings and are not among them."""
    files = {}
    for kind in RESULTS:
        path = os.path.join(output, kind)
        for file in [path] if os.path.isfile(path) else [os.path.join(d, f) for d, _, fs in os.walk(path) for f in fs]:
            with open(file, "rb") as opened:
                files[os.path.relpath(file, output)] = opened.read()
    return files


@pytest.fixture(scope="module")
def walk() -> Scene:
    return ring4(num_frames=FRAMES, skeleton=BODY25)


@pytest.fixture(scope="module")
def source(walk, tmp_path_factory) -> str:
    """The 2D joints of `walk` with their calibration above them."""
    folder = tmp_path_factory.mktemp("source")
    calibration(folder, walk)
    return openpose(folder / "json", walk)


def command(source: str) -> tuple[str, ...]:
    return ("openpose", source, "--calibration", f"{source}/../Calib.toml", "--fps", "30", "--clip-frames", "8")


@pytest.fixture(scope="module")
def finished(source, tmp_path_factory) -> RunFolder:
    return imported(tmp_path_factory.mktemp("output") / "run", *command(source))


def test_openpose_json_of_a_known_scene_is_reconstructed_to_a_fraction_of_a_millimetre(finished, walk):
    assert worst_mm(finished, walk) < 0.05
    (plan,) = finished.plans()
    assert finished.poses(plan).skeleton == BODY25 and plan.capture.fps == 30.0
    assert run(["verify", finished.uri]) == 0
    assert finished.settings().values["imported"] == "openpose"


def test_a_calibration_in_centimetres_is_asked_about_as_for_footage(source, walk, tmp_path, capsys):
    pose = walk.rig.camera_from_world
    rig = replace(walk.rig, camera_from_world=replace(pose, translation=pose.translation * 100))
    write(f"{tmp_path}/cm.toml", pose2sim_toml(rig))
    about = ("openpose", source, "--calibration", f"{tmp_path}/cm.toml", "--fps", "30")
    imported(tmp_path / "guessed", *about, exit_code=4)
    assert "makes people 0.1" in capsys.readouterr().out
    assert worst_mm(imported(tmp_path / "named", *about, "--unit", "cm"), walk) < 0.05


def test_a_run_that_was_stopped_ends_with_the_bytes_of_one_that_was_not(
    finished, source, tmp_path, monkeypatch, capsys
):
    output, calls, commit = str(tmp_path / "run"), [], ClipStore.commit_table

    def stopped(store: ClipStore, *about) -> Commit:
        calls.append(store)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return commit(store, *about)

    with monkeypatch.context() as patched:
        patched.setattr(ClipStore, "commit_table", stopped)
        imported(output, *command(source), exit_code=130)
    imported(output, *command(source))
    assert contents(output) == contents(finished.uri)
    capsys.readouterr()
    imported(output, *command(source))
    assert "Nothing to do" in capsys.readouterr().out


def test_a_changed_file_or_setting_is_refused_and_replan_goes_on(walk, tmp_path, capsys):
    calibration(tmp_path, walk)
    source = openpose(tmp_path / "json", walk)
    output = tmp_path / "run"
    before = contents(imported(output, *command(source)).uri)
    imported(output, *command(source), "--first-frame", "5", exit_code=1)
    assert "imported.first_frame: was None, now 5" in capsys.readouterr().err
    write(f"{source}/cam02_json/cam02_{7:012d}_keypoints.json", json.dumps({"people": []}))
    imported(output, *command(source), exit_code=1)
    assert "has changed" in capsys.readouterr().err
    after = imported(output, *command(source), "--replan")
    assert contents(after.uri) != before and run(["verify", after.uri]) == 0
    assert not after.poses(after.plans()[0]).views_used[7, 0, :, 1].any()


def test_a_run_without_footage_is_viewed_and_exported_like_any_other(finished, walk, tmp_path, capsys):
    assert run(["view", finished.uri, "--output", str(tmp_path / "view"), "--tracking.no-enabled"]) == 0
    with open(tmp_path / "view" / "report.html") as page:
        assert "No overlays.</b> camera cam01 has no footage: its 2D joints were imported" in page.read()
    assert os.path.exists(tmp_path / "view" / "json" / "room.png")
    assert run(["export", finished.uri, "--format", "trc", "openpose_json", "--output", str(tmp_path / "out")]) == 0
    trc = TRCData()
    trc.load(str(tmp_path / "out" / "json" / "raw" / "json_person0.trc"))
    left_wrist = np.array(trc["left_wrist"])
    expected = walk.joints[:, 0, BODY25.index("left_wrist")][:, [1, 2, 0]]  # Y up
    assert np.abs(left_wrist - expected).max() < 1e-4
    written = tmp_path / "out" / "json" / "openpose" / "cam03_json" / f"cam03_{7:012d}_keypoints.json"
    (again,) = json.loads(written.read_bytes())["people"]
    xy = np.array(again["pose_keypoints_2d"]).reshape(-1, 3)[:, :2]
    assert np.abs(xy - pixels(walk)[2, 7, 0]).max() < 1e-3
    capsys.readouterr()
    assert run(["record", finished.uri, "--output", str(tmp_path / "rrd")]) == 3
    assert "has no footage" in capsys.readouterr().out


def test_frames_are_paired_by_their_numbers_whatever_a_camera_lacks(walk, tmp_path, capsys):
    def shown(view: int, frame: int, people: list[dict]) -> list[dict] | None:
        return None if (view == 1 and frame < 12) or (view == 2 and frame in (20, 21, 22)) else people

    source = openpose(tmp_path / "json", walk, first=5, shown=shown)
    calibration(tmp_path, walk)
    folder = imported(tmp_path / "run", *command(source))
    assert worst_mm(folder, walk, first=5) < 0.05
    said = capsys.readouterr().out
    assert "paired by the frame numbers of the files, 0 to 28 (cam01 lacks 5, cam02 lacks 17, cam03 lacks 8," in said
    used = folder.poses(folder.plans()[0]).views_used[5:, 0].any(axis=1)
    assert np.flatnonzero(~used[:, 1]).tolist() == list(range(12))
    assert np.flatnonzero(~used[:, 2]).tolist() == [20, 21, 22]


def test_numbers_that_begin_far_from_0_are_asked_about(walk, tmp_path, capsys):
    source = openpose(tmp_path / "json", walk, first=4500)
    calibration(tmp_path, walk)
    imported(tmp_path / "run", *command(source), exit_code=4)
    said = capsys.readouterr().out
    assert "numbered 4500 to 4523" in said and "--first-frame 4500" in said and "--first-frame 0" in said
    folder = imported(tmp_path / "other", *command(source), "--first-frame", "4500")
    assert worst_mm(folder, walk) < 0.05
    assert {video.first_frame for video in folder.plans()[0].capture.videos} == {4500}


@pytest.mark.parametrize("skeleton", [COCO17, HALPE26], ids=lambda s: s.name)
def test_people_of_other_joint_sets_are_told_apart_whatever_their_order(skeleton, tmp_path):
    scene = two_people_crossing(num_frames=20, skeleton=skeleton)
    source = openpose(tmp_path / "json", scene)
    calibration(tmp_path, scene)
    folder = imported(tmp_path / "run", *command(source), "--people", "2")
    assert worst_mm(folder, scene) < 0.05
    assert folder.poses(folder.plans()[0]).skeleton == skeleton


def test_a_damaged_file_costs_its_clip_and_is_named(walk, tmp_path, capsys):
    source = openpose(tmp_path / "json", walk)
    calibration(tmp_path, walk)
    write(f"{source}/cam03_json/cam03_{13:012d}_keypoints.json", "")
    folder = imported(tmp_path / "run", *command(source), "--max-failed-share", "0.4", exit_code=3)
    (failure,) = folder.failures()
    assert (failure["start"], failure["stop"]) == (8, 16) and "cam03_000000000013_keypoints.json" in failure["detail"]
    assert "frames 8 to 15" in capsys.readouterr().out


def test_for_a_scheduler_a_run_within_its_tolerated_failures_is_complete(walk, tmp_path, capsys):
    source = openpose(tmp_path / "json", walk)
    calibration(tmp_path, walk)
    write(f"{source}/cam03_json/cam03_{13:012d}_keypoints.json", "")
    clips = len(walk.joints) / 8
    for tolerated, exit_code, word in (("0.4", 0, "Complete"), ("0.01", 4, "Too many failures")):
        imported(
            tmp_path / "run", *command(source), "--exit-zero", "--max-failed-share", tolerated, exit_code=exit_code
        )
        last = capsys.readouterr().out.splitlines()[-1]
        assert last == f"{word}: {1 / clips:.1%} of the clips failed (tolerated: {float(tolerated):.1%})."


def small(scene: Scene) -> Scene:
    """Before cameras of 320 x 180."""
    size = torch.tensor([[320, 180]] * len(scene.rig))
    return replace(scene, rig=scene.rig.resized(torch.full((len(scene.rig), 2), 1 / 6).double(), size))


def test_a_pose2sim_project_gives_a_capture_for_each_trial_with_overlays(tmp_path, monkeypatch):
    monkeypatch.setattr(run_report, "_plots", lambda _: {})  # they take most of the time, and others look at them
    scene = small(ring4(num_frames=12, skeleton=HALPE26))
    calibration(tmp_path / "project" / "calibration", scene)
    for trial, folder in (("trial_1", "pose"), ("trial_2", "pose"), ("trial_2", "pose-sync")):
        openpose(tmp_path / "project" / trial / folder, scene)
    others = two_people_crossing(num_frames=12, skeleton=HALPE26)
    openpose(tmp_path / "project" / "trial_2" / "pose", small(others))
    black = np.zeros((12, 180, 320, 3), np.uint8)
    for camera in scene.rig.names:
        for trial in ("trial_1", "trial_2"):
            os.makedirs(tmp_path / "project" / trial / "videos", exist_ok=True)
            write_video(str(tmp_path / "project" / trial / "videos" / f"{camera}.mp4"), black, 25.0)

    def associated(view: int, frame: int, people: list[dict]) -> list[dict]:
        return [{}] if (view, frame) == (1, 3) else [] if (view, frame) == (2, 4) else [*people, {}]

    openpose(tmp_path / "project" / "trial_2" / "pose-associated", scene, shown=associated)
    folder = imported(tmp_path / "run", "pose2sim", str(tmp_path / "project"))
    for capture_id in ("trial_1", "trial_2"):
        assert worst_mm(folder, scene, capture_id) < 0.05
    assert {plan.capture_id: plan.capture.fps for plan in folder.plans()} == {"trial_1": 25.0, "trial_2": 25.0}
    assert run(["view", folder.uri, "--tracking.no-enabled"]) == 0
    view = f"{folder.uri}/view"
    assert os.path.exists(f"{view}/trial_1/overlay.mp4") and not os.path.exists(f"{view}/trial_2/overlay.mp4")


def table(xy: np.ndarray, joints, individuals=()) -> pd.DataFrame:
    """DeepLabCut's table of one camera, from (T P J 2)."""
    levels = [["net"], *([list(individuals)] if individuals else []), list(joints), ["x", "y", "likelihood"]]
    names = ["scorer", *(["individuals"] if individuals else []), "bodyparts", "coords"]
    values = np.concatenate([xy, np.full((*xy.shape[:-1], 1), 0.9)], axis=-1).reshape(len(xy), -1)
    return pd.DataFrame(values, columns=pd.MultiIndex.from_product(levels, names=names))


def write_fixed_hdf5(path: str, frame: pd.DataFrame) -> None:
    """As pandas' `to_hdf` in its format "fixed", which needs PyTables."""
    with h5py.File(path, "w") as file:
        group = file.create_group("df_with_missing")
        group["block0_values"], group["axis1"] = frame.to_numpy(), frame.index.to_numpy()
        for level, (names, codes) in enumerate(zip(frame.columns.levels, frame.columns.codes, strict=True)):
            group[f"block0_items_level{level}"] = np.array([str(name).encode() for name in names])
            group[f"block0_items_label{level}"] = np.array(codes)


def test_deeplabcut_tables_of_several_animals_are_paired_by_their_index(tmp_path, capsys):
    scene = two_people_crossing(num_frames=FRAMES, skeleton=COCO17)
    source = tmp_path / "videos"
    os.makedirs(source)
    for v, camera in enumerate(scene.rig.names):
        whole = table(pixels(scene)[v], COCO17.joints, ["ind1", "ind2"])
        kept = whole.drop(index=range(10, 15)) if v == 1 else whole[7:] if v == 2 else whole
        stem = f"{source}/walk-{camera}DLC_resnet50_peopleNov1shuffle1_50000_el"
        if v == 3:
            write_fixed_hdf5(f"{stem}.h5", kept)
        kept.to_csv(f"{stem}.csv")
    folder = imported(
        tmp_path / "run", "deeplabcut", str(source), "--calibration", calibration(tmp_path, scene), "--fps", "50",
        "--people", "2",
    )  # fmt: skip
    assert worst_mm(folder, scene) < 0.05
    assert "(cam02 lacks 5, cam03 lacks 7)" in capsys.readouterr().out
    assert folder.poses(folder.plans()[0]).skeleton == COCO17
    write(f"{source}/walk-cam01DLC_other.csv", "")
    imported(tmp_path / "other", "deeplabcut", str(source), "--fps", "50", exit_code=4)
    said = capsys.readouterr().out
    assert "walk-cam01DLC_other.csv" in said and "are both of walk-cam01" in said


def test_trials_in_one_folder_of_tables_are_captures_of_their_own(tmp_path):
    scenes = {f"walk{i}": ring4(num_frames=8, skeleton=COCO17, seed=i) for i in (1, 2)}
    for trial, scene in scenes.items():
        for v, camera in enumerate(scene.rig.names):
            path = f"{tmp_path}/tables/{trial}-{camera}DLC_resnet50_shuffle1.{'CSV' if v else 'csv'}"
            write(path, table(pixels(scene)[v], COCO17.joints).to_csv())
    path = calibration(tmp_path, scenes["walk1"])
    folder = imported(tmp_path / "run", "deeplabcut", f"{tmp_path}/tables", "--calibration", path, "--fps", "30")
    for trial, scene in scenes.items():
        assert worst_mm(folder, scene, f"tables/{trial}") < 0.05


MOUSE = {"nose": "snout", "left_wrist": "left_paw", "right_knee": "hind", "left_knee": "tail base", "neck": "neck"}


def test_sleap_files_of_joints_of_their_own_go_through_the_whole_job(walk, tmp_path, capsys):
    at = BODY25.indices(*MOUSE)
    scene = replace(walk, joints=walk.joints[:, :, at], seen=walk.seen[..., at])
    os.makedirs(tmp_path / "sleap")
    for v, camera in enumerate(walk.rig.names):
        with h5py.File(tmp_path / "sleap" / f"labels.v001.00{v}_{camera}.analysis.h5", "w") as file:
            xy = pixels(scene)[v]
            file["node_names"] = [name.encode() for name in MOUSE.values()]
            file["tracks"] = xy.transpose(1, 3, 2, 0)
            file["point_scores"] = np.full(xy.shape[:-1], 0.8).transpose(1, 2, 0)
    folder = imported(
        tmp_path / "run", "sleap", str(tmp_path / "sleap"), "--calibration", calibration(tmp_path, walk), "--fps", "30",
        "--adjust-extrinsics",
    )  # fmt: skip
    assert worst_mm(folder, scene) < 0.5
    assert folder.poses(folder.plans()[0]).skeleton.joints == tuple(MOUSE.values())
    assert run(["view", folder.uri, "--tracking.no-enabled"]) == 0
    formats = ("trc", "c3d", "csv_long", "csv_wide", "pose2sim", "anipose", "openpose_json")
    assert run(["export", folder.uri, "--filtered", "--format", *formats]) == 0
    capsys.readouterr()
    assert run(["export", folder.uri, "--format", "bvh"]) == 3
    assert "no bvh" in capsys.readouterr().out


def test_what_is_missing_is_asked_for_before_anything_is_computed(walk, source, tmp_path, capsys):
    known = ("--calibration", f"{source}/../Calib.toml")
    for number, (arguments, code, sentence) in enumerate(
        (
            (("openpose", source, *known), 4, "pass --fps RATE"),
            (("openpose", source, "--fps", "30"), 4, "--calibration FILE"),
            (("openpose", f"{source}/cam01_json", "--fps", "30"), 4, "give the folder above"),
            (("deeplabcut", source, *known), 1, "no 2D joints of deeplabcut were found"),
            (("openpose", source, *known, "--fps", "30", "--skeleton", "halpe"), 1, "unknown skeleton 'halpe'"),
            (("openpose", source, *known, "--fps", "30", "--videos", "nowhere"), 1, "no folder"),
        )
    ):
        imported(tmp_path / str(number), *arguments, exit_code=code)
        reported = capsys.readouterr()
        assert sentence in reported.out + reported.err, (arguments, reported)


@pytest.mark.parametrize(
    ("cameras", "said"),
    [
        (["a", "b", "c", "d"], "Rename the videos.\n"),
        (["cam02", "cam03", "cam04", "cam05"], "counted from different numbers"),
        (["cam01", "cam1", "cam03", "cam04"], "Keep only one of them in this folder.\n"),
        (["1_1", "1_2", "1_3", "2_1"], "separate folder.\n"),
        (["t1_cam01", "t1_cam02", "t2_cam03", "t2_cam04"], "those of each trial in a separate folder.\n"),
    ],
)
def test_what_is_wrong_with_names_is_advised_on_without_settings_that_an_import_lacks(
    source, tmp_path, capsys, cameras, said
):
    """Fails if sentences of the rooms that read footage are passed on: an import reads no capture.toml."""
    for folder, camera in zip(sorted(os.listdir(source)), cameras, strict=True):
        os.makedirs(tmp_path / "json", exist_ok=True)
        os.symlink(os.path.join(source, folder), tmp_path / "json" / f"{camera}_json")
    known = ("--calibration", f"{source}/../Calib.toml", "--fps", "30")
    imported(tmp_path / "run", "openpose", str(tmp_path / "json"), *known, exit_code=4)
    reported = capsys.readouterr().out
    assert said in reported, reported
    assert "capture.toml" not in reported and "--catalogue" not in reported


def test_a_rate_or_a_unit_that_is_asked_for_is_given_by_flags_of_an_import():
    for said, expected in (
        ("states no frame rate: set `fps` in a capture.toml, or --catalogue.fps.", "states no frame rate: pass --fps."),
        ("broken. Set `fps` in a capture.toml to the rate", "broken. pass --fps to the rate"),
        ("Use --catalogue.up=-z.", "Use --up=-z."),
    ):
        assert captures._for_imports(said) == expected

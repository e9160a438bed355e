from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from mvpose.datasets import human36m_facts as facts
from mvpose.datasets.protocols import MISLABELLED_ACTIONS, PROTOCOLS, protocol_named, read_protocol, selected
from mvpose.datasets.sample import TEST, TRAIN, VALIDATION
from mvpose.datasets.sample_table import write_samples
from mvpose.errors import ConfigError
from tests.datasets.test_sample_table import THREE, some_samples


def human36m_keys(frames: int, step: int = 1, shuffled: bool = False) -> pd.DataFrame:
    """Keys of a table of the two test subjects and one of training, with their real captures."""
    rows = []
    for subject in ("S9", "S11", "S1"):
        for action in facts.ACTIONS.values():
            for trial in (1, 2):
                capture = f"{subject}/{action}-{trial}"
                cameras = [c for c in facts.CAMERAS if c not in facts.NO_VIDEO.get(capture, ())]
                rows += [
                    {
                        "dataset": "human36m", "capture": capture, "subject": subject, "action": action, "frame": frame,
                        "split": TEST if subject in facts.TEST_SUBJECTS else TRAIN, "position": frame // step,
                        "person": 0, "damaged": capture in facts.DAMAGED, "camera": cameras,
                    }
                    for frame in range(0, frames, step)
                ]  # fmt: skip
    if shuffled:
        np.random.default_rng(0).shuffle(rows)
    return pd.DataFrame(rows)


def chosen(keys: pd.DataFrame, name: str) -> pd.DataFrame:
    return keys.loc[selected(keys, PROTOCOLS[name])]


def test_every_64th_complete_group_counts_through_all_captures_in_the_order_of_the_official_list():
    """Groups of 4 views in order of subject, action number, trial, frame; captures do not begin anew at 0."""
    found = chosen(human36m_keys(50, shuffled=True), "human36m-every64")
    captures = [f"{s}/{facts.ACTIONS[a]}-{t}" for s in ("S9", "S11") for a in range(2, 17) for t in (1, 2)]
    captures.remove("S11/Directions-2")
    expected = [(c, f) for c in captures for f in range(50)][::64]
    assert set(zip(found.capture, found.frame, strict=True)) == set(expected)
    assert len(found) == len(expected) == 47 and found.damaged.any()


def test_removing_damaged_scenes_shifts_the_count():
    keys = human36m_keys(50)
    found = chosen(keys, "human36m-every64-filtered")
    assert not found.damaged.any() and len(found) == -(-(59 - 3) * 50 // 64)


def test_every_64th_is_refused_on_a_table_of_every_5th_frame():
    with pytest.raises(ConfigError, match="every 5th: convert the dataset with stride 1"):
        selected(human36m_keys(50, step=5), PROTOCOLS["human36m-every64"])


def test_every_5th_frame_keeps_captures_that_lack_a_camera_and_drops_damaged_ones():
    """26,634 frames are what S9 and S11 have by this rule; here 10 of each of 60 - 3 captures."""
    for step in (1, 5):
        found = chosen(human36m_keys(50, step=step), "human36m-every5-filtered")
        assert len(found) == (60 - 3) * 10 and (found.frame % 5 == 0).all()
        assert "S11/Directions-2" in set(found.capture) and set(found.split) == {TEST}
    assert len(chosen(human36m_keys(50), "human36m-every5-relative")) == 60 * 10
    assert set(chosen(human36m_keys(10), "human36m-train").subject) == {"S1"}


def test_the_damaged_scenes_are_the_three_of_subject_9():
    assert facts.DAMAGED == ("S9/Greeting-2", "S9/SittingDown-2", "S9/Waiting-1")


def test_actions_have_the_names_that_metadata_gives_their_numbers():
    """`act_07` is Posing; the tables printed by the code of cross-view fusion call it Photo."""
    assert facts.ACTIONS[7] == "Posing" and MISLABELLED_ACTIONS["Photo"] == "Posing"
    assert facts.ACTIONS[14] == "Walking" and MISLABELLED_ACTIONS["WalkDog"] == "Walking"
    assert sorted(facts.ACTIONS) == list(range(2, 17))
    assert list(MISLABELLED_ACTIONS.values()) == list(facts.ACTIONS.values())


def panoptic_keys(cameras: list[str]) -> pd.DataFrame:
    rows = [
        {
            "dataset": "panoptic", "capture": capture, "subject": capture, "action": "", "split": VALIDATION,
            "frame": 130 + position, "position": position, "person": person, "damaged": False, "camera": cameras,
        }
        for capture in ("160906_pizza1", "171204_pose5") for position in range(40) for person in (0, 1)
    ]  # fmt: skip
    return pd.DataFrame(rows)


def test_every_12th_annotated_frame_of_voxelposes_sequences_counts_by_its_five_cameras():
    every = [f"00_{n:02d}" for n in range(31)]
    found = chosen(panoptic_keys(every), "panoptic-cmu0")
    assert sorted(set(found.frame)) == [130, 142, 154, 166] and set(found.capture) == {"160906_pizza1"}
    assert len(found) == 8
    few = ["00_03", "00_06", "00_12", "00_13"]
    assert not len(chosen(panoptic_keys(few), "panoptic-cmu0"))


def test_a_table_of_another_dataset_has_nothing_for_a_protocol():
    assert not selected(panoptic_keys(["00_03"]), PROTOCOLS["shelf"]).any()


def test_protocols_ask_for_what_their_datasets_have():
    from mvpose.datasets.panoptic import camera_names
    from mvpose.datasets.total_capture import CAMERAS

    for name, protocol in PROTOCOLS.items():
        assert name.startswith(protocol.dataset) and protocol.source
        if protocol.dataset == "total_capture":
            assert set(protocol.cameras or ()) <= set(CAMERAS)
    seen, unseen = PROTOCOLS["total_capture-seen"].cameras, PROTOCOLS["total_capture-unseen-cameras"].cameras
    assert not set(seen or ()) & set(unseen or ())
    assert PROTOCOLS["panoptic-cmu4"].cameras == camera_names("CMU4")


def test_an_unknown_protocol_is_reported_with_those_there_are():
    with pytest.raises(ConfigError, match="human36m-every64"):
        protocol_named("human36m-every63")


def test_reading_by_a_protocol_gives_its_people_by_its_cameras(tmp_path):
    """Two files, rows of 3 and 4 views, one person without the joint asked for."""
    for name, seed in (("a", 0), ("b", 1)):
        write_samples(str(tmp_path / f"{name}.parquet"), some_samples(seed=seed), THREE, "test")
    names = some_samples()[0].rig.names
    protocol = replace(
        PROTOCOLS["shelf"],
        dataset="test",
        split="train",
        people=None,
        cameras=(names[1], names[0]),
        every_frame=5,
        required_joint="neck",
    )
    found = list(read_protocol(str(tmp_path), protocol))
    # Of frames 0, 5, 10, 15, 20: at 5 there is no neck, at 10 camera 1 did not record.
    assert [s.frame for s in found] == [0, 15, 20, 0, 15, 20]
    assert found[3].rig.names == (names[1], names[0])
    np.testing.assert_array_equal(found[3].xyz, some_samples(seed=1)[0].xyz)
    with pytest.raises(ConfigError, match="no sample for this protocol: it needs nothing, split test"):
        list(read_protocol(str(tmp_path), replace(protocol, dataset="nothing", split="test")))

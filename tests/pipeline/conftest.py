"""Jobs on the coded footage, which is the same in nearly all of them."""

from collections.abc import Iterator

import pytest

from mvpose.footage.rig_table import rig_digest
from mvpose.pipeline import stages


@pytest.fixture(scope="session", autouse=True)
def findings_kept() -> Iterator[None]:
    """Checks of the same 2D joints by the same rig are made once: they take two thirds of the time of a small job.

    That they come out alike each time is held by the tests that compare a job here with one of another process.
    """
    made, kept = stages.preflight, {}

    def preflight(keypoints, frames, rig, fps, config):
        arrays = (keypoints.xy, keypoints.confidence, keypoints.box, keypoints.box_score, frames)
        shown = tuple((array.shape, array.tobytes()) for array in arrays)
        key = (shown, keypoints.skeleton, keypoints.scale, rig_digest(rig), fps, config)
        if key not in kept:
            kept[key] = made(keypoints, frames, rig, fps, config)
        return kept[key]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(stages, "preflight", preflight)
        yield

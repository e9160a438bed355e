"""Identities on real footage of several people: they never come closer than 0.97 m, so nobody crosses anybody in it."""

import os
import shutil

import numpy as np
import pytest

from mvpose.pipeline.engine import EngineConfig
from mvpose.pipeline.job import ReconstructJob, reconstruct_archive
from mvpose.run.run_folder import RunFolder


@pytest.mark.slow
@pytest.mark.footage
def test_people_of_real_footage_keep_their_identities_from_clip_to_clip(footage, weights, tmp_path, monkeypatch):
    monkeypatch.setenv("MVPOSE_WEIGHTS", weights)
    shutil.copytree(os.path.join(footage, "Demo_MultiPerson"), tmp_path / "archive" / "people")
    output = str(tmp_path / "run")
    reconstruct_archive(
        ReconstructJob(
            archive=str(tmp_path / "archive"), output=output, clip_frames=25, engine=EngineConfig(local=True),
            people=2,
        )
    )  # fmt: skip
    run_folder = RunFolder(output)
    poses = run_folder.poses(run_folder.plans()[0])
    assert poses is not None
    joint = poses.skeleton.index
    trunk = [joint(f"{side}_{part}") for side in ("left", "right") for part in ("hip", "shoulder")]
    place = np.nanmean(poses.xyz[:, :, trunk], axis=2)
    assert place.shape == (100, 2, 3) and np.isfinite(place).all()
    stay = np.linalg.norm(np.diff(place, axis=0), axis=-1).sum(axis=1)
    swap = np.linalg.norm(place[1:] - place[:-1, ::-1], axis=-1).sum(axis=1)
    assert (swap - stay).min() > 1.0 and stay.max() < 0.2
    # One of them is a head shorter, whoever the tracker says it is: 0.62 m of leg against 0.81 m.
    bones = [
        (f"{side}_{a}", f"{side}_{b}") for side in ("left", "right") for a, b in (("hip", "knee"), ("knee", "ankle"))
    ]
    lengths = [np.linalg.norm(poses.xyz[:, :, joint(a)] - poses.xyz[:, :, joint(b)], axis=-1) for a, b in bones]
    leg = np.nansum(lengths, axis=0) / 2
    shorter = leg.argmin(axis=1)
    assert (shorter == shorter[0]).all()

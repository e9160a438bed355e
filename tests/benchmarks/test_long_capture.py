import numpy as np
import pytest

from mvpose.benchmarks.long_capture import commit_keypoints, walkers_job
from mvpose.pipeline.job import reconstruct_archive
from mvpose.run.run_folder import RunFolder


@pytest.mark.slow
def test_the_people_who_walk_through_a_long_capture_are_followed_to_its_end(tmp_path):
    job = walkers_job(str(tmp_path / "walk"), 80, 10)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("os.fsync", lambda _: None)  # nobody pulls the plug here, and a busy disk takes its time
        commit_keypoints(job)
        summary = reconstruct_archive(job)
    assert (summary.clips, summary.frames, summary.failures) == (8, 80, ())
    run = RunFolder(job.output)
    (plan,) = run.plans()
    poses = run.poses(plan)
    assert poses is not None and poses.xyz.shape[:2] == (80, 2)
    assert np.isfinite(poses.xyz[..., 0]).mean() > 0.9
    assert run.filtered(plan).filled.any()

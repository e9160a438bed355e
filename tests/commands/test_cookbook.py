"""The cookbook's chain from rendered people to a job with the promoted network, as written, in a folder of its own.

Paths are relative and the work is on Ray. Recipes of the same names extend the repository's with the smallest sizes.
"""

import os
import re
import shlex
import shutil
import subprocess
import sys

import pytest

from mvpose.evaluation.summary import SUMMARY
from mvpose.footage.demo_footage import DAMAGED, make_demo_archive
from mvpose.run.run_folder import RunFolder
from mvpose.tracking import TrackingConfig
from mvpose.tracking.promotion import decision_history
from mvpose.tracking.registry import CHAMPION
from tests.conftest import REPOSITORY
from tests.rendering.conftest import assets

__all__ = ["assets"]

PAGE = os.path.join(REPOSITORY, "jobs", "README.md")
SMALLER = {
    "--train 5000 --validation 200 --test 500": "--train 16 --validation 8 --test 16",
    "/data/archive": "archive",
    "/data/run2": "run2",
}
TINY = """
method = { size = [64, 64] }
optimisation = { batch = 8, steps = 2, epochs = 1 }
"""
SPACE = """
sweep = { trials = 2 }
[space]
"optimisation.batch" = { kind = "choice", options = [4, 8] }
"""


def lines(section: str) -> list[str]:
    """The commands of the first block of a section, made smaller."""
    with open(PAGE) as file:
        page = file.read()
    blocks = re.findall(r"```sh\n(.*?)```", page.partition(f"\n## {section}\n")[2], flags=re.DOTALL)
    count = 2 if section.startswith("Train") else 1
    text = "".join(blocks[:count])
    for written, smaller in SMALLER.items():
        if written in text:
            text = text.replace(written, smaller)
    return [line.split("#")[0].strip() for line in text.splitlines() if line.startswith("mvpose ")]


def typed(line: str) -> subprocess.CompletedProcess:
    """A command in a process of its own, in the working directory."""
    return subprocess.run([sys.executable, "-m", *shlex.split(line)], capture_output=True, text=True, check=False)


def test_the_chain_is_in_the_cookbook():
    """Fails if the slow test below would leave out a step of the page."""
    verbs = [line.split()[1] for line in lines("Train, register and serve a network")]
    assert verbs == ["dataset", "dataset", "train", "evaluate", "register", "promote", "reconstruct", "track"]
    assert [line.split()[1] for line in lines("A sweep")] == ["tune"]
    with open(PAGE) as file:
        page = file.read()
    assert all(written in page for written in SMALLER)


@pytest.mark.slow
@pytest.mark.footage
def test_the_cookbook_leads_from_rendered_people_to_a_job_with_the_promoted_network(
    assets,
    footage,
    weights,
    tmp_path,
    monkeypatch,
):
    """Fails if a worker looks for a relative path in its own folder, or a step does not find what the last one left."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    for name, value in {
        "MVPOSE_ASSETS": assets,
        "MVPOSE_WEIGHTS": weights,
        "XDG_DATA_HOME": str(tmp_path / "data"),
        "PYTHONPATH": REPOSITORY,
    }.items():
        monkeypatch.setenv(name, value)
    archive = make_demo_archive(str(tmp_path / "archive"), footage)
    for other in ("multi_person", DAMAGED):
        shutil.rmtree(os.path.join(archive, other))
    shutil.copy(os.path.join(archive, "single_person", "calibration", "Calib_scene.toml"), tmp_path / "my_rig.toml")
    configs = tmp_path / "jobs" / "configs"
    configs.mkdir(parents=True)
    for name, more in (
        ("train-rendered-canonical-fusion-pooling.toml", ""),
        ("tune-small-canonical-fusion.toml", SPACE),
    ):
        (configs / name).write_text(f'extends = "{REPOSITORY}/jobs/configs/{name}"\n{TINY}{more}')
    chain = lines("Train, register and serve a network")
    tune = lines("A sweep")
    for line in [*chain[:3], *tune, *chain[3:]]:
        # A network of two steps is worse than the default pipeline: the gate must say so, and be opened for it.
        if " promote " in line:
            refused = typed(line)
            assert refused.returncode == 4 and "not significantly above the margin" in refused.stdout
            line += " --margin-m -100"
        done = typed(line)
        assert done.returncode == 0, (line, done.stdout, done.stderr)
    assert os.path.exists(os.path.join("judged", "model", SUMMARY))
    assert [d.outcome for d in decision_history(TrackingConfig(), "net", CHAMPION)] == ["refused", "moved"]
    job = RunFolder("run2")
    assert job.settings().values["model"] == "models:/net/1" and job.keypoints(job.plans()[0]) is not None
    assert (tmp_path / "sweep" / "trials.json").exists()

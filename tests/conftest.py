"""Shapes are checked under pytest alone: the hook must be installed before anything imports mvpose."""

import os
import tempfile

import pytest
from hypothesis import settings
from jaxtyping import install_import_hook

install_import_hook("mvpose", "beartype.beartype")

# The same examples each time, so that a commit is judged by what it changed; HYPOTHESIS_PROFILE=explore draws new ones.
settings.register_profile("same", derandomize=True)
settings.register_profile("explore", derandomize=False)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "same"))

# Ray runs its workers 15 steps nicer: beside other tests that compute they got 2 % of a core, and two tests of faults
# waited 120 s for a first commit in vain.
os.environ.setdefault("RAY_worker_niceness", "0")

# Records of tests are kept apart from those of the user.
os.environ["XDG_DATA_HOME"] = tempfile.mkdtemp(prefix="mvpose-tests-")

REPOSITORY = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))


def _folder(variable: str, default: str) -> str:
    folder = os.environ.get(variable) or os.path.join(REPOSITORY, "..", "shared", default)
    if not os.path.isdir(folder):
        pytest.skip(f"no {default} here: name its folder in {variable}")
    return os.path.abspath(folder)


@pytest.fixture(scope="session")
def footage() -> str:
    """Folder of the demo footage (Demo_SinglePerson, Demo_MultiPerson, StaticTrial)."""
    return _folder("MVPOSE_FOOTAGE", "footage")


@pytest.fixture(scope="session")
def weights() -> str:
    """Folder of the detector's ONNX files."""
    return _folder("MVPOSE_WEIGHTS", "weights")

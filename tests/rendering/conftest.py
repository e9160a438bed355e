"""The files that rendered people are made from: in MVPOSE_ASSETS, or beside the repository."""

import os

import pytest

from tests.conftest import REPOSITORY


@pytest.fixture(scope="session")
def assets() -> str:
    """Folder of the assets; tests that need it are skipped without it."""
    folder = os.environ.get("MVPOSE_ASSETS") or os.path.join(REPOSITORY, "..", "shared", "assets")
    if not os.path.isdir(folder):
        pytest.skip("no assets here: name their folder in MVPOSE_ASSETS")
    return os.path.abspath(folder)

"""A store of MLflow for each test: making the tables of one takes seconds, so that one is made and copied."""

import shutil

import pytest

from mlflow import MlflowClient
from mvpose.tracking import TrackingConfig


@pytest.fixture(scope="session")
def empty_store(tmp_path_factory) -> str:
    path = tmp_path_factory.mktemp("store") / "mlflow.db"
    MlflowClient(f"sqlite:///{path}").search_experiments()
    return str(path)


@pytest.fixture
def config(tmp_path, empty_store) -> TrackingConfig:
    shutil.copy(empty_store, tmp_path / "mlflow.db")
    return TrackingConfig(uri=f"sqlite:///{tmp_path}/mlflow.db", folder=str(tmp_path / "tracking"))

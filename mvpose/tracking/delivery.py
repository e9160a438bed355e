"""Delivery of records from the local file to MLflow, in order and exactly once, even if a process dies in between.

A record may be sent twice if its sender died before it noted the arrival. MLflow ignores the duplicate: a run is
identified by the tag `mvpose.run`, a metric by name, step, time and value, a parameter, tag or file by name.
"""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from itertools import islice
from typing import TYPE_CHECKING, Any

from mvpose.errors import MvposeError, redacted
from mvpose.tracking.spool import Arrived, Record, Spool
from mvpose.tracking.tracking_config import TrackingConfig, connection, tracking_uri

if TYPE_CHECKING:
    from mlflow import MlflowClient

logger = logging.getLogger(__name__)

RUN_TAG = "mvpose.run"
KIND = ("mlflow.experimentKind", "custom_model_development")
"""Tag by which MLflow's pages (3.17) choose between training and language models; without it they guess, or ask."""
MAX_PARAMETER_LENGTH = 500
MAX_TAG_LENGTH = 4000
# Limits of MLflow's REST interface per call.
MAX_METRICS, MAX_PARAMETERS, MAX_TAGS = 1000, 100, 100
# Metrics are frequent and sent in batches.
SECONDS_BETWEEN_METRICS = 5.0
# After a failed attempt, wait this many times the time that it took: an unreachable store costs a job 5 %.
PATIENCE = 20.0
SHORTEST_PAUSE_S = 30.0

_not_before: dict[Spool, float] = {}


class UnreachableError(MvposeError):
    """The tracking store does not respond or denies access; nothing is lost, records are sent later."""


class _RefusedError(Exception):
    """The store rejects this record permanently."""


def deliver(config: TrackingConfig, spool: Spool, *, urgent: bool) -> None:
    """Send pending records if a delivery is due. An unreachable store causes a warning and never stops the job.

    `urgent` records are sent without waiting for a batch, but still respect the pause after a failure.
    """
    now, due = time.monotonic(), _not_before.get(spool, 0.0)
    if not config.enabled or (now < due and not urgent) or now < due - SECONDS_BETWEEN_METRICS:
        return
    try:
        send(config, spool, wait=False)
        _not_before[spool] = time.monotonic() + SECONDS_BETWEEN_METRICS
    except UnreachableError as error:
        took = time.monotonic() - now
        _not_before[spool] = time.monotonic() + max(SHORTEST_PAUSE_S, PATIENCE * took)
        logger.warning("%s The job continues; the record is kept in %s.", error, spool.path)


def send(config: TrackingConfig, spool: Spool, *, wait: bool) -> int:
    """Send pending records and return their number. UnreachableError if the store cannot be reached.

    A record that the store rejects permanently raises nothing: it is set aside with a warning.
    """
    with spool.sending(wait) as mine, reached(config):
        if not mine:
            return 0
        client = client_of(config)
        arrived = _known(client, config, spool)
        count = 0
        for together, end in _grouped(spool.records(arrived.offset)):
            _send_or_refuse(client, arrived.remote_id, spool, together)
            arrived = Arrived(arrived.uri, arrived.remote_id, end)
            spool.mark(arrived)
            for record in together:
                if record["kind"] == "files":
                    spool.remove_files(record["copy"])
            count += len(together)
        return count


def remote_run(client: MlflowClient, run_id: str) -> str | None:
    """The store's own ID of a run, found by its tag."""
    experiments = [e.experiment_id for e in client.search_experiments()]
    found = client.search_runs(experiments, f"tags.`{RUN_TAG}` = '{run_id}'", max_results=1)
    return found[0].info.run_id if found else None


def client_of(config: TrackingConfig) -> MlflowClient:
    """Return a client of the tracking store and its registry."""
    # Retry an unavailable server for seconds; MLflow's default takes minutes.
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "2")
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "10")
    os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
    for noisy in ("alembic", "mlflow"):
        logging.getLogger(noisy).setLevel(logging.WARNING)
    from mlflow import MlflowClient

    uri = connection(config)
    if uri.startswith("sqlite:///"):
        os.makedirs(os.path.dirname(uri.removeprefix("sqlite:///")), exist_ok=True)
    return MlflowClient(tracking_uri=uri)


def experiment_id(client: MlflowClient, config: TrackingConfig, name: str) -> str:
    """Return the experiment with this name, created if missing; artifacts of a SQLite store are next to its file.

    MLflow's pages open it as one of trained models (`KIND`), unless a user has chosen another kind.
    """
    from mlflow.exceptions import MlflowException

    found = client.get_experiment_by_name(name)
    if found is not None:
        if KIND[0] not in found.tags:
            client.set_experiment_tag(found.experiment_id, *KIND)
        return found.experiment_id
    uri = tracking_uri(config)
    folder = os.path.dirname(os.path.abspath(uri.removeprefix("sqlite:///")))
    location = f"file://{folder}/mlartifacts" if uri.startswith("sqlite:///") else None
    try:
        return client.create_experiment(name, artifact_location=location, tags=dict([KIND]))
    except MlflowException as error:
        if error.error_code != "RESOURCE_ALREADY_EXISTS":
            raise
        return experiment_id(client, config, name)


def log_points(client: MlflowClient, remote_id: str, points: Iterable[tuple[str, float, int, int]]) -> None:
    """Log (name, value, milliseconds, step) as metrics of a run, in the largest batches that MLflow accepts."""
    from mlflow.entities import Metric

    found = (Metric(_allowed(key), value, time_ms, step) for key, value, time_ms, step in points)
    while some := list(islice(found, MAX_METRICS)):
        client.log_batch(remote_id, metrics=some)


@contextmanager
def reached(config: TrackingConfig) -> Iterator[None]:
    """Raise UnreachableError if the store cannot be reached or refuses."""
    from alembic.util.exc import CommandError
    from boto3.exceptions import Boto3Error
    from botocore.exceptions import BotoCoreError, ClientError
    from mlflow.exceptions import MlflowException
    from sqlalchemy.exc import SQLAlchemyError

    # Artifacts may be in a separate S3 store, and a SQLite file may be from a newer MLflow.
    try:
        yield
    except (MlflowException, SQLAlchemyError, OSError, BotoCoreError, ClientError, Boto3Error, CommandError) as error:
        raise UnreachableError(f"MLflow at {tracking_uri(config)}: {str(error).splitlines()[0]}.") from error


def _known(client: MlflowClient, config: TrackingConfig, spool: Spool) -> Arrived:
    """Return the run in the store: the existing one, or a new one."""
    from mlflow.exceptions import MlflowException

    uri, before = tracking_uri(config), spool.arrived()
    if before is not None and before.uri == uri:
        try:
            if client.get_run(before.remote_id).data.tags.get(RUN_TAG) == spool.run_id:
                return before
        except MlflowException as error:
            if error.error_code != "RESOURCE_DOES_NOT_EXIST":
                raise
    # Another store, a store that lost the run, or a different run: send all records from the start.
    found = remote_run(client, spool.run_id) or _create(client, config, spool)
    arrived = Arrived(uri, found, 0)
    spool.mark(arrived)
    return arrived


def _create(client: MlflowClient, config: TrackingConfig, spool: Spool) -> str:
    start = next((record for record, _ in spool.records() if record["kind"] == "start"), None)
    if start is None:
        raise UnreachableError(
            f"run {spool.run_id} from another machine is not in {tracking_uri(config)}: sync it there first."
        )
    tags = {RUN_TAG: spool.run_id}
    if start["parent"]:
        parent = Spool(spool.folder, start["parent"])
        if parent.exists() and remote_run(client, parent.run_id) is None:
            send(config, parent, wait=True)
        found = remote_run(client, parent.run_id)
        if found is None:
            raise UnreachableError(f"run {spool.run_id} needs its parent {parent.run_id}: sync its folder first.")
        tags["mlflow.parentRunId"] = found
    experiment = experiment_id(client, config, start["experiment"])
    return client.create_run(experiment, start["time"], tags, start["name"]).info.run_id


def _grouped(records: Iterator[tuple[Record, int]]) -> Iterator[tuple[list[Record], int]]:
    """Group records for one call, with the byte where the last one ends: metrics are batched, others sent singly."""
    group: list[Record] = []
    size, last = 0, 0
    for record, end in records:
        extra = len(record["figures"]) if record["kind"] == "metrics" else MAX_METRICS
        if group and size + extra > MAX_METRICS:
            yield group, last
            group, size = [], 0
        group.append(record)
        size, last = size + extra, end
    if group:
        yield group, last


def _send_or_refuse(client: MlflowClient, remote_id: str, spool: Spool, together: Sequence[Record]) -> None:
    """Send records; set aside, one by one, those that the store rejects permanently."""
    try:
        _send_records(client, remote_id, spool, together)
    except _RefusedError as error:
        if len(together) > 1:
            for record in together:
                _send_or_refuse(client, remote_id, spool, [record])
            return
        spool.refuse(together[0], str(error))
        logger.warning("MLflow rejected a record of run %s, which is set aside: %s", spool.run_id, error)


def _send_records(client: MlflowClient, remote_id: str, spool: Spool, together: Sequence[Record]) -> None:
    from mlflow.exceptions import MlflowException

    try:
        match (record := together[0])["kind"]:
            case "start":
                _send_start(client, remote_id, record)
            case "metrics":
                points = ((k, v, r["time"], r["step"]) for r in together for k, v in r["figures"].items())
                log_points(client, remote_id, points)
            case "tags":
                _send_tags(client, remote_id, record["tags"])
            case "files":
                if spool.has_links(record["copy"]):
                    raise _RefusedError("it contains a link, and copies do not contain links")
                if os.path.isdir(spool.files(record["copy"])):
                    client.log_artifacts(remote_id, spool.files(record["copy"]), record["artifact_path"])
            case "resume":
                client.update_run(remote_id, status="RUNNING")
            case "end":
                client.set_terminated(remote_id, record["status"], record["time"])
    except MlflowException as error:
        if error.error_code in ("INVALID_PARAMETER_VALUE", "BAD_REQUEST"):
            raise _RefusedError(redacted(str(error)).splitlines()[0]) from error
        raise


def _send_start(client: MlflowClient, remote_id: str, record: Record) -> None:
    from mlflow.entities import Param

    known = client.get_run(remote_id).data.params
    settings = {_allowed(k): str(v)[:MAX_PARAMETER_LENGTH] for k, v in record["settings"].items()}
    # Parameters are immutable; a run resumed with another value keeps both in its settings files.
    new = iter([Param(key, value) for key, value in settings.items() if key not in known])
    while some := list(islice(new, MAX_PARAMETERS)):
        client.log_batch(remote_id, params=some)
    _send_tags(client, remote_id, record["tags"])
    client.log_dict(remote_id, record["settings"], "settings.json")
    client.log_dict(remote_id, record["environment"], "environment.json")
    client.update_run(remote_id, status="RUNNING")


def _send_tags(client: MlflowClient, remote_id: str, tags: dict[str, Any]) -> None:
    from mlflow.entities import RunTag

    found = iter([RunTag(_allowed(key), str(value)[:MAX_TAG_LENGTH]) for key, value in tags.items()])
    while some := list(islice(found, MAX_TAGS)):
        client.log_batch(remote_id, tags=some)


def _allowed(key: str) -> str:
    """Replace characters that MLflow does not allow in names: it allows letters, digits and `_-. :/`."""
    return "".join(c if c.isalnum() or c in "_-. :/" else "_" for c in key)

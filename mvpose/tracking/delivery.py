"""Records from the local file to MLflow: in order, each of them there exactly once whatever dies in between.

A record may be sent again when its sender died before it noted the arrival. MLflow takes the second one for the first:
a run is found by the tag `mvpose.run`; a metric is the same by name, step, time and value; a parameter, a tag and a
file by name.
"""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from itertools import islice
from typing import TYPE_CHECKING, Any

from mvpose.errors import MvposeError
from mvpose.redaction import redacted
from mvpose.tracking.config import TrackingConfig, connection, tracking_uri
from mvpose.tracking.spool import Arrived, Record, Spool

if TYPE_CHECKING:
    from mlflow import MlflowClient

logger = logging.getLogger(__name__)

RUN_TAG = "mvpose.run"
MAX_PARAMETER_LENGTH = 500
MAX_TAG_LENGTH = 4000
# Limits of MLflow's REST interface for one call.
MOST_METRICS, MOST_PARAMETERS, MOST_TAGS = 1000, 100, 100
# Metrics come often and are sent together.
SECONDS_BETWEEN_METRICS = 5.0
# A store that does not answer is asked again after this many times the time that it took not to: it costs a job 5 %.
PATIENCE = 20.0
SHORTEST_PAUSE_S = 30.0

_not_before: dict[Spool, float] = {}


class UnreachableError(MvposeError):
    """The tracking store does not answer, or does not let us in; nothing is lost, it is sent later."""


class _RefusedError(Exception):
    """The store will never take this record."""


def deliver(config: TrackingConfig, spool: Spool, *, urgent: bool) -> None:
    """Send what has not arrived, if it is time to; a store that cannot be reached is a warning, not the end of a job.

    `urgent` records do not wait for others to be sent with, and leave out no pause but that after a failure.
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
        logger.warning("%s The job goes on; the record is kept in %s.", error, spool.path)


def send(config: TrackingConfig, spool: Spool, *, wait: bool) -> int:
    """Send what has not arrived; how many records it was. UnreachableError where the store cannot be reached.

    Raises nothing for a record that the store will never take: it is set aside, and said.
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
                    spool.drop_files(record["copy"])
            count += len(together)
        return count


def remote_run(client: MlflowClient, run_id: str) -> str | None:
    """The store's own id of a run, by its tag."""
    experiments = [e.experiment_id for e in client.search_experiments()]
    found = client.search_runs(experiments, f"tags.`{RUN_TAG}` = '{run_id}'", max_results=1)
    return found[0].info.run_id if found else None


def client_of(config: TrackingConfig) -> MlflowClient:
    """A client of the tracking store and its registry."""
    # A server that is down is asked for seconds, not for MLflow's default of some minutes.
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
    """The experiment of this name, made if need be; artifacts of a SQLite store lie beside its file."""
    from mlflow.exceptions import MlflowException

    found = client.get_experiment_by_name(name)
    if found is not None:
        return found.experiment_id
    uri = tracking_uri(config)
    beside = os.path.dirname(os.path.abspath(uri.removeprefix("sqlite:///")))
    location = f"file://{beside}/mlartifacts" if uri.startswith("sqlite:///") else None
    try:
        return client.create_experiment(name, artifact_location=location)
    except MlflowException as error:
        if error.error_code != "RESOURCE_ALREADY_EXISTS":
            raise
        return experiment_id(client, config, name)


def log_points(client: MlflowClient, remote_id: str, points: Iterable[tuple[str, float, int, int]]) -> None:
    """(name, value, milliseconds, step) as metrics of a run, as many in a call as MLflow takes."""
    from mlflow.entities import Metric

    found = (Metric(_allowed(key), value, time_ms, step) for key, value, time_ms, step in points)
    while some := list(islice(found, MOST_METRICS)):
        client.log_batch(remote_id, metrics=some)


@contextmanager
def reached(config: TrackingConfig) -> Iterator[None]:
    """Raises UnreachableError where the store cannot be reached, or refuses."""
    from alembic.util.exc import CommandError
    from boto3.exceptions import Boto3Error
    from botocore.exceptions import BotoCoreError, ClientError
    from mlflow.exceptions import MlflowException
    from sqlalchemy.exc import SQLAlchemyError

    # Artifacts may be in an S3 store of their own, and a SQLite file may be of a newer MLflow.
    try:
        yield
    except (MlflowException, SQLAlchemyError, OSError, BotoCoreError, ClientError, Boto3Error, CommandError) as error:
        raise UnreachableError(f"MLflow at {tracking_uri(config)}: {str(error).splitlines()[0]}.") from error


def _known(client: MlflowClient, config: TrackingConfig, spool: Spool) -> Arrived:
    """The run in the store: the one that is there, or a new one."""
    from mlflow.exceptions import MlflowException

    uri, before = tracking_uri(config), spool.arrived()
    if before is not None and before.uri == uri:
        try:
            if client.get_run(before.remote_id).data.tags.get(RUN_TAG) == spool.run_id:
                return before
        except MlflowException as error:
            if error.error_code != "RESOURCE_DOES_NOT_EXIST":
                raise
    # Another store, one that has lost the run, or a run that is not this one: all of it goes there from the start.
    found = remote_run(client, spool.run_id) or _create(client, config, spool)
    arrived = Arrived(uri, found, 0)
    spool.mark(arrived)
    return arrived


def _create(client: MlflowClient, config: TrackingConfig, spool: Spool) -> str:
    start = next((record for record, _ in spool.records() if record["kind"] == "start"), None)
    if start is None:
        raise UnreachableError(
            f"run {spool.run_id} of another machine is not in {tracking_uri(config)}: sync it there first."
        )
    tags = {RUN_TAG: spool.run_id}
    if start["parent"]:
        parent = Spool(spool.folder, start["parent"])
        if parent.exists() and remote_run(client, parent.run_id) is None:
            send(config, parent, wait=True)
        found = remote_run(client, parent.run_id)
        if found is None:
            raise UnreachableError(f"run {spool.run_id} waits for its parent {parent.run_id}: sync that one's folder.")
        tags["mlflow.parentRunId"] = found
    experiment = experiment_id(client, config, start["experiment"])
    return client.create_run(experiment, start["time"], tags, start["name"]).info.run_id


def _grouped(records: Iterator[tuple[Record, int]]) -> Iterator[tuple[list[Record], int]]:
    """Records that go together in one call, with the byte where the last one ends: metrics do, others stand alone."""
    group: list[Record] = []
    size, last = 0, 0
    for record, end in records:
        extra = len(record["figures"]) if record["kind"] == "metrics" else MOST_METRICS
        if group and size + extra > MOST_METRICS:
            yield group, last
            group, size = [], 0
        group.append(record)
        size, last = size + extra, end
    if group:
        yield group, last


def _send_or_refuse(client: MlflowClient, remote_id: str, spool: Spool, together: Sequence[Record]) -> None:
    """Send records; those that the store will never take are set aside, one by one."""
    try:
        _send_records(client, remote_id, spool, together)
    except _RefusedError as error:
        if len(together) > 1:
            for record in together:
                _send_or_refuse(client, remote_id, spool, [record])
            return
        spool.refuse(together[0], str(error))
        logger.warning("MLflow refused a record of run %s, which is set aside: %s", spool.run_id, error)


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
                if spool.holds_links(record["copy"]):
                    raise _RefusedError("a file of it is a link, which no copy of ours has")
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
    # A parameter is written once; a run that is taken up with another value keeps both in its settings files.
    new = iter([Param(key, value) for key, value in settings.items() if key not in known])
    while some := list(islice(new, MOST_PARAMETERS)):
        client.log_batch(remote_id, params=some)
    _send_tags(client, remote_id, record["tags"])
    client.log_dict(remote_id, record["settings"], "settings.json")
    client.log_dict(remote_id, record["environment"], "environment.json")
    client.update_run(remote_id, status="RUNNING")


def _send_tags(client: MlflowClient, remote_id: str, tags: dict[str, Any]) -> None:
    from mlflow.entities import RunTag

    found = iter([RunTag(_allowed(key), str(value)[:MAX_TAG_LENGTH]) for key, value in tags.items()])
    while some := list(islice(found, MOST_TAGS)):
        client.log_batch(remote_id, tags=some)


def _allowed(key: str) -> str:
    """MLflow allows letters, digits and `_-. :/` in names."""
    return "".join(c if c.isalnum() or c in "_-. :/" else "_" for c in key)

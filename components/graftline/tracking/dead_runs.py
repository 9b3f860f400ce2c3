"""MLflow runs whose pipeline run is over: they are ended, so that none reads RUNNING for ever.

The run that all steps join carries the pipeline run's id in a tag. Whoever learns that the pipeline
run is over ends what it left: the exit handler, ``graftline stop``, ``graftline follow``, and the
next run, which reads the records that each step keeps (:mod:`graftline.records.run_records`).
"""

import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Literal

from graftline.errors import GraftlineError
from graftline.progress import message
from graftline.records.run_records import is_known, read_records
from graftline.stats.wording import counted
from graftline.tracking import relocation
from graftline.tracking.client import connect
from graftline.tracking.mlflow_run import PIPELINE_RUN_TAG, TAG
from graftline.tracking.server_answers import mlflow_errors

SILENT_FOR = timedelta(hours=2)  # a step writes a sign of life every few minutes
MOST = 100  # runs that are looked at
End = Literal["FINISHED", "FAILED", "KILLED"]


def close_runs(uri: str, experiment: str, pipeline_run: str, status: End, why: str = "") -> int:
    """End the MLflow runs of one pipeline run that still read RUNNING. Returns how many.

    Args:
        uri: Tracking URI of MLflow.
        experiment: The experiment's name.
        pipeline_run: The pipeline run's id.
        status: How they ended.
        why: The reason, kept in the tag ``graftline.ended``.

    Raises:
        TrackingError: MLflow refuses or is away.
    """
    if not uri or not is_known(pipeline_run):
        return 0
    database = relocation.database_of(uri)
    if database is not None and database.is_file():
        return _close_in(database, experiment, pipeline_run, status, why)
    found = running_of(uri, experiment, pipeline_run)
    for run in found:
        _end(uri, run.info.run_id, status, why)
    return len(found)


def _close_in(database: Path, experiment: str, pipeline_run: str, status: End, why: str) -> int:
    """The same in a database of this machine, without MLflow: whoever pressed Ctrl-C waits for it.

    The import of MLflow alone takes seconds.
    """
    with relocation.opened(database) as connection:
        connection.execute("BEGIN IMMEDIATE")
        found = connection.execute(
            "SELECT runs.run_uuid FROM runs"
            " JOIN tags ON tags.run_uuid = runs.run_uuid AND tags.key = ? AND tags.value = ?"
            " JOIN experiments ON experiments.experiment_id = runs.experiment_id"
            " WHERE runs.status = 'RUNNING' AND experiments.name = ?",
            (PIPELINE_RUN_TAG, pipeline_run, experiment),
        ).fetchall()
        now = round(time.time() * 1000)
        for (run_id,) in found:
            connection.execute(
                "UPDATE runs SET status = ?, end_time = ? WHERE run_uuid = ?", (status, now, run_id)
            )
            if why:
                connection.execute(
                    "INSERT OR REPLACE INTO tags (key, value, run_uuid) VALUES (?, ?, ?)",
                    (TAG + "ended", why[:5000], run_id),
                )
        connection.commit()
    return len(found)


def running_of(uri: str, experiment: str, pipeline_run: str | None = None) -> list[Any]:
    """MLflow runs of an experiment that read RUNNING: of one pipeline run, or of any.

    Raises:
        TrackingError: MLflow refuses or is away.
    """
    client = connect(uri)
    with mlflow_errors(uri, f"the runs of the experiment {experiment!r}"):
        known = client.get_experiment_by_name(experiment)
        if known is None:
            return []
        runs = client.search_runs(
            [known.experiment_id], "attributes.status = 'RUNNING'", max_results=MOST
        )
    tagged = [(run, run.data.tags.get(PIPELINE_RUN_TAG)) for run in runs]
    return [run for run, tag in tagged if tag and pipeline_run in (None, tag)]


def close_lost(uri: str, experiment: str, store: str, mine: str) -> int:
    """End the MLflow runs that earlier pipeline runs left; a failure is a warning.

    An earlier run is over where a step's last word is an error, or where no step has given a sign
    of life for two hours. A run that is not in this store is left alone. Should one that was
    ended here go on all the same, its last step ends it as FINISHED.

    Args:
        uri: Tracking URI of MLflow.
        experiment: The experiment's name.
        store: URI of the store.
        mine: The id of the pipeline run that asks.
    """
    closed = 0
    try:
        for run in running_of(uri, experiment):
            other = run.data.tags[PIPELINE_RUN_TAG]
            status = None if other == mine else _fate(store, other)
            if status is not None:
                _end(uri, run.info.run_id, status, "found dead by a later run")
                closed += 1
    except GraftlineError as error:
        message("WARNING: runs that earlier pipelines left in MLflow are not ended. %s", error)
    if closed:
        runs = counted(closed, "run")
        message("ended in MLflow, where earlier pipelines left them as RUNNING: %s", runs)
    return closed


def _fate(store: str, pipeline_run: str) -> End | None:
    """How an earlier pipeline run ended, by its steps' records; None where it may still run."""
    records = read_records(store, pipeline_run)
    if not records:
        return None
    if records[-1].state == "failed":
        return "FAILED"
    silent = datetime.now(UTC) - datetime.fromisoformat(records[-1].when)
    return "KILLED" if silent > SILENT_FOR else None


def _end(uri: str, run_id: str, status: End, why: str) -> None:
    client = connect(uri)
    with mlflow_errors(uri, f"the end of the run {run_id}"):
        if why:
            client.set_tag(run_id, TAG + "ended", why[:5000])
        client.set_terminated(run_id, status)

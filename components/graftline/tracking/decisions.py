"""The decision records of earlier runs, as MLflow keeps them."""

import json
import tempfile
from collections.abc import Iterator
from pathlib import Path

from graftline.errors import IntegrityError, SchemaVersionError, TrackingError
from graftline.progress import message
from graftline.records.decision import Decision, parse_decision
from graftline.tracking.client import connect
from graftline.tracking.server_answers import mlflow_errors

# The later step's record holds the outcome.
FILES = ("fine_tune/decision.json", "fit_head/decision.json")


def tracked_decisions(
    uri: str, experiment: str | None, most: int
) -> Iterator[tuple[str, Decision]]:
    """The runs' names and decisions, the newest first.

    Args:
        uri: Tracking URI of MLflow.
        experiment: Its name; None for all experiments.
        most: Runs that are asked for at most; each takes a request or two.

    Raises:
        TrackingUnreachable: The server does not answer.
        TrackingError: It refuses.
    """
    client = connect(uri)
    with mlflow_errors(uri, "the runs"):
        if experiment is None:
            ids = [found.experiment_id for found in client.search_experiments()]
        else:
            known = client.get_experiment_by_name(experiment)
            ids = [] if known is None else [known.experiment_id]
        order = ["attributes.start_time DESC"]
        runs = client.search_runs(ids, max_results=most, order_by=order) if ids else []
    for run in runs:
        name = run.info.run_name or run.info.run_id
        try:
            decision = _decision(uri, run.info.run_id)
        except (IntegrityError, SchemaVersionError, TrackingError, ValueError) as error:
            message("%s is left out: %s", name, error)
            continue
        if decision is not None:
            yield name, decision


def _decision(uri: str, run_id: str) -> Decision | None:
    """The record of one run; None where it has none yet."""
    client = connect(uri)
    with mlflow_errors(uri, f"the files of run {run_id}"), tempfile.TemporaryDirectory() as folder:
        for file in FILES:
            step = file.partition("/")[0]
            if any(found.path == file for found in client.list_artifacts(run_id, step)):
                path = Path(client.download_artifacts(run_id, file, folder))
                return parse_decision(json.loads(path.read_text("utf-8")), f"{run_id}/{file}")
    return None

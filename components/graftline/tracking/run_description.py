"""What MLflow knows of a run, for people: its name, its start, its page and its parameters."""

from dataclasses import dataclass
from datetime import UTC, datetime

from graftline.addresses import split_address
from graftline.errors import GraftlineError
from graftline.redaction import redacted
from graftline.tracking.client import absolute_uri, connect
from graftline.tracking.server_answers import mlflow_errors


@dataclass(frozen=True)
class RunDescription:
    """One run.

    Attributes:
        name: As people know it.
        started: When, in UTC.
        link: Address of its page; empty where MLflow is a database without a server.
        where: How to find it where there is no address.
        params: What was recorded of its settings.
    """

    name: str
    started: datetime
    link: str
    where: str
    params: dict[str, str]


def describe_run(uri: str, run_id: str) -> RunDescription | None:
    """A run as MLflow has it; None where it has none or does not answer."""
    try:
        client = connect(uri)
        with mlflow_errors(uri, f"the run {run_id}"):
            run = client.get_run(run_id)
    except GraftlineError:
        return None
    link = _page(uri, str(run.info.experiment_id), run_id)
    where = f"run {run_id}"
    if uri.startswith("sqlite:"):
        where += f", open it with: mlflow ui --backend-store-uri {redacted(absolute_uri(uri))}"
    return RunDescription(
        name=run.info.run_name or run_id,
        started=datetime.fromtimestamp(run.info.start_time / 1000, UTC),
        link=link,
        where=where,
        params=dict(sorted(run.data.params.items())),
    )


def _page(uri: str, experiment_id: str, run_id: str) -> str:
    parts = split_address(uri)
    if parts.scheme not in ("http", "https"):
        return ""
    server = parts._replace(netloc=parts.netloc.rpartition("@")[2], query="", fragment="")
    # MLflow's pages are those of language models where nothing asks for the others.
    kind = "?workflowType=machine_learning"
    return f"{server.geturl().rstrip('/')}/#/experiments/{experiment_id}/runs/{run_id}{kind}"

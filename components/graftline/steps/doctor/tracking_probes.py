"""Does MLflow take what a run writes? Asked by writing it, in an experiment of its own."""

import contextlib
import tempfile
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

from graftline.errors import GraftlineError
from graftline.steps.doctor.findings import Examination, Problem
from graftline.tracking.client import connect
from graftline.tracking.mlflow_run import open_tracking, start_run
from graftline.tracking.readiness import check_names
from graftline.tracking.server_answers import mlflow_errors

EXPERIMENT = "graftline-doctor"


def examine_tracking(found: Examination, uri: str, experiment: str, model: str) -> None:
    """Probe MLflow: version, runs, artifacts, the registry's aliases."""
    clients: list[Any] = []

    def reach() -> str:
        check_names(experiment, model)
        clients.append(connect(uri))
        return _version(uri)

    if not found.probe("mlflow", "reach it", reach):
        found.skip("mlflow", "runs, artifacts, aliases", "the server cannot be reached")
        return
    client = clients[0]
    runs: list[str] = []

    def run_it() -> str:
        runs.append(start_run(uri, EXPERIMENT, "doctor"))
        open_tracking(uri, runs[0]).metrics({"one": 1.0})
        with mlflow_errors(uri, "the run of the doctor"):
            if client.get_run(runs[0]).data.metrics != {"one": 1.0}:
                raise Problem("the run has lost its metric", "See the server's log.")
        return f"a run in the experiment {EXPERIMENT}"

    if not found.probe("mlflow", "log a run", run_it):
        return
    try:
        found.probe("mlflow", "store and fetch a file", lambda: _artifact(client, uri, runs[0]))
        found.probe("mlflow", "register a model and move its alias", _alias(client, uri, runs[0]))
    finally:
        with contextlib.suppress(GraftlineError), mlflow_errors(uri, "the run of the doctor"):
            client.delete_run(runs[0])


def _version(uri: str) -> str:
    import mlflow

    ours = f"this client is MLflow {mlflow.__version__}"
    if not uri.startswith(("http://", "https://")):
        return ours
    import requests  # type: ignore[import-untyped]  # ships no types

    from graftline.tracking.server_answers import login

    headers, who = login()
    try:
        answer = requests.get(
            uri.rstrip("/") + "/version",
            headers=headers,
            auth=who,
            timeout=6,
            allow_redirects=False,
        )
    except requests.RequestException:
        return ours
    theirs = answer.text.strip() if answer.ok and len(answer.text) < 40 else "unknown"
    if theirs[:1].isdigit() and theirs.split(".")[0] != mlflow.__version__.split(".")[0]:
        raise Problem(
            f"the server is MLflow {theirs}, and {ours}",
            "Use a server of the same major version.",
        )
    return f"the server is MLflow {theirs}, and {ours}"


def _artifact(client: Any, uri: str, run_id: str) -> str:
    text = uuid.uuid4().hex
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "doctor.txt"
        path.write_text(text, encoding="utf-8")
        open_tracking(uri, run_id).files({"doctor.txt": path})
        with mlflow_errors(uri, "fetching a file"):
            back = client.download_artifacts(run_id, "doctor.txt", str(Path(folder)))
        if Path(back).read_text(encoding="utf-8") != text:
            raise Problem("other bytes came back", "See the server's artifact store.")
    return "arrived whole"


def _alias(client: Any, uri: str, run_id: str) -> Callable[[], str]:
    def work() -> str:
        name = f"{EXPERIMENT}-{uuid.uuid4().hex[:12]}"
        with mlflow_errors(uri, "a registered model"):
            client.create_registered_model(name)
            try:
                source = client.get_run(run_id).info.artifact_uri
                for _ in range(2):
                    version = client.create_model_version(name, source, run_id).version
                    client.set_registered_model_alias(name, "champion", version)
                there = client.get_model_version_by_alias(name, "champion").version
                if str(there) != str(version):
                    raise Problem("the alias names another version", "See the server's log.")
            finally:
                client.delete_registered_model(name)
        return "the alias follows"

    return work

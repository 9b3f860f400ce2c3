"""MLflow, behind a small protocol: one run that all steps join, in bounded time.

A server that is away is noticed within seconds (MLflow's own client would retry for minutes), a
step's finished work is never lost to a tracking hiccup, and no message repeats a credential.
Model versions and the champion are in :mod:`graftline.tracking.registry`.
"""

import json
import os
import re
import shutil
import tempfile
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from graftline import redaction
from graftline.errors import TrackingError
from graftline.progress import message
from graftline.records.run_records import is_known
from graftline.redaction import excerpt
from graftline.tracking.client import artifact_location, connect, time_to_store
from graftline.tracking.server_answers import mlflow_errors, require_id

if TYPE_CHECKING:
    from mlflow.tracking import MlflowClient

RUN_ID_VARIABLE = "MLFLOW_RUN_ID"
TAG = "graftline."
PIPELINE_RUN_TAG = TAG + "pipeline_run"  # which ended run of KFP left this one is seen by it
_PARAMETER_LENGTH = 6000  # MLflow's limit


class Tracked(Protocol):
    """What a step hands to its tracking run."""

    def params(self) -> Mapping[str, str]:
        """Settings and choices."""

    def metrics(self) -> Mapping[str, float]:
        """Figures."""

    def files(self) -> Mapping[str, Path]:
        """Files: artifact path to local path."""


def start_run(
    uri: str,
    experiment: str,
    run_name: str,
    tags: Mapping[str, str] | None = None,
    *,
    pipeline_run: str = "",
) -> str:
    """Start the run that all steps join, or join the one that ``MLFLOW_RUN_ID`` names.

    Args:
        uri: Tracking URI of MLflow.
        experiment: The experiment's name.
        run_name: The run's name.
        tags: Tags of the run.
        pipeline_run: Id of the pipeline run. A later try of the step that starts the run joins
            the one that the earlier try started.

    Returns:
        The run's id.

    Raises:
        TrackingUnreachable: The server does not answer.
        TrackingError: The experiment was deleted or may not be written to.
    """
    client = connect(uri)
    given = os.environ.get(RUN_ID_VARIABLE)
    with mlflow_errors(
        uri, f"the run {given}" if given else f"a run of the experiment {experiment!r}"
    ):
        if given:
            for key, value in (tags or {}).items():
                client.set_tag(given, key, value)
            return given
        own = dict(tags or {})
        experiment_id = _experiment_id(client, uri, experiment)
        if is_known(pipeline_run):
            own[PIPELINE_RUN_TAG] = pipeline_run
            before = client.search_runs(
                [experiment_id],
                f"attributes.status = 'RUNNING' and tags.`{PIPELINE_RUN_TAG}` = '{pipeline_run}'",
                max_results=1,
            )
            if before:
                return str(before[0].info.run_id)
        run = client.create_run(experiment_id, run_name=run_name, tags=own)
        return require_id(run.info.run_id, uri)


def open_tracking(uri: str, run_id: str, *, best_effort: bool = False) -> "Tracker":
    """Join a run.

    Args:
        uri: Tracking URI of MLflow.
        run_id: The run, as :func:`start_run` gave it.
        best_effort: Warn once and go on where MLflow fails, rather than raise.
    """
    return Tracker(uri, run_id, best_effort=best_effort)


def log_result(uri: str, run_id: str, step_name: str, result: Tracked) -> None:
    """Put a step's result into the run; a failure of MLflow is a warning, not an error."""
    if not uri or not run_id:
        return
    tracker = open_tracking(uri, run_id, best_effort=True)
    tracker.params({f"{step_name}.{key}": value for key, value in result.params().items()})
    tracker.metrics({f"{step_name}.{key}": value for key, value in result.metrics().items()})
    tracker.files(result.files())


def open_curves(uri: str, run_id: str, step_name: str) -> Callable[[Mapping[str, float]], None]:
    """What puts the figures of an epoch into the run, at the step that ``epoch`` says.

    A failure of MLflow is one warning; the curves end there.
    """
    if not uri or not run_id:
        return lambda _: None
    tracker = open_tracking(uri, run_id, best_effort=True)

    def log(figures: Mapping[str, float]) -> None:
        epoch = int(figures["epoch"])
        named = {f"{step_name}.{key}": v for key, v in figures.items() if key != "epoch"}
        tracker.metrics(named, step=epoch)

    return log


class Tracker:
    """One run. Made by :func:`open_tracking`.

    Every method raises :class:`TrackingError`, or :class:`TrackingUnreachable` within seconds;
    in best-effort mode the first failure is a warning and the rest is left out.
    """

    def __init__(self, uri: str, run_id: str, *, best_effort: bool) -> None:
        self.uri = uri
        self.run_id = run_id
        self._best_effort = best_effort
        self._given_up = False

    def params(self, values: Mapping[str, Any]) -> None:
        """Record settings. A value that was recorded before and differs becomes a tag."""
        texts = {_key(key): excerpt(str(v), _PARAMETER_LENGTH) for key, v in values.items()}
        if texts:
            self._do("parameters", lambda client: _log_params(client, self.run_id, texts))

    def metrics(self, values: Mapping[str, float], step: int | None = None) -> None:
        """Record figures, at a step of a curve where one is given."""
        if not values:
            return
        from mlflow.entities import Metric
        from mlflow.utils.time import get_current_time_millis

        now = get_current_time_millis()
        metrics = [Metric(_key(k), float(v), now, step or 0) for k, v in values.items()]
        self._do("metrics", lambda client: client.log_batch(self.run_id, metrics=metrics))

    def tags(self, values: Mapping[str, str]) -> None:
        """Set tags of the run."""
        from mlflow.entities import RunTag

        tags = [RunTag(_key(key), redaction.redacted(str(value))) for key, value in values.items()]
        if tags:
            self._do("tags", lambda client: client.log_batch(self.run_id, tags=tags))

    def dataset(
        self,
        *,
        name: str,
        digest: str,
        kind: str,
        source: Mapping[str, Any],
        profile: Mapping[str, Any],
    ) -> None:
        """Record a data set as the run's input.

        Args:
            name: Its name.
            digest: Of its content.
            kind: Where it is: ``s3`` or ``local``.
            source: Its address, as JSON.
            profile: Its numbers, as JSON.
        """
        from mlflow.entities import Dataset, DatasetInput, InputTag

        found = Dataset(
            name, digest, kind, json.dumps(dict(source)), profile=json.dumps(dict(profile))
        )
        given = DatasetInput(found, [InputTag("mlflow.data.context", "training")])
        self._do("the data set", lambda client: client.log_inputs(self.run_id, [given]))

    def files(self, files: Mapping[str, Path]) -> None:
        """Upload files or folders: artifact path, as ``reports/report.html``, to local path."""
        for name, path in files.items():
            if Path(path).exists():
                self._do(name, partial(_log_file, run_id=self.run_id, name=name, path=Path(path)))

    def finish(self, status: str = "FINISHED") -> None:
        """End the run as ``FINISHED``, ``FAILED`` or ``KILLED``.

        A run that ``MLFLOW_RUN_ID`` named is its owner's to end, and stays open.
        """
        if os.environ.get(RUN_ID_VARIABLE) != self.run_id:
            self._do("the end", lambda client: client.set_terminated(self.run_id, status))

    def _do(self, what: str, action: "Callable[[MlflowClient], Any]") -> None:
        if self._given_up:
            return
        try:
            client = connect(self.uri)
            with mlflow_errors(self.uri, f"{what} of the run {self.run_id}"):
                action(client)
        except TrackingError as error:
            if not self._best_effort:
                raise
            self._given_up = True
            message("WARNING: the rest of this step's record is not in MLflow. %s", error)


def _experiment_id(client: "MlflowClient", uri: str, name: str) -> str:
    from mlflow.exceptions import MlflowException

    experiment = client.get_experiment_by_name(name)
    if experiment is None:
        try:
            made = client.create_experiment(name, artifact_location(uri, name))
            return require_id(made, uri)
        except MlflowException as error:
            if error.error_code != "RESOURCE_ALREADY_EXISTS":
                raise
            experiment = client.get_experiment_by_name(name)  # another run made it just now
    if experiment is None or experiment.lifecycle_stage == "deleted":
        raise deleted_experiment(name)
    return require_id(experiment.experiment_id, uri)


def deleted_experiment(name: str) -> TrackingError:
    """The error for an experiment in MLflow's bin, which its name still belongs to."""
    return TrackingError(
        f"The MLflow experiment {name!r} was deleted.",
        fix="Restore it (`mlflow experiments restore`) or name another in tracking.experiment.",
    )


def _log_params(client: "MlflowClient", run_id: str, values: Mapping[str, str]) -> None:
    from mlflow.entities import Param, RunTag

    there = client.get_run(run_id).data.params
    params = [Param(key, value) for key, value in values.items() if key not in there]
    changed = {key: value for key, value in values.items() if there.get(key, value) != value}
    tags = [RunTag(f"{TAG}changed.{key}", value[:5000]) for key, value in changed.items()]
    client.log_batch(run_id, params=params, tags=tags)


def _log_file(client: "MlflowClient", *, run_id: str, name: str, path: Path) -> None:
    folder, _, base = name.rpartition("/")
    with time_to_store(path):
        if path.is_dir():
            client.log_artifacts(run_id, str(path), name)
        elif path.name == base:
            client.log_artifact(run_id, str(path), folder or None)
        else:
            with tempfile.TemporaryDirectory() as temporary:
                copy = Path(temporary) / base
                shutil.copyfile(path, copy)
                client.log_artifact(run_id, str(copy), folder or None)


def _key(name: str) -> str:
    """The name with what MLflow does not allow in keys replaced."""
    return re.sub(r"[^\w./ :-]", "_", name)[:250]

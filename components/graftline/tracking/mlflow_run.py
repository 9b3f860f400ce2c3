"""MLflow, behind a small protocol: one run that all steps join, in bounded time.

A server that is away is noticed within seconds (MLflow's own client would retry for minutes), a
step's finished work is never lost to a tracking hiccup, and no message repeats a credential.
Model versions and the champion are in :mod:`graftline.tracking.registry`.
"""

import json
import logging
import os
import re
import shutil
import socket
import tempfile
import urllib.parse
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from graftline import redaction
from graftline.credentials import MLFLOW, tidy
from graftline.errors import ConfigurationError, TrackingError, TrackingUnreachable
from graftline.progress import message
from graftline.records.run_records import is_known
from graftline.redaction import excerpt
from graftline.storage.uri import local_path

if TYPE_CHECKING:
    from mlflow.tracking import MlflowClient

PROBE_SECONDS = 6  # for a server to answer its health check
RUN_ID_VARIABLE = "MLFLOW_RUN_ID"
TAG = "graftline."
ARTIFACTS = "mlartifacts"  # beside a local database: the files of its runs
PIPELINE_RUN_TAG = TAG + "pipeline_run"  # which ended run of KFP left this one is seen by it
_PARAMETER_LENGTH = 6000  # MLflow's limit
_DEFAULTS = {
    # Three tries of 16 s, 2 s of pauses and the last health check: told within a minute.
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2",
    "MLFLOW_HTTP_REQUEST_BACKOFF_FACTOR": "1",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "16",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "GIT_PYTHON_REFRESH": "quiet",
}


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
        return str(run.info.run_id)


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


def connect(uri: str) -> "MlflowClient":
    """A client of the tracking server and registry at ``uri``, once the server has answered.

    Raises:
        ConfigurationError: No MLflow of today can use such a URI.
        TrackingUnreachable: The server does not answer.
    """
    set_client_defaults()
    uri = absolute_uri(uri)
    probe(uri)
    from mlflow.tracking import MlflowClient

    for name in ("mlflow", "alembic"):  # notes on making tables, and their like
        logging.getLogger(name).setLevel(logging.WARNING)
    with mlflow_errors(uri, "its database" if "://" in uri else uri):
        client = MlflowClient(tracking_uri=uri, registry_uri=uri)
        if uri.startswith("sqlite:"):
            _open_sqlite(client)
        return client


def set_client_defaults() -> None:
    """Let MLflow's client give up in time and stay quiet; what the environment says stands."""
    tidy(MLFLOW)
    for name, value in _DEFAULTS.items():
        os.environ.setdefault(name, value)


def absolute_uri(uri: str) -> str:
    """The URI with a relative sqlite path made absolute, so that every folder means the same.

    Raises:
        ConfigurationError: It has no scheme, or one that MLflow does not know.
    """
    uri = uri.strip()
    scheme = urllib.parse.urlparse(uri).scheme
    if re.fullmatch(r"[\w.-]+:\d+(/.*)?", uri):
        raise ConfigurationError(
            f"tracking.uri: {uri!r} does not start with http:// or https://",
            fix=f"Write http://{uri}, or https:// for a server with TLS.",
        )
    if scheme in ("", "file"):
        raise ConfigurationError(
            f"tracking.uri: MLflow no longer keeps runs in plain folders, as {uri!r} asks.",
            fix="Use a database, such as sqlite:///mlflow.db, or a server, http://host:5000.",
        )
    if scheme in ("http", "https"):
        return uri.rstrip("/")
    if scheme != "sqlite":
        return uri
    path = uri.removeprefix("sqlite:///")
    if path.startswith("~"):
        path = str(local_path(path))
    return f"sqlite:///{Path(path).absolute()}"


def redacted(text: str, uri: str) -> str:
    """The text without any user name, password or token that the URI or the environment holds."""
    parts = urllib.parse.urlparse(uri)
    secrets = [parts.password, parts.username and parts.netloc.rpartition("@")[0]]
    secrets += [os.environ.get(name) for name in MLFLOW if name.endswith(("TOKEN", "PASSWORD"))]
    return redaction.redacted(text, *secrets, *(urllib.parse.unquote(s) for s in secrets if s))


@contextmanager
def mlflow_errors(uri: str, doing: str) -> Iterator[None]:
    """Turn whatever MLflow raises into a :class:`TrackingError` that says what to do.

    Args:
        uri: Tracking URI.
        doing: What is read or written, for the message.
    """
    from mlflow.exceptions import MlflowException

    try:
        yield
    except (TrackingError, ConfigurationError):
        raise
    except (MlflowException, OSError, ImportError) as error:
        raise _translated(error, uri, doing) from None
    except Exception as error:
        if type(error).__module__.partition(".")[0] not in (
            "sqlalchemy",
            "requests",
            "urllib3",
            "botocore",
            "boto3",
        ):
            raise
        raise _translated(error, uri, doing) from None


def _translated(error: Exception, uri: str, doing: str) -> TrackingError:
    probe(uri)  # a server that has gone away is named as such
    text = redacted(str(error), uri).strip()
    where = redacted(uri, uri)
    code = str(getattr(error, "error_code", ""))
    if code in ("UNAUTHENTICATED", "PERMISSION_DENIED") or re.search(r"\b40[13]\b", text):
        return _refused(uri, doing, text[:500])
    if "not in a valid JSON format" in text or "<html" in text.lower():
        return _web_page(uri)
    return TrackingError(
        f"MLflow at {where} failed on {doing}.",
        why=f"{type(error).__name__}: {text[:500]}",
        fix="See the server's log; for a database file, its folder must exist and be writable.",
    )


def probe(uri: str) -> None:
    """Ask the server for a sign of life; any HTTP answer is one.

    Raises:
        TrackingUnreachable: None came within a few seconds.
    """
    parts = urllib.parse.urlparse(uri)
    try:
        if parts.scheme in ("http", "https"):
            _probe_http(uri)
        elif parts.hostname and parts.port:
            socket.create_connection((parts.hostname, parts.port), timeout=PROBE_SECONDS).close()
    except OSError as error:  # what requests raises is an OSError too
        where = redacted(uri, uri)
        raise TrackingUnreachable(
            f"MLflow at {where} does not answer.",
            why=redacted(str(error), uri)[:300],
            fix="Start the server or correct tracking.uri; without a server use "
            "sqlite:///mlflow.db. Behind a proxy, check NO_PROXY.",
        ) from None


def _probe_http(uri: str) -> None:
    import requests  # type: ignore[import-untyped]  # ships no types

    verify: bool | str = os.environ.get("MLFLOW_TRACKING_SERVER_CERT_PATH") or True
    if os.environ.get("MLFLOW_TRACKING_INSECURE_TLS", "").lower() in ("true", "1"):
        verify = False
    url = uri.rstrip("/") + "/health"
    headers, who = login()
    with requests.get(
        url,
        headers=headers,
        auth=who,
        timeout=PROBE_SECONDS,
        stream=True,
        allow_redirects=False,
        verify=verify,
    ) as answer:
        if answer.status_code in (502, 503, 504):
            raise OSError(f"it answers with status {answer.status_code}")
        if answer.is_redirect or answer.is_permanent_redirect:
            raise _redirected(uri, str(answer.headers.get("Location", "")))
        if answer.status_code == 407:
            raise OSError("the proxy before it wants a login (status 407)")
        if answer.status_code in (401, 403):
            raise _refused(uri, "the health check", f"status {answer.status_code}")
        start = answer.raw.read(512, decode_content=True).lower()
        if answer.ok and (b"<html" in start or b"<!doctype" in start):
            raise _web_page(uri)


def login() -> tuple[dict[str, str], tuple[str, str] | None]:
    """Header and user of the requests, as MLflow's own client sends them."""
    tidy(MLFLOW)
    token = os.environ.get("MLFLOW_TRACKING_TOKEN")
    user = os.environ.get("MLFLOW_TRACKING_USERNAME")
    password = os.environ.get("MLFLOW_TRACKING_PASSWORD")
    if user and password:
        return {}, (user, password)
    return ({"Authorization": f"Bearer {token}"} if token else {}), None


def _redirected(uri: str, target: str) -> TrackingError:
    where = redacted(uri, uri)
    here, there = (urllib.parse.urlsplit(address) for address in (uri, target))
    if (here.scheme, there.scheme) == ("http", "https") and here.hostname == there.hostname:
        fix = f"Set tracking.uri to {where.replace('http://', 'https://', 1)}."
    else:
        fix = (
            "If that is a login page, set MLFLOW_TRACKING_TOKEN, or MLFLOW_TRACKING_USERNAME and "
            "MLFLOW_TRACKING_PASSWORD, as the gateway wants them. Otherwise set tracking.uri to "
            "the address where the server itself answers."
        )
    return TrackingError(
        f"MLflow at {where} redirects to {target or 'no address'}.",
        why="Its client does not follow: a request that writes would lose its content.",
        fix=fix,
    )


def _web_page(uri: str) -> TrackingError:
    return TrackingError(
        f"{redacted(uri, uri)} answers with a web page instead of MLflow's API.",
        why="It is a login page, or the address of something else.",
        fix="Check host, port and path of tracking.uri: without /#/experiments and the like. For a "
        "server behind a login set MLFLOW_TRACKING_TOKEN, or MLFLOW_TRACKING_USERNAME and "
        "MLFLOW_TRACKING_PASSWORD.",
    )


def _refused(uri: str, doing: str, why: str) -> TrackingError:
    return TrackingError(
        f"MLflow at {redacted(uri, uri)} refused {doing}.",
        why=why,
        fix="Set MLFLOW_TRACKING_TOKEN, or MLFLOW_TRACKING_USERNAME and "
        "MLFLOW_TRACKING_PASSWORD; on a 403 about hosts, name this host in the server's "
        "--allowed-hosts.",
    )


def _open_sqlite(client: "MlflowClient") -> None:
    """Make the file and its tables, and no ``mlruns`` folder in the working directory."""
    path = Path(str(client.tracking_uri).removeprefix("sqlite:///"))
    path.parent.mkdir(parents=True, exist_ok=True)
    from mlflow.tracking._tracking_service.utils import _tracking_store_registry

    _tracking_store_registry.get_store(client.tracking_uri, _artifact_root(path))


def _artifact_root(database: Path) -> str:
    return (database.parent / ARTIFACTS).as_uri()


def _experiment_id(client: "MlflowClient", uri: str, name: str) -> str:
    from mlflow.exceptions import MlflowException

    experiment = client.get_experiment_by_name(name)
    if experiment is None:
        try:
            return str(client.create_experiment(name, artifact_location(uri, name)))
        except MlflowException as error:
            if error.error_code != "RESOURCE_ALREADY_EXISTS":
                raise
            experiment = client.get_experiment_by_name(name)  # another run made it just now
    if experiment is None or experiment.lifecycle_stage == "deleted":
        raise deleted_experiment(name)
    return str(experiment.experiment_id)


def deleted_experiment(name: str) -> TrackingError:
    """The error for an experiment in MLflow's bin, which its name still belongs to."""
    return TrackingError(
        f"The MLflow experiment {name!r} was deleted.",
        fix="Restore it (`mlflow experiments restore`) or name another in tracking.experiment.",
    )


def artifact_location(uri: str, experiment: str) -> str | None:
    """Where a new experiment's files go; a server decides that itself."""
    uri = absolute_uri(uri)
    if uri.startswith("sqlite:"):
        root = _artifact_root(Path(uri.removeprefix("sqlite:///")))
        name = re.sub(r"[^\w.-]+", "-", experiment)
        return f"{root}/{urllib.parse.quote(name)}"
    if urllib.parse.urlparse(uri).scheme not in ("http", "https", "databricks"):
        raise TrackingError(
            f"The MLflow experiment {experiment!r} does not exist, and a database does not say "
            "where its files should go.",
            fix="Use an MLflow server before the database, or make the experiment with "
            "`mlflow experiments create --artifact-location`.",
        )
    return None


def _log_params(client: "MlflowClient", run_id: str, values: Mapping[str, str]) -> None:
    from mlflow.entities import Param, RunTag

    there = client.get_run(run_id).data.params
    params = [Param(key, value) for key, value in values.items() if key not in there]
    changed = {key: value for key, value in values.items() if there.get(key, value) != value}
    tags = [RunTag(f"{TAG}changed.{key}", value[:5000]) for key, value in changed.items()]
    client.log_batch(run_id, params=params, tags=tags)


def _log_file(client: "MlflowClient", *, run_id: str, name: str, path: Path) -> None:
    folder, _, base = name.rpartition("/")
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

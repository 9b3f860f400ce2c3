"""What MLflow would refuse at the end of a run, asked before its start. Nothing is written."""

import os
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from graftline.addresses import split_address
from graftline.errors import ConfigurationError, TrackingError
from graftline.files import sha256_of
from graftline.storage.uri import local_path
from graftline.tracking import relocation
from graftline.tracking.client import absolute_uri, artifact_location, connect
from graftline.tracking.mlflow_run import deleted_experiment
from graftline.tracking.server_answers import mlflow_errors, probe, redacted, require_id

if TYPE_CHECKING:
    from mlflow.tracking import MlflowClient

    from graftline.tracking.registry import RegisteredVersion

LONGEST_MODEL_NAME = 256  # MLflow's column; a longer one fails in the database


def check_ready(uri: str, experiment: str, registered_model: str, *, moved: bool = False) -> None:
    """Ask whether a run can be logged and a model registered.

    Args:
        uri: Tracking URI of MLflow.
        experiment: The experiment's name.
        registered_model: The registered model's name.
        moved: Whether its records name a folder that is no longer used, which is told otherwise.

    Raises:
        ConfigurationError: MLflow refuses one of the names.
        TrackingUnreachable: The server does not answer.
        TrackingError: The experiment was deleted, or the database or the folder of the files
            cannot be written to.
    """
    check_names(experiment, registered_model)
    if not exists(uri):  # asking MLflow would make it
        _check_can_be_made(relocation.database_of(uri))
        return
    relocation.check_writable(uri)
    client = connect(uri)
    with mlflow_errors(uri, f"the experiment {experiment!r}"):
        found = client.get_experiment_by_name(experiment)
        if found is not None:
            require_id(found.experiment_id, uri)
        if found is not None and found.lifecycle_stage == "deleted":
            raise deleted_experiment(experiment)
        location = found.artifact_location if found else artifact_location(uri, experiment)
    if not moved:
        _check_files_writable(uri, experiment, location)


def exists(uri: str) -> bool:
    """Whether there is anything to ask: a local database is made by the first run."""
    database = relocation.database_of(uri)
    return database is None or database.exists()


def _check_can_be_made(database: Path | None) -> None:
    if database is None:
        return
    there = next(parent for parent in database.parents if parent.exists())
    try:
        with tempfile.TemporaryFile(dir=there):
            pass
    except OSError as error:
        raise TrackingError(
            f"MLflow's database {database} cannot be made.",
            why=f"{there} cannot be written to: {error.strerror}.",
            fix="Make the folder writable, or give another tracking.uri.",
        ) from None


def check_answers(uri: str) -> None:
    """Ask what can be known of MLflow within a moment, without importing it.

    Raises:
        ConfigurationError: No MLflow of today can use such a URI.
        TrackingUnreachable: The server does not answer.
        TrackingError: The database cannot be written to.
    """
    probe(absolute_uri(uri))
    relocation.check_writable(uri)


def check_names(experiment: str, registered_model: str) -> None:
    """Refuse names that MLflow refuses, by its own rules.

    Raises:
        ConfigurationError: With MLflow's reason.
    """
    from mlflow.exceptions import MlflowException
    from mlflow.utils import validation

    # Private names of MLflow; without them its servers still refuse, only later.
    rules = (
        ("tracking.experiment", experiment, "_validate_experiment_name"),
        ("tracking.registered_model", registered_model, "_validate_model_name"),
    )
    for key, name, rule in rules:
        try:
            getattr(validation, rule, lambda _: None)(name)
        except MlflowException as error:
            raise ConfigurationError(
                f"{key}: MLflow does not take the name {name!r}.",
                why=str(error.message),
                fix="Use letters, digits, '-' and '_'.",
            ) from None
    if len(registered_model) > LONGEST_MODEL_NAME:
        raise ConfigurationError(
            f"tracking.registered_model: the name has {len(registered_model)} characters; MLflow "
            f"takes {LONGEST_MODEL_NAME}.",
            fix="Use a shorter name.",
        )


def check_champion(version: "RegisteredVersion") -> None:
    """Refuse a champion that a new model could not be compared with; see :func:`check_files`."""
    check_files(
        version,
        "champion",
        fix="Restore them. Or make an earlier version champion: `graftline rollback "
        f"{version.name} --tracking {redacted(version.uri, version.uri)}`. Or delete the alias "
        "`champion` in MLflow: then the next model is judged as a first one.",
    )


def check_files(version: "RegisteredVersion", role: str = "", fix: str = "Restore them.") -> None:
    """Refuse a registered version that cannot be used.

    Args:
        version: It.
        role: What to call it.
        fix: What to do about missing files.

    Raises:
        TrackingError: Its files are gone or cannot be read, or there is no ONNX file among them.
    """
    client = connect(version.uri)
    named = f"{version.name} version {version.version}"
    if role:
        named = f"the {role}, {named},"
    with mlflow_errors(version.uri, f"the files of {named}"):
        source = client.get_model_version_download_uri(version.name, version.version)
        path = _local_folder(source)
        if path is not None:
            found = [file.name for file in path.rglob("*")] if path.is_dir() else []
        else:
            found = _listed(client, source)
    if not any(name.endswith(".onnx") for name in found):
        gone = not found
        where = redacted(source, version.uri)
        raise TrackingError(
            f"The files of {named} are gone." if gone else f"There is no ONNX file in {named}.",
            why=f"MLflow says that they are at {where}."
            if gone
            else f"{where} holds {', '.join(sorted(found)[:5])}.",
            fix=fix,
        )
    _check_digest(version, path, named)


def _check_digest(version: "RegisteredVersion", path: Path | None, named: str) -> None:
    """Compare a local file with what was registered; reading it takes no time."""
    if path is None or version.digest is None:
        return
    file = path / "model.onnx"
    if file.is_file() and sha256_of(file) != version.digest:
        raise TrackingError(
            f"The ONNX file of {named} has changed since it was registered.",
            why=f"{file} has another sha256.",
            fix=f"Restore it, or make an earlier version champion: `graftline rollback "
            f"{version.name}`.",
        )


def _listed(client: "MlflowClient", source: str) -> list[str]:
    from mlflow.artifacts import list_artifacts

    listed = list_artifacts(artifact_uri=source, tracking_uri=client.tracking_uri) or []
    return [entry.path.rpartition("/")[2] for entry in listed]


def _local_folder(uri: str) -> Path | None:
    return local_path(uri) if split_address(uri).scheme in ("", "file") else None


def _check_files_writable(uri: str, experiment: str, location: str | None) -> None:
    """Refuse a folder of this machine that a run's files could not be written to."""
    path = _local_folder(location) if location else None
    if path is None:
        return
    there = next(parent for parent in (path, *path.parents) if parent.exists())
    if there.is_dir() and os.access(there, os.W_OK | os.X_OK):
        return
    served = not absolute_uri(uri).startswith("sqlite:")
    raise TrackingError(
        f"The files of the MLflow experiment {experiment!r} cannot be written: they go to {path}.",
        why=f"{there} is {'not writable' if there.is_dir() else 'not a folder'}."
        + " The server has its clients write them themselves." * served,
        fix="Start the server with --artifacts-destination, and name another experiment in "
        "tracking.experiment."
        if served
        else "Make the folder writable, or name another experiment in tracking.experiment. If the "
        "project was moved or copied here, run `graftline relocate`.",
    )

"""MLflow's client for a tracking URI, set up to give up in time; where local runs keep files."""

import logging
import os
import re
import shutil
import sqlite3
import tempfile
import urllib.parse
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING

from graftline import machine
from graftline.addresses import split_address
from graftline.credentials import MLFLOW, tidy
from graftline.errors import ConfigurationError, TrackingError
from graftline.redaction import redacted
from graftline.storage.uri import local_path
from graftline.tracking.server_answers import mlflow_errors, probe

if TYPE_CHECKING:
    from mlflow.tracking import MlflowClient

DATABASES = ("sqlite", "postgresql", "mysql", "mssql")  # with a driver after a "+"
ARTIFACTS = "mlartifacts"  # beside a local database: the files of its runs
SLOWEST_STORE = 5 * 1024 * 1024  # bytes a second between a server and its own store
_TIMEOUT = "MLFLOW_HTTP_REQUEST_TIMEOUT"
_DEFAULTS = {
    # Three tries of 16 s, 2 s of pauses and the last health check: told within a minute.
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2",
    "MLFLOW_HTTP_REQUEST_BACKOFF_FACTOR": "1",
    _TIMEOUT: "16",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    # A redirect could lead anywhere, a cloud's metadata service included, with our login.
    "MLFLOW_ALLOW_HTTP_REDIRECTS": "false",
    "GIT_PYTHON_REFRESH": "quiet",
}


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
    # It prints the traceback of what it raises, and this is told in our words.
    logging.getLogger("mlflow.store.db.utils").setLevel(logging.CRITICAL)
    with mlflow_errors(uri, "its database" if "://" in uri else uri):
        if not uri.startswith("sqlite:"):
            return MlflowClient(tracking_uri=uri, registry_uri=uri)
        database = Path(uri.removeprefix("sqlite:///").partition("?")[0])
        with _alone_with(database):
            if not database.exists():
                _make_database(database)
            client = MlflowClient(tracking_uri=uri, registry_uri=uri)
            _open_sqlite(client)
        return client


def set_client_defaults() -> None:
    """Let MLflow's client give up in time and stay quiet; what the environment says stands."""
    tidy(MLFLOW)
    for name, value in _DEFAULTS.items():
        os.environ.setdefault(name, value)


@contextmanager
def time_to_store(path: Path) -> Iterator[None]:
    """Wait longer for the answer to a large upload.

    A server answers once it has passed the file on to its own store, which takes it longer than
    any other request.

    Args:
        path: A file, or a folder whose largest file counts.
    """
    files = [path] if path.is_file() else [each for each in path.rglob("*") if each.is_file()]
    largest = max((each.stat().st_size for each in files), default=0)
    given = os.environ.get(_TIMEOUT, _DEFAULTS[_TIMEOUT])
    if not given.isdigit():  # MLflow says what is wrong with it
        yield
        return
    os.environ[_TIMEOUT] = str(int(given) + largest // SLOWEST_STORE)
    try:
        yield
    finally:
        os.environ[_TIMEOUT] = given


def _open_sqlite(client: "MlflowClient") -> None:
    """Make the file and its tables, and no ``mlruns`` folder in the working directory."""
    path = Path(str(client.tracking_uri).removeprefix("sqlite:///"))
    from mlflow.tracking._tracking_service.utils import _tracking_store_registry

    _tracking_store_registry.get_store(client.tracking_uri, _artifact_root(path))


def _make_database(database: Path) -> None:
    """Make all tables under another name first: MLflow cannot go on with a half-made database.

    That is a hundred migrations, a second of the processor and many waits for the disk. So the
    empty tables are kept on this machine for the next new database.
    """
    from mlflow.exceptions import MlflowException
    from sqlalchemy.exc import SQLAlchemyError

    unfinished = database.with_name(f".{database.name}.unfinished")
    kept = machine.cache_folder() / "mlflow" / f"{version('mlflow')}.db"
    try:
        shutil.copyfile(kept, unfinished)
        _make_tables(unfinished, database)
    except (OSError, MlflowException, SQLAlchemyError):  # there is none, or it is damaged
        unfinished.unlink(missing_ok=True)
        _make_tables(unfinished, database)
        with suppress(OSError, sqlite3.Error):
            _keep_tables(unfinished, kept)
    unfinished.rename(database)


def _make_tables(unfinished: Path, database: Path) -> None:
    """The tables that are missing, and MLflow's default experiment."""
    from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore

    uri = f"sqlite:///{unfinished}"
    try:
        SqlAlchemyStore(uri, _artifact_root(database))
    finally:
        engine = SqlAlchemyStore._engine_map.pop(uri, None)
        if engine is not None:
            engine.dispose()


def _keep_tables(made: Path, kept: Path) -> None:
    """Keep a new database without its only row that names a folder."""
    kept.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=kept.parent) as folder:
        copy = Path(folder) / kept.name
        shutil.copyfile(made, copy)
        with closing(sqlite3.connect(copy)) as connection, connection:
            connection.execute("DELETE FROM experiments")
        copy.replace(kept)


@contextmanager
def _alone_with(database: Path) -> Iterator[None]:
    """Let one process at a time open a database; without locks on its disk, go on.

    Two that make the tables of one new database fail each other, as the first two runs of a
    project do that start together.
    """
    import fcntl

    database.parent.mkdir(parents=True, exist_ok=True)
    handle = os.open(database.parent, os.O_RDONLY)
    try:
        with suppress(OSError):
            fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)


def absolute_uri(uri: str) -> str:
    """The URI with a relative sqlite path made absolute, so that every folder means the same.

    Raises:
        ConfigurationError: It has no scheme, or one that MLflow does not know.
    """
    uri = uri.strip()
    scheme = split_address(uri).scheme
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
    if scheme.partition("+")[0] not in (*DATABASES, "databricks", "databricks-uc", "uc"):
        raise ConfigurationError(
            f"tracking.uri: {redacted(uri, uri)!r} starts with {scheme!r}, which MLflow has no "
            "store for.",
            fix="Use a server, http://host:5000, or a database, such as sqlite:///mlflow.db.",
        )
    if scheme != "sqlite":
        return uri
    path = uri.removeprefix("sqlite:///")
    if path.startswith("~"):
        path = str(local_path(path))
    return f"sqlite:///{Path(path).absolute()}"


def artifact_location(uri: str, experiment: str) -> str | None:
    """Where a new experiment's files go; a server decides that itself."""
    uri = absolute_uri(uri)
    if uri.startswith("sqlite:"):
        root = _artifact_root(Path(uri.removeprefix("sqlite:///")))
        name = re.sub(r"[^\w.-]+", "-", experiment)
        return f"{root}/{urllib.parse.quote(name)}"
    if split_address(uri).scheme not in ("http", "https", "databricks"):
        raise TrackingError(
            f"The MLflow experiment {experiment!r} does not exist, and a database does not say "
            "where its files should go.",
            fix="Use an MLflow server before the database, or make the experiment with "
            "`mlflow experiments create --artifact-location`.",
        )
    return None


def _artifact_root(database: Path) -> str:
    return (database.parent / ARTIFACTS).as_uri()

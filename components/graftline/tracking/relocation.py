"""A local MLflow whose folder was moved or copied: its records name files by absolute paths.

The database and its ``mlartifacts`` folder stand side by side, so where they are now says where
every recorded file is now. Only records of files that are found at the new place are changed.
"""

import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path

from graftline.addresses import split_address
from graftline.errors import TrackingError
from graftline.storage.uri import local_path
from graftline.tracking.client import ARTIFACTS, absolute_uri
from graftline.tracking.mlflow_run import TAG

# Tables of MLflow 3 and their columns with locations; of the tags, only those that name a folder.
_COLUMNS = (
    ("experiments", "artifact_location"),
    ("runs", "artifact_uri"),
    ("logged_models", "artifact_location"),
    ("model_versions", "source"),
    ("model_versions", "storage_location"),
    ("registered_model_tags", "value"),
    ("model_version_tags", "value"),
)
_TAGS = (f"{TAG}champions", f"{TAG}store", f"{TAG}source")
BUSY_SECONDS = 10.0  # for which another writer of the database is waited for


@dataclass(frozen=True)
class Relocation:
    """What a local MLflow's records say of an earlier folder.

    Attributes:
        database: The database as it is now.
        before: The folder that the records name in place of the database's.
        copied: Whether that folder still holds files: this one is a copy, or shares them.
    """

    database: Path
    before: Path
    copied: bool

    @property
    def roots(self) -> tuple[Path, Path]:
        """The outermost folders that differ, before and now: what was moved or copied."""
        before, now = self.before, self.database.parent
        while before.name and before.name == now.name:
            before, now = before.parent, now.parent
        return before, now


def find(uri: str) -> Relocation | None:
    """Whether the records of a local MLflow name a folder that is not the database's own.

    Args:
        uri: Tracking URI.

    Returns:
        None for a server, for a database that does not exist yet, and where all is in place.
    """
    database = database_of(uri)
    if database is None or not database.is_file():
        return None
    with opened(database) as connection:
        locations = set(_values(connection, "experiments", "artifact_location"))
    here = database.parent / ARTIFACTS
    if not here.is_dir():
        return None  # nothing was moved along that the records could point to
    for location in sorted(locations):
        path = _path(location)
        if path is None or path.parent.name != ARTIFACTS or _same(path.parent, here):
            continue
        return Relocation(database, path.parent.parent, copied=path.parent.is_dir())
    return None


def apply(moved: Relocation) -> int:
    """Let the records name the files where they are now, in one transaction.

    Returns:
        How many records were changed.

    Raises:
        TrackingError: The database cannot be read or written.
    """
    before, now = moved.roots
    own = {moved.before / ARTIFACTS: moved.database.parent / ARTIFACTS}
    changed = 0
    with opened(moved.database) as connection:
        connection.execute("BEGIN IMMEDIATE")
        for table, column in _COLUMNS:
            for value in set(_values(connection, table, column)):
                new = _relocated(value, own, (before, now))
                if new is not None:
                    statement = f"UPDATE {table} SET {column} = ? WHERE {column} = ?"  # noqa: S608
                    changed += connection.execute(statement, (new, value)).rowcount
        connection.commit()
    return changed


def check_writable(uri: str) -> None:
    """Ask a local database for a write, and undo it.

    Raises:
        TrackingError: It cannot be written to: read-only, locked by another program, or damaged.
    """
    database = database_of(uri)
    if database is None or not database.exists():
        return
    with opened(database) as connection:
        connection.execute("BEGIN IMMEDIATE")
        connection.execute("CREATE TABLE graftline_asks (x)")  # a read-only file takes BEGIN
        connection.rollback()


def check_readable(uri: str) -> None:
    """Ask a local database for anything: MLflow tries for minutes where it cannot be opened.

    Raises:
        TrackingError: It cannot be read, or is damaged.
    """
    database = database_of(uri)
    if database is not None and database.exists():
        with opened(database) as connection:
            connection.execute("SELECT count(*) FROM sqlite_master")


def database_of(uri: str) -> Path | None:
    """The file of a local MLflow; None for a server or another kind of database."""
    if split_address(uri).scheme != "sqlite":
        return None
    return Path(absolute_uri(uri).removeprefix("sqlite:///").partition("?")[0])


@contextmanager
def opened(database: Path) -> Iterator[sqlite3.Connection]:
    """The database; what SQLite raises becomes an error that says what to do."""
    try:
        with closing(sqlite3.connect(database, timeout=BUSY_SECONDS)) as connection:
            connection.isolation_level = None  # transactions begin where this module says
            yield connection
    except sqlite3.Error as error:
        text = str(error)
        fix = "Make the file and its folder writable, or give another tracking.uri."
        if "locked" in text:
            fix = "Another program writes to it: wait for it or stop it, and try again."
        elif "not a database" in text or "malformed" in text:
            fix = "Restore it from a backup, or give another tracking.uri."
        raise TrackingError(
            f"MLflow's database {database} cannot be used.", why=f"{text}.", fix=fix
        ) from None


def _values(connection: sqlite3.Connection, table: str, column: str) -> Iterator[str]:
    columns = {row[1] for row in connection.execute(f"PRAGMA table_info({table})")}
    if column not in columns:
        return  # a database of another MLflow version
    where = f" WHERE key IN {_TAGS!r}" if table.endswith("_tags") else ""
    for (value,) in connection.execute(f"SELECT {column} FROM {table}{where}"):  # noqa: S608
        if value:
            yield str(value)


def _relocated(value: str, own: dict[Path, Path], roots: tuple[Path, Path]) -> str | None:
    """The value at the new place; None where it stays as it is."""
    path = _path(value)
    if path is None:
        return None
    for before, now in own.items():  # the artifacts came along: even of runs without any yet
        if path.is_relative_to(before):
            return _like(value, now / path.relative_to(before))
    before, now = roots
    if path.is_relative_to(before):
        target = now / path.relative_to(before)
        if target.exists():
            return _like(value, target)
    return None


def _like(value: str, path: Path) -> str:
    return path.as_uri() if value.startswith("file:") else str(path)


def _path(value: str) -> Path | None:
    """An absolute local path that a record names; None for anything else."""
    if "://" in value and not value.startswith("file://"):
        return None
    path = local_path(value)
    return path if path is not None and path.is_absolute() else None


def _same(one: Path, other: Path) -> bool:
    if one == other:
        return True
    return one.exists() and one.samefile(other)

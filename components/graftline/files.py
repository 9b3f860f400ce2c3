"""Files of this machine: atomic writes, digests, and the operating system's errors."""

import errno
import hashlib
import os
import shutil
import tempfile
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from graftline.errors import (
    NoSpace,
    StoreAccessDenied,
    StoreError,
    StoreNotFound,
    StoreReadOnly,
)

CHUNK = 4 * 2**20


def write_atomic(path: Path, data: bytes | IO[bytes]) -> None:
    """Write a local file so that it is there whole or not at all."""
    with replacing(path) as temporary:
        _create(temporary, data)


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A name beside a file to write to; the file is replaced if the block ends well.

    The new bytes are on the disk before the name points to them, so that not even a power cut
    leaves half a file.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.is_dir():  # `.` has no name to put anything beside
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}.part")
    try:
        yield temporary
        with temporary.open("rb") as stream:
            os.fsync(stream.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
    flush_folder(path.parent)


def write_through(path: Path, data: bytes | IO[bytes]) -> None:
    """Create a file and wait until its bytes are on the disk."""
    _create(path, data)
    with path.open("rb") as stream:
        os.fsync(stream.fileno())


def _create(path: Path, data: bytes | IO[bytes]) -> None:
    with path.open("xb") as stream:
        if isinstance(data, bytes | bytearray | memoryview):
            stream.write(data)
        else:
            shutil.copyfileobj(data, stream, CHUNK)


def flush_folder(folder: Path) -> None:
    """Wait until the names in a folder are on the disk: a rename alone may be lost."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


class os_errors:  # noqa: N801 -- a context manager, used like a function
    """Turns the operating system's refusals into errors that name the remedy."""

    def __init__(self, name: str, action: str) -> None:
        self.name = name
        self.action = action

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: object, error: BaseException | None, traceback: object) -> None:
        if isinstance(error, OSError):
            raise os_error(error, self.name, self.action) from error


def os_error(error: OSError, name: str, action: str) -> StoreError:
    """The :class:`StoreError` for an operating system's error."""
    what = f"Cannot {action} {name}"
    why = error.strerror or str(error)
    if action == "list" and error.filename and not name.endswith(Path(error.filename).name):
        why += f": {error.filename}"  # a folder somewhere below
    if error.errno in (errno.ENOENT, errno.ENOTDIR) and action == "write":
        return StoreNotFound(
            what, why=why, fix="The folder cannot be created: choose another path."
        )
    if error.errno in (errno.ENOENT, errno.ENOTDIR):
        return StoreNotFound(f"{name} does not exist", fix="Check the path for typos.")
    if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
        return NoSpace(what, why=why, fix=_more_space(name))
    if error.errno == errno.EROFS:
        return StoreReadOnly(what, why=why, fix=f"Mount it writable, or {_elsewhere(name)}.")
    if error.errno in (errno.EACCES, errno.EPERM):
        kind = StoreAccessDenied if action in ("read", "list") else StoreReadOnly
        return kind(what, why=why, fix="Give this user permission, or choose another path.")
    if error.errno in (errno.EISDIR, errno.EEXIST):
        return StoreError(
            what,
            why=why,
            fix="A file and a folder have the same name there: rename one, or choose another path.",
        )
    if error.errno == errno.ENAMETOOLONG:
        return StoreError(what, why=why, fix="Give a shorter name.")
    return StoreError(what, why=why, fix="Check the disk: this error is unexpected.")


def _more_space(name: str) -> str:
    """What to do about a full disk: another store does not help where a temporary file is."""
    if name.startswith(tempfile.gettempdir()):
        return (
            "Free space on that disk, or set TMPDIR to a folder on a larger one; on a cluster, "
            "raise `disk` of the step's pool."
        )
    return f"Free space on that disk, or {_elsewhere(name)}."


def _elsewhere(name: str) -> str:
    """Where else to write. A store is named by its URI, any other file by its path."""
    store = name.startswith("file:")
    return "choose another `store` in the run file" if store else "choose another path"


def sha256_of(path: Path) -> str:
    """SHA-256 of a file in hexadecimal."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()

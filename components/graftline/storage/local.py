"""A folder as a store: files are written beside, flushed to disk and renamed into place."""

import errno
import hashlib
import os
import time
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from typing_extensions import override

from graftline.errors import (
    PreconditionFailed,
    StoreError,
)
from graftline.files import flush_folder, os_errors, write_atomic, write_through
from graftline.storage.base import ObjectInfo, Store, checked_key

STALE_SECONDS = 24 * 3600
HIDDEN = ".graftline-tmp"  # holds half-written files and locks; never listed


class FileStore(Store):
    """A folder. Files are written beside, flushed to disk and then renamed into place."""

    def __init__(self, root: Path, hidden: Path | None = None) -> None:
        self.root = Path(root).resolve()
        self.uri = self.root.as_uri()
        self._hidden = hidden or self.root / HIDDEN

    def __reduce__(self) -> tuple[object, tuple[Path, Path]]:
        return FileStore, (self.root, self._hidden)

    def _path(self, key: str) -> Path:
        return self.root / checked_key(key)

    @override
    def read(self, key: str) -> bytes:
        with self._translated(key, "read"):
            return self._path(key).read_bytes()

    @override
    def read_range(self, key: str, offset: int, length: int) -> bytes:
        with self._translated(key, "read"), self._path(key).open("rb") as stream:
            stream.seek(offset)
            data = stream.read(length)
        if len(data) != length:
            raise StoreError(
                f"{self._named(key)} ends at byte {offset + len(data)}, before {offset + length}",
                fix="The file was cut short; restore it, or remove it and run again.",
            )
        return data

    @override
    def read_versioned(self, key: str) -> tuple[bytes, str]:
        data = self.read(key)
        return data, hashlib.sha256(data).hexdigest()

    @override
    def write(self, key: str, data: bytes) -> None:
        with self._translated(key, "write"), self._temporary(data) as temporary:
            self._publish(temporary, self._path(key))

    @override
    def write_if_absent(self, key: str, data: bytes) -> bool:
        target = self._path(key)
        if target.exists():
            return False
        with self._translated(key, "write"), self._temporary(data) as temporary:
            return self._publish_if_absent(temporary, target)

    @override
    def write_if_match(self, key: str, data: bytes, version: str | None) -> str:
        with self._translated(key, "write"), self._locked(key):
            try:
                found: str | None = hashlib.sha256(self._path(key).read_bytes()).hexdigest()
            except FileNotFoundError:
                found = None
            if found != version:
                raise PreconditionFailed(
                    f"{self._named(key)} was changed by another writer",
                    fix="Run again: it then starts from the newer state.",
                )
            with self._temporary(data) as temporary:
                self._publish(temporary, self._path(key))
        return hashlib.sha256(data).hexdigest()

    @override
    def exists(self, key: str) -> bool:
        with self._translated(key, "read"):
            return self._path(key).is_file()

    @override
    def size(self, key: str) -> int:
        with self._translated(key, "read"):
            return self._path(key).stat().st_size

    @override
    def list(self, prefix: str = "") -> Iterator[ObjectInfo]:
        if not self.root.exists():
            return
        with self._translated(prefix, "list"):
            folder = self.root / prefix.rpartition("/")[0]
            if folder.is_dir():
                yield from self._walk(folder, prefix, frozenset())

    @override
    def names(self) -> Sequence[str]:
        if not self.root.is_dir():
            return []
        with self._translated("", "list"), os.scandir(self.root) as entries:
            files = [e.name for e in entries if e.is_file() and not e.name.startswith(HIDDEN)]
        return sorted(files)

    def info(self, key: str) -> ObjectInfo | None:
        """What a listing would say of one file; None where there is none."""
        path = self._path(key)
        with self._translated(key, "list"):
            try:
                stat = path.stat()
            except (FileNotFoundError, NotADirectoryError):
                return None
        if not path.is_file():
            return None
        version = f"{stat.st_mtime_ns}:{stat.st_size}"
        return ObjectInfo(key, stat.st_size, version, stat.st_mtime)

    def _walk(self, folder: Path, prefix: str, above: frozenset[str]) -> Iterator[ObjectInfo]:
        """Entries of one folder in the order of their keys; links are followed, rings are not."""
        real = os.path.realpath(folder)
        if real in above:
            return
        try:
            with os.scandir(folder) as entries:
                found = [(e.name + "/" if e.is_dir() else e.name, e) for e in entries]
        except FileNotFoundError:
            return  # removed since its own folder was read
        # Text, not paths: making a Path of each was half of the time of listing a large source.
        here = "" if folder == self.root else f"{folder.relative_to(self.root).as_posix()}/"
        for name, entry in sorted(found, key=lambda pair: pair[0]):
            key = here + entry.name
            if entry.name.startswith(HIDDEN):
                continue
            if name.endswith("/"):
                if (key + "/").startswith(prefix) or prefix.startswith(key + "/"):
                    yield from self._walk(Path(entry.path), prefix, above | {real})
            elif key.startswith(prefix) and (info := _info(key, entry)):
                yield info

    @override
    def upload(self, path: Path, key: str, *, if_absent: bool = False) -> bool:
        target = self._path(key)
        if if_absent and target.exists():
            return False
        with os_errors(str(path), "read"):
            source = path.open("rb")
        with source, self._translated(key, "write"), self._temporary(source) as temporary:
            if if_absent:
                return self._publish_if_absent(temporary, target)
            self._publish(temporary, target)
        return True

    @override
    def download(self, key: str, path: Path) -> None:
        with self._translated(key, "read"):
            source = self._path(key).open("rb")
        with source, os_errors(str(path), "write"):
            write_atomic(path, source)

    @override
    def delete(self, key: str) -> None:
        with self._translated(key, "delete"):
            self._path(key).unlink(missing_ok=True)

    @override
    def check_writable(self) -> None:
        key = f"{HIDDEN}-probe-{uuid.uuid4().hex}"
        with self._translated("", "write"):
            self.root.mkdir(parents=True, exist_ok=True)
            if self._hidden.is_dir():
                _remove_stale(self._hidden)
            write_through(self._path(key), b"probe")  # an error names the store, not this file
            self._path(key).unlink()

    @override
    def check_there(self) -> None:
        if not self.root.is_dir():
            raise StoreError(
                f"There is no store at {self.root}.",
                why="It is not a folder." if self.root.exists() else "There is no such folder.",
                fix="Give --store what `store` says in the run file.",
            )

    @override
    def child(self, prefix: str) -> "FileStore":
        return FileStore(self.root / checked_key(prefix.strip("/")), self._hidden)

    @contextmanager
    def _temporary(self, data: bytes | IO[bytes]) -> Iterator[Path]:
        """A file on the store's own disk that holds the data safely; gone afterwards."""
        self._hidden.mkdir(parents=True, exist_ok=True)
        path = self._hidden / uuid.uuid4().hex
        try:
            write_through(path, data)
            yield path
        finally:
            path.unlink(missing_ok=True)

    def _publish(self, temporary: Path, target: Path) -> None:
        target.parent.mkdir(parents=True, exist_ok=True)
        temporary.replace(target)
        flush_folder(target.parent)

    def _publish_if_absent(self, temporary: Path, target: Path) -> bool:
        target.parent.mkdir(parents=True, exist_ok=True)
        try:
            os.link(temporary, target)  # fails where the name is taken, in one step
        except FileExistsError:
            return False
        except OSError as error:
            if error.errno not in (errno.EPERM, errno.ENOTSUP, errno.EMLINK, errno.ENOSYS):
                raise
            return self._publish_without_links(temporary, target)
        flush_folder(target.parent)
        return True

    def _publish_without_links(self, temporary: Path, target: Path) -> bool:
        with self._locked(target.relative_to(self.root).as_posix()):
            if target.exists():
                return False
            self._publish(temporary, target)
        return True

    @contextmanager
    def _locked(self, key: str) -> Iterator[None]:
        """Hold the key's lock; the system frees it when its holder dies."""
        import fcntl

        self._hidden.mkdir(parents=True, exist_ok=True)
        name = hashlib.sha256(str(self._path(key)).encode()).hexdigest()
        with (self._hidden / f"{name}.lock").open("wb") as stream:
            fcntl.flock(stream, fcntl.LOCK_EX)
            yield

    def _translated(self, key: str, action: str) -> "os_errors":
        return os_errors(self._named(key), action)

    def _named(self, key: str) -> str:
        """The URI of an object, of the folder itself for none; the root's own ends in a slash."""
        return f"{self.uri.removesuffix('/')}/{key}" if key else self.uri


def _info(key: str, entry: "os.DirEntry[str]") -> ObjectInfo | None:
    """A listed file; None for what is no regular file, or was removed meanwhile.

    A link to nothing is listed, so that a source can say so.
    """
    try:
        stat = entry.stat()
    except FileNotFoundError:
        return ObjectInfo(key, 0, "a link to nothing") if entry.is_symlink() else None
    if not entry.is_file():
        return None
    version = f"{stat.st_mtime_ns}:{stat.st_size}"
    return ObjectInfo(key, stat.st_size, version, stat.st_mtime)


def _remove_stale(folder: Path) -> None:
    """Remove what killed writers left more than a day ago."""
    for path in folder.iterdir():
        try:
            if path.suffix != ".lock" and time.time() - path.stat().st_mtime > STALE_SECONDS:
                path.unlink()
        except FileNotFoundError:
            continue

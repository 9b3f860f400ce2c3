"""Tar shards as WebDataset writes them: ``name.jpg`` with ``name.cls`` or ``name.json``.

An image with neither takes the folder that it is in as its label. A label that is there and not
understood is an error, see :mod:`graftline.data.sources.samples`.

Archives are read member by member and never unpacked to disk. Only regular files are looked at,
so neither links nor device files nor paths that climb out mean anything, and sizes are limited
before a byte is read.
"""

import dataclasses
import gzip
import posixpath
import tarfile
import tempfile
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import IO, cast

from typing_extensions import override

from graftline.data.sources.base import ARCHIVES, Columns, Entry, Reading, Source, listing
from graftline.data.sources.layouts.layout import EXCLUDED, excluded
from graftline.data.sources.samples import LABELS, Orphans, images_of
from graftline.data.sources.split_names import splits_of
from graftline.data.sources.table_advice import ignored_files
from graftline.data.sources.table_images import printable
from graftline.errors import DataError
from graftline.files import os_error
from graftline.storage.base import Store

NOTE_BYTES = 2**20  # a label or JSON note is small
HEADER_BYTES = 2**20  # so is a header, extended ones included
UNPACKED_RATIO = 20  # images hardly shrink: more than this is a bomb
UNPACKED_FLOOR = 256 * 2**20
FORGET_EVERY = 1000  # members that tarfile would otherwise keep for ever
SAMPLE_BYTES = 2**30  # of members that share their name up to the first dot


class ArchiveSource(Source):
    """All tar files below a place, or one of them."""

    format = "shards"

    def __init__(
        self,
        store: Store,
        columns: Columns,
        name: str | None = None,
        reading: Reading | None = None,
    ) -> None:
        super().__init__()
        self.choices = reading or Reading()
        self.store = store
        self.columns = columns
        self.name = name
        self.uri = f"{store.uri}/{name}" if name else store.uri

    @override
    def entries(self) -> list[Entry]:
        entries = []
        for info in listing(self.store):
            if self.name is not None and info.key != self.name:
                continue
            archive = info.key.lower().endswith(ARCHIVES)
            problem = None if archive else "not a tar shard"
            if self.choices.exclude and excluded(info.key, self.choices.exclude):
                archive, problem = False, EXCLUDED
            entries.append(
                Entry(info.key, info.version, info.size, problem=problem, archive=archive)
            )
        if not any(entry.archive for entry in entries):
            raise DataError(
                f"The source {self.uri} holds no tar shards",
                fix=f"Shards end in {', '.join(ARCHIVES)}. Correct `data.source` or `data.format`.",
            )
        note = ignored_files([one.path for one in entries if not one.archive], ())
        self.notes += [note] if note else []
        return split_by_name(self, entries, self.columns)

    @override
    def read(self, entry: Entry) -> bytes:
        raise TypeError(f"{entry.path} is read by unpack()")

    @override
    def unpack(self, entry: Entry, max_bytes: int) -> Iterator[tuple[Entry, bytes]]:
        with tempfile.TemporaryDirectory(prefix="graftline-") as folder:
            path = Path(folder) / "archive.tar"
            self.store.download(entry.path, path)
            with _opened(path) as stream:
                yield from self._samples(entry, stream, max_bytes)

    def _samples(
        self, entry: Entry, stream: IO[bytes], max_bytes: int
    ) -> Iterator[tuple[Entry, bytes]]:
        """Members are neighbours when they share the name up to its first dot."""
        sample: dict[str, bytes] = {}
        problems: dict[str, str] = {}
        orphans = Orphans()
        current, size = None, 0
        for name, data, problem in _whole_members(stream, max_bytes):
            if not name or not _is_text(name):
                yield _unread(entry, name, problem if not name else "name cannot be used")
                continue
            folder, base = posixpath.split(posixpath.normpath(name))
            # macOS keeps a file's attributes in another one, `._1.png`.
            if any(part.startswith(".") and part != ".." for part in [base, *folder.split("/")]):
                yield _unread(entry, name, "hidden file")
                continue
            stem, dot, suffix = base.partition(".")
            key, suffix = f"{folder}/{stem}".lstrip("/"), dot + suffix.lower()
            if current is not None and (key != current or suffix in sample):
                yield from images_of(entry, current, sample, problems, self.columns, orphans)
                sample, problems, size = {}, {}, 0
            current = key
            sample[suffix] = data
            size += len(data)
            if size > SAMPLE_BYTES:
                raise DataError(
                    f"The sample {key!r} in {entry.path} is larger than {SAMPLE_BYTES:,} bytes",
                    why="all members that share a name up to its first dot are one sample",
                    fix="Use no dots in the names of the images but the one before the suffix.",
                )
            if problem:
                problems[suffix] = problem
        if current is not None:
            yield from images_of(entry, current, sample, problems, self.columns, orphans)
        yield from orphans.left(entry)


def _unread(archive: Entry, name: str, problem: str | None) -> tuple[Entry, bytes]:
    """A member that is not taken; without a name, the rest of the archive."""
    path = f"{archive.path}#{printable(name)}"
    return dataclasses.replace(archive, path=path, archive=False, split=None, problem=problem), b""


def split_by_name(source: Source, entries: list[Entry], columns: Columns) -> list[Entry]:
    """Give each archive the split that its name states (train-000.tar, val/000.tar).

    Names of archives count only where one of them is for training: a single `test.tar` is no split.
    """
    if columns.split is None:  # the run file has the splits chosen
        return entries
    names = {entry.path: _split_part(entry.path) for entry in entries if entry.archive}
    splits = splits_of({name for name in names.values() if name is not None})
    if "train" not in splits.values():
        return entries
    said = ", ".join(sorted({f"{split}" for split in splits.values()}))
    source.notes.append(f"The names of the files say which split they are for ({said}).")
    without = sum(name is None for name in names.values())
    if without:
        source.notes.append(
            f"Without a split in the name: {without:,} of {len(names):,} files; theirs is chosen."
        )
    return [
        dataclasses.replace(entry, split=splits.get(names.get(entry.path) or ""))
        for entry in entries
    ]


def _split_part(path: str) -> str | None:
    """The part of a path that names a split: the file's name, else the folder nearest to it."""
    name = path.rpartition("/")[2].partition(".")[0]
    return next((part for part in [name, *path.split("/")[-2::-1]] if splits_of([part])), None)


class _Bounded:
    """A file whose single reads are limited, so that a forged header cannot ask for gigabytes."""

    def __init__(self, stream: IO[bytes], limit: int) -> None:
        self.stream = stream
        self.limit = limit

    def read(self, size: int = -1) -> bytes:
        if size < 0 or size > self.limit:
            raise tarfile.ReadError(f"a header asks for {size:,} bytes at once")
        return self.stream.read(size)

    def seek(self, position: int, whence: int = 0) -> int:
        return self.stream.seek(position, whence)

    def tell(self) -> int:
        return self.stream.tell()


def _opened(path: Path) -> IO[bytes]:
    with path.open("rb") as stream:
        packed = stream.read(2) == b"\x1f\x8b"
    return cast(IO[bytes], gzip.open(path)) if packed else path.open("rb")


def _whole_members(stream: IO[bytes], max_bytes: int) -> Iterator[tuple[str, bytes, str | None]]:
    """Like :func:`_members`; where the archive is damaged, a last one without a name says so."""
    try:
        yield from _members(stream, max_bytes)
    except (tarfile.TarError, EOFError, zlib.error, ValueError, OSError) as error:
        if isinstance(error, OSError) and error.errno is not None:
            raise os_error(error, stream.name, "read") from error
        yield "", b"", f"damaged archive: {error}"


def _members(stream: IO[bytes], max_bytes: int) -> Iterator[tuple[str, bytes, str | None]]:
    """Name and bytes of each regular file; a too large one has a problem instead of bytes."""
    packed = isinstance(stream, gzip.GzipFile)
    limit = UNPACKED_FLOOR
    if packed:
        limit += UNPACKED_RATIO * Path(stream.name).stat().st_size
    bounded = _Bounded(stream, max(max_bytes, HEADER_BYTES))
    with tarfile.open(fileobj=cast(IO[bytes], bounded), mode="r:") as archive:
        for count, member in enumerate(archive, 1):
            if packed and member.offset_data + member.size > limit:
                raise tarfile.ReadError("it unpacks to far more than its size")
            if count % FORGET_EVERY == 0:
                archive.members = []  # type: ignore[attr-defined]
            if not member.isreg() or member.issparse():
                if not member.isdir():
                    yield member.name, b"", "not a regular file"
                continue
            allowed = NOTE_BYTES if _is_note(member.name) else max_bytes
            if member.size > allowed:
                yield member.name, b"", f"larger than {allowed:,} bytes"
                continue
            body = archive.extractfile(member)
            data = body.read(member.size) if body is not None else b""
            if len(data) != member.size:
                raise tarfile.ReadError(f"{member.name} is cut short")
            yield member.name, data, None


def _is_text(name: str) -> bool:
    """Whether a member's name is UTF-8, as archives have it since 2001."""
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True


def _is_note(name: str) -> bool:
    return name.lower().endswith((".json", *LABELS))

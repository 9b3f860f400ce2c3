"""Tar shards as WebDataset writes them: ``name.jpg`` with ``name.cls`` or ``name.json``.

An image with neither takes the folder it stands in for its label.

Archives are read member by member and never unpacked to disk. Only regular files are looked at,
so neither links nor device files nor paths that climb out mean anything, and sizes are limited
before a byte is read.
"""

import dataclasses
import gzip
import json
import posixpath
import tarfile
import tempfile
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any, cast

from typing_extensions import override

from graftline.data.sources.base import ARCHIVES, SPLIT_NAMES, Columns, Entry, Source, listing
from graftline.errors import DataError
from graftline.files import os_error
from graftline.images.decode import SUFFIXES
from graftline.storage.base import Store

NOTE_BYTES = 2**20  # a label or JSON note is small
HEADER_BYTES = 2**20  # so is a header, extended ones included
UNPACKED_RATIO = 20  # images hardly shrink: more than this is a bomb
UNPACKED_FLOOR = 256 * 2**20
FORGET_EVERY = 1000  # members that tarfile would otherwise keep for ever
LABELS = (".cls", ".txt", ".label")


class ArchiveSource(Source):
    """All tar files below a place, or one of them."""

    format = "shards"

    def __init__(self, store: Store, columns: Columns, name: str | None = None) -> None:
        super().__init__()
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
            entries.append(
                Entry(info.key, info.version, info.size, problem=problem, archive=archive)
            )
        if not any(entry.archive for entry in entries):
            raise DataError(
                f"The source {self.uri} holds no tar shards",
                fix=f"Shards end in {', '.join(ARCHIVES)}. Correct `data.source` or `data.format`.",
            )
        return entries

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
        current = None
        for name, data, problem in _whole_members(stream, max_bytes):
            if not name:
                broken = dataclasses.replace(entry, path=f"{entry.path}#", archive=False)
                yield dataclasses.replace(broken, problem=problem), b""
                continue
            folder, base = posixpath.split(posixpath.normpath(name))
            stem, dot, suffix = base.partition(".")
            key, suffix = f"{folder}/{stem}".lstrip("/"), dot + suffix.lower()
            if current is not None and (key != current or suffix in sample):
                yield from self._images(entry, current, sample, problems)
                sample, problems = {}, {}
            current = key
            sample[suffix] = data
            if problem:
                problems[suffix] = problem
        if current is not None:
            yield from self._images(entry, current, sample, problems)

    def _images(
        self, entry: Entry, key: str, sample: dict[str, bytes], problems: dict[str, str]
    ) -> Iterator[tuple[Entry, bytes]]:
        note = _note(sample.get(".json", b""))
        label = _text(note.get(self.columns.label, note.get("label", note.get("cls"))))
        for suffix in LABELS:
            if label is None and suffix in sample:
                label = sample[suffix].decode("utf-8", "replace").strip() or None
        split = _text(note.get(self.columns.split))
        *above, parent = ["", *key.split("/")[:-1]]
        if label is None and parent:  # class folders that were packed as they stood
            label = parent
            split = split or next((name for name in above if name.lower() in SPLIT_NAMES), None)
        for suffix, data in sample.items():
            if "." + suffix.rpartition(".")[2] not in SUFFIXES:
                continue
            problem = problems.get(suffix) or (None if label is not None else "no label")
            if split is not None and split.lower() not in SPLIT_NAMES:
                problem = problem or f"unknown split {split!r}"
            yield (
                Entry(
                    path=f"{entry.path}#{key}{suffix}",
                    version=entry.version,
                    size=len(data),
                    label=label,
                    split=SPLIT_NAMES.get(split.lower()) if split else None,
                    group=_text(note.get(self.columns.group)) if self.columns.group else None,
                    attributes={name: _text(note.get(name)) for name in self.columns.attributes},
                    problem=problem,
                ),
                data,
            )


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


def _is_note(name: str) -> bool:
    return name.lower().endswith((".json", *LABELS))


def _note(data: bytes) -> dict[str, Any]:
    try:
        note = json.loads(data) if data else {}
    except (ValueError, RecursionError):
        return {}
    return note if isinstance(note, dict) else {}


def _text(value: Any) -> str | None:
    if value is None or isinstance(value, dict | list):
        return None
    return str(value).strip() or None

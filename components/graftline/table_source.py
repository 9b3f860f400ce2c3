"""A CSV table of images: a path and a label a row, and what else the user knows of each."""

import csv
import dataclasses
import io
import posixpath
from collections.abc import Iterable
from urllib.parse import unquote

from typing_extensions import override

from graftline.errors import ConfigurationError, DataError
from graftline.file_store import FileStore
from graftline.source import SPLIT_NAMES, Columns, Entry, Source
from graftline.store import ObjectInfo, Store, open_store

SHOWN = 5


class TableSource(Source):
    """Rows of a CSV (or tab-separated) file; images stand beside it, or anywhere by full URI."""

    format = "table"

    def __init__(self, store: Store, name: str, columns: Columns) -> None:
        super().__init__()
        self.store = store
        self.name = name
        self.columns = columns
        self.uri = f"{store.uri}/{name}"
        self.base = str(store.root) if isinstance(store, FileStore) else store.uri
        self._stores: dict[str, Store] = {}

    def has_columns(self) -> bool:
        """Whether the first line names the image and the label column."""
        try:
            header, _ = self._rows()
        except DataError:
            return False
        return {self.columns.image, self.columns.label} <= set(header)

    def _rows(self) -> tuple[list[str], list[dict[str, str]]]:
        try:
            text = self.store.read(self.name).decode("utf-8-sig")
        except UnicodeDecodeError as error:
            raise DataError(
                f"The table {self.uri} is not UTF-8 text", why=str(error), fix="Save it as UTF-8."
            ) from error
        delimiter = "\t" if self.name.lower().endswith(".tsv") else ","
        try:
            reader = csv.DictReader(io.StringIO(text, newline=""), delimiter=delimiter)
            return [name.strip() for name in reader.fieldnames or []], [
                {(k or "").strip(): (v or "").strip() for k, v in row.items() if isinstance(v, str)}
                for row in reader
            ]
        except csv.Error as error:
            raise DataError(f"The table {self.uri} cannot be read", why=str(error)) from error

    @override
    def entries(self) -> list[Entry]:
        header, rows = self._rows()
        self._check_header(header)
        if not rows:
            raise DataError(f"The table {self.uri} has no rows", fix="Add one row an image.")
        self._check_splits(header, rows)
        images = [self._location(row[self.columns.image]) for row in rows]
        found = self._find(image for image in images if image)
        entries: dict[str, Entry] = {}
        for row, image in zip(rows, images, strict=True):
            entry = self._entry(row, image, found)
            before = entries.get(entry.path)
            if before is not None and not before.problem and before.label != entry.label:
                entry = dataclasses.replace(entry, problem="conflicting labels")
            elif before is not None and (entry.problem or before.problem):
                entry = before
            entries[entry.path] = entry
        return sorted(entries.values(), key=lambda entry: entry.path)

    def _check_header(self, header: list[str]) -> None:
        wanted = [self.columns.image, self.columns.label, *self.columns.attributes]
        wanted += [self.columns.group] if self.columns.group else []
        missing = [name for name in wanted if name not in header]
        if missing:
            raise ConfigurationError(
                f"The table {self.uri} has no column {', '.join(map(repr, missing))}",
                why=f"its first line names {', '.join(map(repr, header)) or 'nothing'}",
                fix="Correct the first line, or name the columns in the run file: "
                "data.image_column, data.label_column, data.group_column, data.attributes.",
            )

    def _check_splits(self, header: list[str], rows: list[dict[str, str]]) -> None:
        if self.columns.split not in header:
            return
        given = {row.get(self.columns.split, "") for row in rows}
        unknown = sorted(s for s in given if s and s.lower() not in SPLIT_NAMES)
        if unknown:
            raise DataError(
                f"The column {self.columns.split!r} of {self.uri} holds "
                f"{', '.join(map(repr, unknown[:SHOWN]))}",
                fix="Use train, val and test, or leave a cell empty to have it chosen.",
            )

    def _entry(self, row: dict[str, str], image: str, found: dict[str, ObjectInfo]) -> Entry:
        columns = self.columns
        split = row.get(columns.split, "").lower()
        info = found.get(image)
        problem = None
        if not image:
            problem = "no image named"
        elif not row[columns.label]:
            problem = "no label"
        elif info is None:
            problem = "file not found"
        return Entry(
            path=image.removeprefix(self.base + "/") if image else "(empty)",
            version=info.version if info else "",
            size=info.size if info else 0,
            label=row[columns.label] or None,
            split=SPLIT_NAMES[split] if split else None,
            group=(row.get(columns.group) or None) if columns.group else None,
            attributes={name: row.get(name) or None for name in columns.attributes},
            problem=problem,
        )

    def _location(self, image: str) -> str:
        """The absolute path or S3 URI of an image, however the table names it."""
        if not image or "://" in image:
            return unquote(image.removeprefix("file://")) if image.startswith("file:") else image
        if image.startswith("/"):
            return posixpath.normpath(image)
        scheme, _, rest = self.base.rpartition("://")
        return f"{scheme}://" * bool(scheme) + posixpath.normpath(f"{rest}/{image}")

    def _store_of(self, location: str) -> tuple[Store, str]:
        """The store that holds a location (a bucket, or this machine's files), and its key."""
        bucket, key = "", location[1:]
        if "://" in location:
            scheme, _, rest = location.partition("://")
            bucket, _, key = rest.partition("/")
            bucket = f"{scheme}://{bucket}"
        if bucket not in self._stores:
            self._stores[bucket] = open_store(bucket or "/")
        return self._stores[bucket], key

    def _find(self, images: Iterable[str]) -> dict[str, ObjectInfo]:
        """What the listings of the folders that hold the images say of them."""
        wanted = set(images)
        found: dict[str, ObjectInfo] = {}
        listed: list[str] = []
        for folder in sorted({image.rpartition("/")[0] + "/" for image in wanted}):
            if any(folder.startswith(done) for done in listed):
                continue
            listed.append(folder)
            store, prefix = self._store_of(folder)
            for info in store.list(prefix):
                location = folder + info.key[len(prefix) :]
                if location in wanted:
                    found[location] = info
        return found

    @override
    def read(self, entry: Entry) -> bytes:
        if "://" in entry.path or entry.path.startswith("/"):
            store, key = self._store_of(entry.path)
            return store.read(key)
        return self.store.read(entry.path)

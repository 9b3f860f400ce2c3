"""A CSV table of images: a path and a label a row, and what else the user knows of each."""

import codecs
import csv
import dataclasses
import io
import posixpath
from collections import defaultdict
from collections.abc import Iterable, Iterator

from typing_extensions import override

from graftline.data.sources.base import SPLIT_NAMES, Columns, Entry, Source
from graftline.errors import ConfigurationError, DataError
from graftline.storage import open_store, uri
from graftline.storage.base import ObjectInfo, Store
from graftline.storage.local import FileStore

SHOWN = 5
HELD_OUT_FIRST = {"test": 0, "val": 1, "train": 2}


@dataclasses.dataclass(frozen=True, slots=True)
class Row:
    """One row: the line it ends on, its cells by column, and how many cells there are too many."""

    line: int
    cells: dict[str, str]
    surplus: int


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

    def why_not(self) -> str | None:
        """Why it is no table of images, None if it is one: what its first line names decides."""
        try:
            header, _ = self._rows()
            if not {self.columns.image, self.columns.label} <= set(header):
                self._check_header(header)
        except (ConfigurationError, DataError) as error:
            return error.what + (f": {error.why}" if error.why else "")
        return None

    def _rows(self) -> tuple[list[str], list[Row]]:
        text = self._text()
        first = text.partition("\n")[0]
        # What spreadsheets write as "CSV" depends on the country.
        delimiter = max(",;\t", key=first.count)
        try:
            reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
            header = [name.strip() for name in next(reader, [])]
            rows = [
                Row(
                    reader.line_num,
                    dict(zip(header, (cell.strip() for cell in cells), strict=False)),
                    len(cells) - len(header),
                )
                for cells in reader
                if any(cell.strip() for cell in cells)
            ]
        except csv.Error as error:
            raise DataError(
                f"The table {self.uri} cannot be read",
                why=f"line {reader.line_num}: {error}",
                fix="Mend the quotation marks there, or write the table anew as CSV.",
            ) from error
        return header, rows

    def _text(self) -> str:
        data = self.store.read(self.name)
        wide = data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
        try:
            return data.decode("utf-16" if wide else "utf-8-sig")
        except UnicodeDecodeError as error:
            raise DataError(
                f"The table {self.uri} is not UTF-8 text",
                why=f"line {data[: error.start].count(10) + 1}: {error.reason} "
                f"(byte {error.object[error.start]:#04x})",
                fix="Save it as UTF-8; a spreadsheet calls that 'CSV UTF-8'.",
            ) from error

    @override
    def entries(self) -> list[Entry]:
        header, rows = self._rows()
        self._check_header(header)
        if not rows:
            raise DataError(f"The table {self.uri} has no rows", fix="Add one row an image.")
        self._check_splits(header, rows)
        images = [self._location(row.cells.get(self.columns.image, "")) for row in rows]
        found = self._find(image for image in images if image)
        by_path: dict[str, list[tuple[int, Entry]]] = defaultdict(list)
        for row, image in zip(rows, images, strict=True):
            entry = self._entry(row, image, found)
            by_path[entry.path].append((row.line, entry))
        entries = [entry for same in by_path.values() for entry in _one_for_each_path(same)]
        return sorted(entries, key=lambda entry: entry.path)

    def _check_header(self, header: list[str]) -> None:
        wanted = [self.columns.image, self.columns.label, *self.columns.attributes]
        wanted += [self.columns.group] if self.columns.group else []
        twice = sorted({name for name in wanted if header.count(name) > 1})
        if twice:
            raise ConfigurationError(
                f"The table {self.uri} has more than one column {', '.join(map(repr, twice))}",
                fix="Rename or remove the others: which one counts cannot be told.",
            )
        missing = [name for name in wanted if name not in header]
        if missing:
            raise ConfigurationError(
                f"The table {self.uri} has no column {', '.join(map(repr, missing))}",
                why=f"its first line names {', '.join(map(repr, header)) or 'nothing'}",
                fix="Correct the first line, or name the columns in the run file: "
                "data.image_column, data.label_column, data.group_column, data.attributes.",
            )

    def _check_splits(self, header: list[str], rows: list[Row]) -> None:
        if self.columns.split not in header:
            return
        given = {row.cells.get(self.columns.split, "") for row in rows}
        unknown = sorted(s for s in given if s and s.lower() not in SPLIT_NAMES)
        if unknown:
            raise DataError(
                f"The column {self.columns.split!r} of {self.uri} holds "
                f"{', '.join(map(repr, unknown[:SHOWN]))}",
                fix="Use train, val and test, or leave a cell empty to have it chosen.",
            )

    def _entry(self, row: Row, image: str, found: dict[str, ObjectInfo]) -> Entry:
        columns, cells = self.columns, row.cells
        split = cells.get(columns.split, "").lower()
        label = cells.get(columns.label) or None
        info = found.get(image)
        problem = None
        if row.surplus > 0:
            problem = "more cells than columns"
        elif not image:
            problem = "no image named"
        elif label is None:
            problem = "no label"
        elif info is None:
            problem = "file not found"
        return Entry(
            path=image.removeprefix(self.base + "/") if image else f"(line {row.line})",
            version=info.version if info else "",
            size=info.size if info else 0,
            label=label,
            split=SPLIT_NAMES[split] if split else None,
            group=(cells.get(columns.group) or None) if columns.group else None,
            attributes={name: cells.get(name) or None for name in columns.attributes},
            problem=problem,
        )

    def _location(self, image: str) -> str:
        """The absolute path or S3 URI of an image, however the table names it."""
        if uri.scheme(image) == "file":
            return str(uri.local_path(image))
        if not image or "://" in image:
            return image
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


def _one_for_each_path(same: list[tuple[int, Entry]]) -> Iterator[Entry]:
    """Rows that name one file: the first counts, held out rather than trained on.

    Where they disagree on the label none of them counts. The others come with their line.
    """
    usable = [pair for pair in same if pair[1].problem is None] or same
    chosen = min(usable, key=lambda pair: HELD_OUT_FIRST.get(pair[1].split or "", 3))
    first = chosen[1]
    if len({entry.label for _, entry in usable}) > 1:
        first = dataclasses.replace(first, problem=first.problem or "conflicting labels")
    yield first
    for pair in same:
        if pair is not chosen:
            line, entry = pair
            problem = entry.problem or first.problem or "duplicate row"
            yield dataclasses.replace(entry, path=f"{entry.path} (line {line})", problem=problem)

"""Parquet files that hold the images themselves, as the `datasets` library writes them.

A column of structs {bytes, path}, or of bytes; class numbers get the names that the library keeps
in the schema's metadata. Each file is read like an archive, a batch of rows at a time.
"""

import dataclasses
import posixpath
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from typing_extensions import override

from graftline.data.sources.base import NO_ATTRIBUTES, Columns, Entry, Reading, Source, listing
from graftline.data.sources.label_text import clean_text, clip
from graftline.data.sources.layouts.layout import EXCLUDED, excluded
from graftline.data.sources.samples import NO_LABEL
from graftline.data.sources.split_names import is_split_column, stated_splits
from graftline.data.sources.table import TableSource
from graftline.data.sources.table_advice import unused_columns
from graftline.data.sources.table_checks import used
from graftline.data.sources.table_rows import (
    cell_text,
    class_names,
    columns_named,
    holds_bytes,
    label_name,
    near_names,
    some,
)
from graftline.data.sources.tar import split_by_name
from graftline.errors import ConfigurationError, DataError, StoreError
from graftline.storage.base import Store
from graftline.storage.ranged_file import RangedFile

BATCH_ROWS = 32


def open_parquet(
    store: Store, names: str | Sequence[str], columns: Columns, reading: Reading
) -> Source:
    """Parquet files as a source: of paths like any table, or of the images themselves."""
    first = names if isinstance(names, str) else names[0]
    schema = _schema(store, first)
    if holds_bytes(schema, columns.image):
        return ParquetSource(store, names, columns, reading)
    others = [name for name in schema.names if holds_bytes(schema, name)]
    if others and columns.image not in schema.names:
        raise ConfigurationError(
            f"The table {store.uri}/{first} has no column {columns.image!r}",
            why=f"its columns are {', '.join(clip(name) for name in schema.names[:20])}",
            fix=f"Set `data.image_column: {clip(others[0])}`, which holds images.",
        )
    one = isinstance(names, str) or len(names) == 1
    return TableSource(
        store, first if one else names, columns, reading, whole=not isinstance(names, str)
    )


class ParquetSource(Source):
    """Parquet files with the bytes of the images.

    Args:
        store: Their folder.
        names: The key of one, or of several.
        columns: What the columns are called.
        reading: What the user fixed.
    """

    format = "table"

    def __init__(
        self, store: Store, names: str | Sequence[str], columns: Columns, reading: Reading
    ) -> None:
        super().__init__()
        self.store = store
        self.names = [names] if isinstance(names, str) else list(names)
        self.one = isinstance(names, str)
        self.columns = columns
        self.choices = reading
        self.uri = f"{store.uri}/{names}" if isinstance(names, str) else store.uri

    @override
    def entries(self) -> list[Entry]:
        entries = []
        for info in listing(self.store):
            archive = info.key in self.names
            if not archive and self.one:
                continue
            problem = None
            if excluded(info.key, self.choices.exclude):
                archive, problem = False, EXCLUDED
            elif not archive:
                hidden = info.key.startswith(".") or "/." in info.key
                problem = "hidden file" if hidden else "not in the table"
            entries.append(
                Entry(info.key, info.version, info.size, problem=problem, archive=archive)
            )
        schemas = {one.path: _schema(self.store, one.path) for one in entries if one.archive}
        for name, schema in schemas.items():
            self._check(schema, name)
        self._check_class_names(schemas)
        for schema in schemas.values():
            note = unused_columns(schema.names, used(self.columns))
            self.notes += [note] if note and note not in self.notes else []
        return split_by_name(self, entries, self.columns)

    def _check_class_names(self, schemas: Mapping[str, Any]) -> None:
        """Refuse files of which some name the class numbers, and others do not or differently."""
        import pyarrow as pa

        named: dict[tuple[str, ...], str] = {}
        for file, schema in schemas.items():
            if pa.types.is_integer(schema.field(self.columns.label).type):
                names = class_names(schema).get(self.columns.label, [])
                named.setdefault(tuple(names), file)
        if len(named) > 1:
            (first, file), (second, other) = list(named.items())[:2]
            one, two = some(first) or "without names", some(second) or "without names"
            raise DataError(
                f"The Parquet files of {self.uri} name the classes differently",
                why=f"the class numbers of {clip(file)} are {one}, those of {clip(other)} {two}",
                fix="Write all files with the same ClassLabel names, or with the names as text.",
            )

    def _check(self, schema: Any, name: str) -> None:
        columns = self.columns
        wanted = columns.wanted()
        missing = [column for column in wanted if column not in schema.names]
        near = [n for column in missing for n in near_names(column, schema.names)]
        others = [name for name in schema.names if name not in wanted and is_split_column(name)]
        if not missing and columns.split and columns.split not in schema.names:
            missing, near = [columns.split] if others else [], others
        if missing:
            raise ConfigurationError(
                f"The table {self.store.uri}/{name} has no {columns_named(missing)}",
                why=f"its columns are {', '.join(clip(n) for n in schema.names[:20])}",
                fix="Name the columns in the run file: data.image_column, data.label_column, "
                "data.split_column, data.group_column, data.attributes."
                + (f" Is {clip(near[0])!r} meant?" if near else "")
                + " `data.split_column: null` has the splits chosen." * bool(others),
            )

    @override
    def read(self, entry: Entry) -> bytes:
        raise TypeError(f"{entry.path} is read by unpack()")

    @override
    def unpack(self, entry: Entry, max_bytes: int) -> Iterator[tuple[Entry, bytes]]:
        import pyarrow as pa
        import pyarrow.parquet as pq

        with tempfile.TemporaryDirectory(prefix="graftline-") as folder:
            path = Path(folder) / "table.parquet"
            self.store.download(entry.path, path)
            number = 0
            try:
                file = pq.ParquetFile(path)
                names = class_names(file.schema_arrow)
                wanted = [n for n in self._columns() if n in file.schema_arrow.names]
                for batch in file.iter_batches(BATCH_ROWS, columns=wanted):
                    for row in batch.to_pylist():
                        number += 1
                        yield self._member(entry, number, row, names, max_bytes)
            except (OSError, UnicodeDecodeError, pa.ArrowException) as error:
                reason = f"damaged table: {clip(str(error).partition(chr(10))[0])}"
                broken = dataclasses.replace(entry, path=f"{entry.path}#", archive=False)
                yield dataclasses.replace(broken, split=None, problem=reason), b""

    def _columns(self) -> list[str]:
        columns = self.columns
        named = [columns.image, columns.label, columns.split, columns.group, *columns.attributes]
        return list(dict.fromkeys(name for name in named if name))

    def _member(
        self,
        archive: Entry,
        number: int,
        row: Mapping[str, Any],
        names: Mapping[str, list[str]],
        max_bytes: int,
    ) -> tuple[Entry, bytes]:
        columns = self.columns
        text = {n: cell_text(label_name(v, names.get(n))) for n, v in row.items()}
        data, problem = self._image(archive, row[columns.image])
        label = text[columns.label] or None
        if text[columns.label] is None:
            problem = problem or f"{clip(columns.label)} is no single label"
        elif not clean_text(label or ""):
            problem = problem or NO_LABEL
        if len(data) > max_bytes:
            data, problem = b"", f"larger than {max_bytes:,} bytes"
        stated = clean_text((text.get(columns.split) if columns.split else "") or "").lower()
        split = stated_splits([stated]).get(stated) if stated else archive.split
        if split is None and stated:
            problem = problem or f"unknown split {clip(stated)!r}"
        group = clean_text(text.get(columns.group) or "") if columns.group else ""
        entry = Entry(
            f"{archive.path}#{number:08}",
            archive.version,
            len(data),
            label,
            split,
            group or None,
            {name: text.get(name) or None for name in columns.attributes} or NO_ATTRIBUTES,
            problem,
        )
        return entry, data

    def _image(self, archive: Entry, value: Any) -> tuple[bytes, str | None]:
        """The bytes of an image, from the row or from the path that it names."""
        path = value.get("path") if isinstance(value, dict) else None
        data = value.get("bytes") if isinstance(value, dict) else value
        if isinstance(data, bytes):
            return data, None
        if not path:
            return b"", "no image in the row"
        key = posixpath.normpath(posixpath.join(posixpath.dirname(archive.path), str(path)))
        try:
            return self.store.read(key), None
        except StoreError:
            return b"", "file not found"


def _schema(store: Store, name: str) -> Any:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        return pq.read_schema(pa.PythonFile(RangedFile(store, name), mode="r"))
    except (OSError, UnicodeDecodeError, pa.ArrowException) as error:
        raise DataError(
            f"{store.uri}/{name} is not a readable Parquet file",
            why=clip(str(error).partition("\n")[0]),
            fix="Write it again, or correct `data.source`.",
        ) from error

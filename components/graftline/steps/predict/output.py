"""The table of answers: CSV or Parquet, here or in a store, there whole or not at all."""

import csv
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol

import pyarrow as pa
import pyarrow.parquet as pq

from graftline.errors import ConfigurationError
from graftline.files import os_errors, replacing
from graftline.onnx_model.bulk import Answer
from graftline.storage import open_store
from graftline.storage.uri import local_path, parent_and_name

ENDINGS = (".csv", ".parquet")
ROW_GROUP = 16384  # rows; bounds the memory of a Parquet file that is being written


class Table(Protocol):
    """Takes the answers, some at a time."""

    def write(self, answers: Sequence[Answer]) -> None:
        """Append rows."""


def check_output(uri: str) -> None:
    """Refuse a name from which the format cannot be told.

    Raises:
        ConfigurationError: It ends in neither ``.csv`` nor ``.parquet``.
    """
    if not uri.lower().endswith(ENDINGS):
        raise ConfigurationError(
            f"{uri} ends in neither .csv nor .parquet.", fix="Name a file such as answers.csv."
        )


@contextmanager
def open_table(
    uri: str, classes: Sequence[str], top: int, *, probabilities: bool
) -> Iterator[Table]:
    """A table to write to; it appears under its name when all is written.

    Args:
        uri: A path or an ``s3://`` URI that ends in ``.csv`` or ``.parquet``.
        classes: The model's.
        top: How many classes are named for each image.
        probabilities: Whether each class has a column.

    Raises:
        ConfigurationError: Another ending.
        StoreError: It cannot be written.
    """
    check_output(uri)
    schema = _schema(classes, top, probabilities=probabilities)
    path = local_path(uri)
    if path is not None:
        with (
            os_errors(uri, "write"),
            replacing(path) as temporary,
            _opened(temporary, uri, schema, classes) as table,
        ):
            yield table
        return
    folder, name = parent_and_name(uri)
    store = open_store(folder)
    store.check_writable()
    with tempfile.TemporaryDirectory(prefix="graftline-predict-") as scratch:
        written = Path(scratch) / "table"
        with _opened(written, uri, schema, classes) as table:
            yield table
        store.upload(written, name)


def _schema(classes: Sequence[str], top: int, *, probabilities: bool) -> pa.Schema:
    fields = [("image", pa.string()), ("label", pa.string()), ("probability", pa.float32())]
    for rank in range(2, min(top, len(classes)) + 1):
        fields += [(f"label_{rank}", pa.string()), (f"probability_{rank}", pa.float32())]
    fields += [("distance", pa.float32()), ("unlike_training_images", pa.bool_())]
    if probabilities:
        fields += [(f"p({name})", pa.float32()) for name in classes]
    return pa.schema([*fields, ("warning", pa.string()), ("error", pa.string())])


@contextmanager
def _opened(path: Path, uri: str, schema: pa.Schema, classes: Sequence[str]) -> Iterator[Table]:
    if uri.lower().endswith(".parquet"):
        with pq.ParquetWriter(path, schema) as writer:
            table = _Parquet(writer, schema, classes)
            yield table
            table.flush()
        return
    with path.open("w", encoding="utf-8", newline="") as stream:
        yield _Csv(stream, schema, classes)


class _Csv:
    def __init__(self, stream: Any, schema: pa.Schema, classes: Sequence[str]) -> None:
        self._writer = csv.DictWriter(stream, schema.names, lineterminator="\n")
        self._writer.writeheader()
        self._schema, self._classes = schema, classes

    def write(self, answers: Sequence[Answer]) -> None:
        for answer in answers:
            row = _row(answer, self._schema, self._classes)
            self._writer.writerow({name: _cell(value) for name, value in row.items()})


class _Parquet:
    def __init__(self, writer: Any, schema: pa.Schema, classes: Sequence[str]) -> None:
        self._writer, self._schema, self._classes = writer, schema, classes
        self._rows: list[Mapping[str, Any]] = []

    def write(self, answers: Sequence[Answer]) -> None:
        self._rows += [_row(answer, self._schema, self._classes) for answer in answers]
        if len(self._rows) >= ROW_GROUP:
            self.flush()

    def flush(self) -> None:
        self._writer.write_table(pa.Table.from_pylist(self._rows, self._schema))
        self._rows = []


def _as_text(text: str | None) -> str | None:
    """A name as UTF-8 has it; bytes of an old file system's name, which are no text, escaped."""
    return None if text is None else text.encode("utf-8", "backslashreplace").decode("utf-8")


def _row(answer: Answer, schema: pa.Schema, classes: Sequence[str]) -> dict[str, Any]:
    row: dict[str, Any] = dict.fromkeys(schema.names)
    texts = {"image": answer.image, "warning": answer.warning, "error": answer.error}
    row.update({key: _as_text(text) for key, text in texts.items()})
    if answer.probabilities is None:
        return row
    for rank, (label, probability) in enumerate(answer.top, 1):
        mark = "" if rank == 1 else f"_{rank}"
        row[f"label{mark}"], row[f"probability{mark}"] = label, probability
    row["distance"] = answer.distance
    row["unlike_training_images"] = None if answer.known is None else not answer.known
    for name, value in zip(classes, answer.probabilities, strict=True):
        if f"p({name})" in row:
            row[f"p({name})"] = float(value)
    return row


def _cell(value: Any) -> Any:
    if isinstance(value, bool):
        return str(value).lower()
    return f"{value:.6g}" if isinstance(value, float) else value

"""Rows of a table of images: CSV, JSON lines or Parquet, all as cells of text by column."""

import codecs
import csv
import dataclasses
import io
import json
import math
import re
from collections.abc import Collection, Mapping, Sequence
from typing import Any

from graftline.data.sources.label_text import clean_text, clip
from graftline.data.sources.split_names import stated_splits
from graftline.errors import DataError

JSON_ENDINGS = (".jsonl", ".ndjson")
PARQUET = ".parquet"
SHOWN = 5
_NOTHING_ODD: Mapping[str, str] = {}  # one for all rows
CELL_CHARACTERS = 2**26  # a picture as a data: URI is one cell; the module's own limit is 131,072


@dataclasses.dataclass(frozen=True, slots=True)
class Row:
    """One row of a table.

    Attributes:
        line: The line it ends on; in a Parquet file its number, from 1.
        cells: Texts by column.
        surplus: How many cells there are too many.
        odd: What is in a column in place of a text, such as a list.
        problem: Why the row cannot be read at all.
    """

    line: int
    cells: dict[str, str]
    surplus: int = 0
    odd: Mapping[str, str] = dataclasses.field(default_factory=lambda: _NOTHING_ODD)
    problem: str | None = None


def read_rows(data: bytes, uri: str) -> tuple[list[str], list[Row]]:
    """The names of the columns, and the rows.

    Args:
        data: The file.
        uri: Its name, whose ending says which kind it is.

    Raises:
        DataError: It is not of that kind; the message has the line.
    """
    kind = uri.lower()
    if kind.endswith(PARQUET):
        return _parquet_rows(data, uri)
    text = _text(data, uri)
    return _json_rows(text) if kind.endswith(JSON_ENDINGS) else _csv_rows(text, uri)


def _text(data: bytes, uri: str) -> str:
    wide = data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
    try:
        return data.decode("utf-16" if wide else "utf-8-sig")
    except UnicodeDecodeError as error:
        raise DataError(
            f"The table {uri} is not UTF-8 text",
            why=f"line {data[: error.start].count(10) + 1}: {error.reason} "
            f"(byte {error.object[error.start]:#04x})",
            fix="Save it as UTF-8; a spreadsheet calls that 'CSV UTF-8'.",
        ) from error


def _csv_rows(text: str, uri: str) -> tuple[list[str], list[Row]]:
    skipped, first, delimiter = _before_header(text)
    lines = text.count("\n", 0, skipped)
    csv.field_size_limit(CELL_CHARACTERS)
    rest = io.StringIO(text[skipped:], newline="")
    reader = csv.reader(rest, delimiter=delimiter or max(",;\t|", key=first.count), strict=True)
    try:
        header = [clean_text(name) for name in next(reader, [])]
        rows = [
            Row(
                lines + reader.line_num,
                dict(zip(header, (cell.strip() for cell in cells), strict=False)),
                len(cells) - len(header),
            )
            for cells in reader
            if any(cell.strip() for cell in cells)
        ]
    except csv.Error as error:
        raise DataError(
            f"The table {uri} cannot be read",
            why=f"line {lines + reader.line_num}: {error}",
            fix="Fix the quotation marks on that line, or export the table as CSV again.",
        ) from error
    return header, rows


def numbered_rows(data: bytes, uri: str) -> tuple[list[str], list[Row]]:
    """The rows of a text without names of columns: these are called "1", "2" and so on.

    Columns are apart by a delimiter, else by blanks; then the last one may hold blanks itself.

    Args:
        data: The file.
        uri: Its name, for the error.

    Raises:
        DataError: It is no UTF-8 text.
    """
    lines = enumerate(_text(data, uri).splitlines(), 1)
    kept = [(n, line.strip()) for n, line in lines if line.strip() and line.strip()[0] != "#"]
    if not kept:
        return [], []
    delimiter = max(",;\t|", key=kept[0][1].count)
    if delimiter in kept[0][1]:
        csv.field_size_limit(CELL_CHARACTERS)
        found = [next(csv.reader([line], delimiter=delimiter)) for _, line in kept]
    else:
        found = columns_by_blanks([line for _, line in kept])
        kept = kept[len(kept) - len(found) :]
    header = [str(number) for number in range(1, max(map(len, found)) + 1)]
    return header, [
        Row(number, dict(zip(header, (cell.strip() for cell in cells), strict=False)))
        for (number, _), cells in zip(kept, found, strict=True)
    ]


def columns_by_blanks(lines: Sequence[str]) -> list[list[str]]:
    """The columns of lines without a delimiter; what follows the first may be a name with blanks.

    Only numbers and names of splits are columns of their own there: `1.jpg 37 2`, not
    `1.jpg golden eagle`.
    """
    lines = lines[_leading(lines) :]
    words = [line.split() for line in lines]
    fewest = min(map(len, words))
    further = [{clean_text(one[at]) for one in words} for at in range(2, fewest)]
    plain = all(
        all(re.fullmatch(r"-?\d+(\.\d+)?", value) for value in values)
        or len(stated_splits(values)) == len(values)
        for values in further
    )
    most = fewest - 1 if plain else 1
    return [line.split(None, most) for line in lines]


def _leading(lines: Sequence[str]) -> int:
    """How many lines at the start have fewer columns than all others: a count, names (CelebA)."""
    counts = [len(line.split()) for line in lines]
    most = min(2, len(lines) - 1)
    return max(range(most + 1), key=lambda start: (min(counts[start:]), -start))


def _before_header(text: str) -> tuple[int, str, str | None]:
    """How many characters stand before the columns' names, that line, and the delimiter if said.

    Programs write empty lines and comments first; Excel's `sep=;` names the delimiter, which else
    depends on the country.
    """
    start, delimiter = 0, None
    for line in io.StringIO(text, newline=""):
        bare = line.strip()
        said = re.fullmatch(r"(?i)\"?sep=(.)\"?", bare)
        if said:
            delimiter = said[1]
        elif bare and not (bare.startswith("#") and not re.search(r"[,;\t|]", bare)):
            return start, line, delimiter
        start += len(line)
    return 0, "", None


def some(names: Sequence[str]) -> str:
    """The first of some names in quotes, and how many more there are."""
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return ", ".join(repr(clip(name)) for name in names[:SHOWN]) + more


def columns_named(names: Sequence[str]) -> str:
    """``column 'image'``, or ``columns 'image' and 'label'``."""
    shown = [repr(clip(name)) for name in names]
    return (
        f"column {shown[0]}"
        if len(shown) == 1
        else f"columns {', '.join(shown[:-1])} and {shown[-1]}"
    )


def _json_rows(text: str) -> tuple[list[str], list[Row]]:
    header: dict[str, None] = {}
    rows = []
    for number, line in enumerate(text.split("\n"), 1):
        if not line.strip():
            continue
        try:
            values = json.loads(line)
        except (ValueError, RecursionError):
            values = None
        if isinstance(values, dict):
            values = {clean_text(str(name)): value for name, value in values.items()}
            header.update(dict.fromkeys(values))
            rows.append(json_row(number, values))
        else:
            rows.append(Row(number, {}, problem="not a JSON object"))
    return list(header), rows


def json_row(number: int, values: Mapping[str, Any]) -> Row:
    """A row from values by column, as JSON and Parquet have them."""
    cells, odd = {}, {}
    for name, value in values.items():
        if isinstance(value, dict) and isinstance(value.get("path"), str):
            value = value["path"]  # an image as the `datasets` library writes it
        text = cell_text(value)
        cells[name] = text or ""
        if text is None:
            odd[name] = "a list" if isinstance(value, list) else "an object"
    return Row(number, cells, odd=odd or _NOTHING_ODD)


def cell_text(value: object) -> str | None:
    """A value as text; empty for nothing, None for what is no single value."""
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return ""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):
        return value.strip()
    if isinstance(value, list | tuple | dict | bytes | set):
        return None
    return str(value).strip()


def _parquet_rows(data: bytes, uri: str) -> tuple[list[str], list[Row]]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        table = pq.read_table(pa.BufferReader(data))
        header = [clean_text(name) for name in table.column_names]
        names = class_names(table.schema)
        columns = [
            _named(column.to_pylist(), names.get(name))
            for name, column in zip(table.column_names, table.columns, strict=True)
        ]
    except (OSError, UnicodeDecodeError, pa.ArrowException) as error:
        raise DataError(
            f"The table {uri} is not a readable Parquet file",
            why=clip(str(error).partition("\n")[0]),
            fix="Write it again, or correct `data.source`.",
        ) from error
    rows = [
        json_row(number, dict(zip(header, values, strict=True)))
        for number, values in enumerate(zip(*columns, strict=True), 1)
    ]
    return header, rows


def _named(values: list[Any], names: list[str] | None) -> list[Any]:
    return values if names is None else [label_name(value, names) for value in values]


def label_name(value: Any, names: list[str] | None) -> Any:
    """The name of a class number; -1 is the `datasets` library's "no label"."""
    if names is None or not isinstance(value, int) or isinstance(value, bool):
        return value
    if value == -1:
        return None
    return names[value] if 0 <= value < len(names) else [value]


def class_names(schema: Any) -> dict[str, list[str]]:
    """Names of classes by column, from what the `datasets` library keeps in a Parquet schema."""
    try:
        kept = json.loads((schema.metadata or {}).get(b"huggingface", b"{}"))
        features = kept["info"]["features"]
        return {
            name: [str(label) for label in feature["names"]]
            for name, feature in features.items()
            if isinstance(feature, dict) and feature.get("_type") == "ClassLabel"
        }
    except (ValueError, KeyError, TypeError, AttributeError):
        return {}


def holds_bytes(schema: Any, image: str) -> bool:
    """Whether a column of a Parquet schema holds the images themselves."""
    import pyarrow as pa

    index = schema.get_field_index(image)
    if index < 0:
        return False
    kind = schema.field(index).type
    if pa.types.is_struct(kind):
        return bool(kind.get_field_index("bytes") >= 0)
    return bool(pa.types.is_binary(kind) or pa.types.is_large_binary(kind))


def near_names(wanted: str, header: Collection[str]) -> list[str]:
    """Columns whose names look like the wanted one."""
    import difflib

    folded = {name.casefold().replace("_", "").replace(" ", ""): name for name in header}
    close = difflib.get_close_matches(wanted.casefold().replace("_", ""), folded, 3, 0.75)
    return [folded[name] for name in close]

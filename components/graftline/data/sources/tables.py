"""Which tables of a folder are the source, and how they are opened."""

import re
from typing import TYPE_CHECKING

from graftline.data.sources.choice import refuse_class_folders, table_describes
from graftline.data.sources.folders import FolderSource
from graftline.data.sources.layouts.layout import exclude_line
from graftline.data.sources.parquet import open_parquet
from graftline.data.sources.split_names import splits_of
from graftline.data.sources.table import TableSource
from graftline.data.sources.table_advice import labels_of
from graftline.data.sources.table_rows import some
from graftline.errors import DataError
from graftline.storage import open_store
from graftline.storage.base import Store
from graftline.storage.local import FileStore

if TYPE_CHECKING:
    pass
from graftline.data.sources.base import (
    PARQUET,
    ROWS,
    Columns,
    Reading,
    Source,
    hidden,
    listing,
    numbered,
    out,
    renamed_columns,
)


def _is_folder(text: str) -> bool:
    """Whether a name that ends like a table's or a shard's is a folder on this machine."""
    store = open_store(text)
    return isinstance(store, FileStore) and store.root.is_dir()


def _one_table(store: Store, name: str, columns: Columns, reading: Reading) -> Source:
    if name.lower().endswith(PARQUET):
        return open_parquet(store, name, columns, reading)
    return TableSource(store, name, columns, reading)


def _tables(store: Store, tables: list[str], columns: Columns, reading: Reading) -> Source:
    """The tables of a folder as one source: one of them, or one for each split."""
    tables = without_forms(tables)[0] or tables
    parquet = [name for name in tables if name.lower().endswith(PARQUET)]
    if not tables:
        parquet = tables = _parquet_below(store, reading)
    if parquet and len(parquet) == len(tables):
        return open_parquet(store, parquet, columns, reading)
    one_each = len(tables) > 1 and set(splits_of(tables)) == set(tables) and not parquet
    if len(tables) != 1 and not one_each:
        if not tables:
            raise DataError(
                f"{store.uri} holds 0 CSV tables and no Parquet file, and `data.format` is table",
                fix="Let `data.source` name the table, or the folder that it is in.",
            )
        raise DataError(
            f"{store.uri} holds {len(tables)} CSV tables, and `data.format` is table",
            fix="Let `data.source` name the CSV file itself, or leave the others out: "
            f"`{exclude_line(tables[1:])}`.",
        )
    return TableSource(store, tables if one_each else tables[0], columns, reading, whole=True)


def _parquet_below(store: Store, reading: Reading) -> list[str]:
    """The Parquet files in all folders, for a source that is said to be tables."""
    keys = (info.key for info in listing(store))
    return [
        k for k in keys if k.lower().endswith(PARQUET) and not hidden(k) and not out(k, reading)
    ]


def _with_labels(store: Store, tables: list[str], columns: Columns) -> tuple[list[str], list[str]]:
    """The tables that have the columns, and those without: test.csv of a competition."""
    lacking = [name for name in tables if TableSource(store, name, columns).why_not() is not None]
    return [name for name in tables if name not in lacking], lacking


def without_forms(tables: list[str]) -> tuple[list[str], list[str]]:
    """The tables, and the forms for answers: what sample_submission.csv says is made up.

    Args:
        tables: Names of tables in one folder.
    """
    forms = [name for name in tables if _FORM.search(name)]
    return [name for name in tables if name not in forms], forms


_FORM = re.compile(r"(?i)submission(?![a-z])")


def _said_of_forms(forms: list[str]) -> str:
    return f"Not read, a form for answers: {some(forms)}. `data.source` can name it."


def _table_or_folders(
    store: Store, tables: list[str], columns: Columns, folders: FolderSource
) -> Source:
    """Which of both describes the images, where a table stands beside folders."""
    lacking: list[str] = []
    tables, forms = without_forms(tables)
    if forms:
        folders.notes.append(_said_of_forms(forms))
        folders.listed.update(forms)
    if not tables:
        return folders
    if len(tables) > 1 and not all(name.lower().endswith(PARQUET) for name in tables):
        usable, lacking = _with_labels(store, tables, columns)
        tables, lacking = (usable, lacking) if usable else (tables, [])
    try:
        table = _tables(store, tables, columns, folders.choices)
    except DataError as error:
        folders.notes.append(f"Read as folders: {error.what.partition(', and')[0]}.")
        folders.unread += [
            TableSource(store, name, columns, folders.choices)
            for name in [*tables, *lacking]
            if name.lower().endswith(ROWS)
        ]
        return folders
    if not isinstance(table, TableSource):
        refuse_class_folders(folders, tables, "table")
        return table
    why_not = table.why_not()
    if why_not is not None:
        if renamed_columns(columns) and not numbered(columns):
            table.entries()  # the user speaks of a table's columns: its error is the answer
        folders.notes.append(f"Read as class folders. {why_not}.")
        folders.unread.append(table)
        return folders
    if not table_describes(table, folders):
        return folders
    if len(table.names) > 1:
        table.notes.append(labels_of(table.names))
    if forms:
        table.notes.append(_said_of_forms(forms))
        table.listed |= frozenset(forms)
    if lacking:
        table.notes.append(f"Not read, without a column of images or of labels: {some(lacking)}.")
        table.listed |= frozenset(lacking)
    return table

"""Where the user's labelled images come from: class folders, a table, or tar shards."""

from typing import TYPE_CHECKING

from graftline.data.sources.folders import FolderSource
from graftline.data.sources.table import TableSource
from graftline.data.sources.tar import ArchiveSource
from graftline.errors import ConfigurationError, DataError
from graftline.storage import open_store
from graftline.storage.uri import parent_and_name

if TYPE_CHECKING:
    pass
from graftline.data.sources.base import ARCHIVES, FORMATS, TABLES, Columns, Source


def open_source(uri: str, format: str = "auto", columns: Columns | None = None) -> Source:  # noqa: A002
    """Open a source of labelled images.

    Args:
        uri: A folder, ``file://`` or ``s3://`` URI; for a table, of the CSV file itself or of the
            folder that holds it.
        format: ``folders``, ``table``, ``shards``, or ``auto`` to look.
        columns: What a table's columns are called.

    Raises:
        ConfigurationError: An unknown format.
        StoreNotFound: There is nothing at that place.
    """
    columns = columns or Columns()
    if format not in FORMATS:
        raise ConfigurationError(
            f"data.format {format!r} is unknown", fix=f"Use one of {', '.join(FORMATS)}."
        )
    text = str(uri).rstrip("/")
    if text.lower().endswith((*TABLES, *ARCHIVES)):
        folder, name = parent_and_name(text)
        store = open_store(folder)
        if name.lower().endswith(TABLES):
            return TableSource(store, name, columns)
        return ArchiveSource(store, columns, name)
    store = open_store(str(uri))
    roots = store.names() if format in ("auto", "table") else []
    tables = [name for name in roots if name.lower().endswith(TABLES)]
    if format == "table" and len(tables) != 1:
        raise DataError(
            f"{store.uri} holds {len(tables)} CSV tables, and `data.format` is table",
            fix="Let `data.source` name the CSV file itself.",
        )
    if format == "table":
        return TableSource(store, tables[0], columns)
    if format == "shards":
        return ArchiveSource(store, columns)
    if format == "auto" and any(name.lower().endswith(ARCHIVES) for name in roots):
        return ArchiveSource(store, columns)
    folders = FolderSource(store)
    if format == "auto" and len(tables) == 1:
        table = TableSource(store, tables[0], columns)
        why_not = table.why_not()
        if why_not is None:
            return table
        folders.notes.append(f"Read as class folders. {why_not}")
    return folders

"""Where the user's labelled images come from: class folders, a table, or tar shards."""

from typing import TYPE_CHECKING

from graftline.data.sources.choice import refuse_class_folders
from graftline.data.sources.described import DescribedFolders
from graftline.data.sources.folders import FolderSource
from graftline.data.sources.label_choice import label_table
from graftline.data.sources.label_files import OBJECTS
from graftline.data.sources.layouts.layout import excluded, parse
from graftline.data.sources.names import NameSource
from graftline.data.sources.split_list_files import LISTS
from graftline.data.sources.tar import ArchiveSource
from graftline.errors import ConfigurationError, DataError
from graftline.storage import open_store
from graftline.storage.base import Store
from graftline.storage.uri import parent_and_name
from graftline.storage.zip_archive import ZIP, ZipStore

if TYPE_CHECKING:
    pass
from graftline.data.sources.base import (
    ARCHIVES,
    FORMATS,
    MACOS,
    TABLES,
    Columns,
    Reading,
    Source,
    hidden,
)
from graftline.data.sources.tables import _is_folder, _one_table, _table_or_folders, _tables


def open_source(
    uri: str,
    format: str = "auto",  # noqa: A002
    columns: Columns | None = None,
    reading: Reading | None = None,
) -> Source:
    """Open a source of labelled images.

    Args:
        uri: A folder, ``file://`` or ``s3://`` URI; for a table, of the table itself or of the
            folder that holds it.
        format: ``folders``, ``table``, ``shards``, or ``auto`` to look.
        columns: What a table's columns are called.
        reading: What the user fixes of how it is read.

    Raises:
        ConfigurationError: An unknown format.
        DataError: A table and class folders describe the images differently.
        StoreNotFound: There is nothing at that place.
    """
    columns, reading = columns or Columns(), reading or Reading()
    parse(reading.layout)
    if format not in FORMATS:
        raise ConfigurationError(
            f"data.format {format!r} is unknown", fix=f"Use one of {', '.join(FORMATS)}."
        )
    text = str(uri).rstrip("/")
    archive, inside = _in_archive(text)
    if inside:
        folder, name = parent_and_name(archive)
        return _of_folder(
            ZipStore(open_store(folder), name).child(inside), format, columns, reading
        )
    if text.lower().endswith((*TABLES, *ARCHIVES, *LISTS, *OBJECTS, ZIP)) and not _is_folder(text):
        return _of_file(text, format, columns, reading)
    return _of_folder(open_store(str(uri)), format, columns, reading)


def _in_archive(text: str) -> tuple[str, str]:
    """The archive and the folder in it, of `pets.zip/train`; that is empty for other names."""
    archive, mark, inside = text.partition(f"{ZIP}/")
    archive += ZIP
    return (archive, inside) if mark and not _is_folder(archive) else (text, "")


def _of_file(text: str, form: str, columns: Columns, reading: Reading) -> Source:
    """One file: a table, an archive, or a text or JSON that states labels."""
    folder, name = parent_and_name(text)
    store = open_store(folder)
    if name.lower().endswith(ZIP):
        return _of_folder(_inside(ZipStore(store, name), reading), form, columns, reading)
    if name.lower().endswith(TABLES):
        return _one_table(store, name, columns, reading)
    if name.lower().endswith(ARCHIVES):
        return ArchiveSource(store, columns, name, reading)
    store.size(name)  # one that is not there is another error
    labels = label_table(FolderSource(store, reading), columns, name)
    if labels is None:
        raise DataError(
            f"{text} states no labels of images beside it",
            why="a line names a path and a label, or a JSON says them in a form known here",
            fix="Correct the paths in it, which are relative to its folder, or let `data.source` "
            "name a folder of images, or a table.",
        )
    return labels


def _inside(store: Store, reading: Reading) -> Store:
    """The one folder of an archive that holds all, where a table or a text stands in it.

    Class folders are found below others anyway; a table is looked for where the source begins.
    """
    keys = [one.key for one in store.list() if not hidden(one.key)]
    tops = {key.partition("/")[0] for key in keys} - {MACOS}
    if parse(reading.layout) is not None or len(tops) != 1 or store.names():
        return store
    inner = store.child(tops.pop())
    said = (*TABLES, *LISTS, *OBJECTS)
    return inner if any(name.lower().endswith(said) for name in inner.names()) else store


def _of_folder(store: Store, form: str, columns: Columns, reading: Reading) -> Source:
    """A folder, by what is in it where the run file does not say."""
    if reading.label_pattern and form in ("auto", "folders"):
        return NameSource(store, reading, columns)
    roots = store.names() if form in ("auto", "table") else []
    roots = [name for name in roots if not excluded(name, reading.exclude)]
    tables = [name for name in roots if name.lower().endswith(TABLES)]
    if form == "table":
        if not tables and (labels := label_table(FolderSource(store, reading), columns)):
            return labels
        return _tables(store, tables, columns, reading)
    if form == "shards":
        return ArchiveSource(store, columns, reading=reading)
    if form == "auto" and any(name.lower().endswith(ARCHIVES) for name in roots):
        archives = [name for name in roots if name.lower().endswith(ARCHIVES)]
        refuse_class_folders(FolderSource(store, reading), archives, "shards")
        return ArchiveSource(store, columns, reading=reading)
    folders = DescribedFolders(store, reading, columns if form == "auto" else None)
    if form == "auto" and tables and parse(reading.layout) is None:
        return _table_or_folders(store, tables, columns, folders)
    return folders

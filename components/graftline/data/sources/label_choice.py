"""A file of labels (labels.json, labels.txt) beside folders: which of both names the classes."""

import re
from collections.abc import Collection, Mapping

from graftline.data.sources.base import Columns, hidden, listing, out
from graftline.data.sources.choice import folder_labels, table_describes
from graftline.data.sources.folders import FolderSource
from graftline.data.sources.label_files import LabelFiles, label_files
from graftline.data.sources.label_text import clean_text, clip
from graftline.data.sources.layouts.layout import exclude_line
from graftline.data.sources.split_names import splits_of
from graftline.data.sources.table_rows import some
from graftline.errors import DataError


def repeats_folders(table: LabelFiles, folders: FolderSource) -> bool:
    """Whether a file says of its images what their folders say, under the same names or others."""
    if table.why_not() is not None:
        return False
    labels, said = folder_labels(folders), _said(table)
    if not said.keys() <= labels.keys():
        return False
    pairs = {(str(labels[path]), label) for path, label in said.items()}
    ours, theirs = ({pair[side] for pair in pairs} for side in (0, 1))
    one_each = len(ours) == len(theirs) == len(pairs) > 1
    same = all(one == other for one, other in pairs) or ours.isdisjoint(theirs)
    if one_each and same:
        folders.notes.append(f"{some(table.names)} says of the images what their folders say.")
    return one_each and same


def one_label_file(tables: Mapping[str, LabelFiles], folders: FolderSource) -> LabelFiles:
    """The only file, or those of the splits and folders as one: no image is in two of them.

    Raises:
        DataError: There are several.
    """
    names = sorted(tables)
    if len(names) > 1 and not _apart(tables.values()):
        first = _without_split(names[0])
        others = [n for n in names if _without_split(n) != first] or names[1:]
        raise DataError(
            f"{folders.uri} holds {len(names)} files that may state the labels: {some(names)}",
            why="several name the same images, and may label them differently",
            fix=f"Leave those out that are not meant, for instance `{exclude_line(others)}`.",
        )
    one = tables[names[0]]
    rows = {name: table.rows(name) for name, table in tables.items()}
    return LabelFiles(one.store, rows, one.columns, one.choices)


def _apart(tables: Collection[LabelFiles]) -> bool:
    """Whether no image is in two of the files."""
    if any(table.why_not() is not None for table in tables):
        return False
    named = [path for table in tables for path in _said(table)]
    return len(set(named)) == len(named)


def _without_split(name: str) -> str:
    """A file's name without the split that it is for: images_family of images_family_test.txt."""
    words = re.findall(r"[^\W_]+", name.rpartition(".")[0])
    return " ".join(word for word in words if not splits_of([word]))


def label_file_describes(table: LabelFiles, folders: FolderSource) -> bool:
    """Whether the file is to be read rather than the folders.

    Raises:
        DataError: Both can be read, and they say different things.
    """
    labels = folder_labels(folders)
    said = _said(table)
    if len(set(said.values())) < 2 <= len(set(labels.values())):
        return False  # where images are from, how large they are
    both = [path for path in said if labels.get(path) is not None]
    if len(set(labels.values())) > 1 and both:
        odd = next((path for path in both if labels[path] != said[path]), both[0])
        raise DataError(
            f"{folders.uri} can be read in two ways",
            why=f"{some(table.names)} gives labels to {len(said):,} images, as {clip(said[odd])!r} "
            f"to {clip(odd)}, and the folders name other classes",
            fix="Select one in the run file: `data.format: table` takes what the file says; "
            "`data.format: folders` takes the folders and ignores the file.",
        )
    return table_describes(table, folders)


def label_table(folders: FolderSource, columns: Columns) -> LabelFiles | None:
    """The file of labels in a folder that the run file calls a table; None without one."""
    found = [
        one
        for one in listing(folders.store)
        if not hidden(one.key) and not out(one.key, folders.choices)
    ]
    read, _ = label_files(folders.store, found, columns)
    if not read:
        return None
    store, choices = folders.store, folders.choices
    tables = {n: LabelFiles(store, {n: rows}, columns, choices) for n, rows in read.items()}
    return one_label_file(tables, folders)


def _said(table: LabelFiles) -> dict[str, str]:
    """The label of each image that the file names."""
    entries = table.entries()
    table.notes.clear()
    table.warnings.clear()
    return {one.path: clean_text(str(one.label)) for one in entries if one.problem is None}

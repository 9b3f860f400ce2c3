"""A file of labels (labels.json, labels.txt) beside folders: which of both names the classes."""

import dataclasses
import re
from collections.abc import Mapping

from graftline.data.sources.base import Columns, hidden, listing, out, suffixed
from graftline.data.sources.choice import folder_labels, table_describes
from graftline.data.sources.folders import FolderSource
from graftline.data.sources.label_files import LabelFiles, Rows, label_files
from graftline.data.sources.label_text import clean_text, clip
from graftline.data.sources.layouts.layout import exclude_line
from graftline.data.sources.split_names import splits_of
from graftline.data.sources.table_rows import some
from graftline.errors import DataError

Said = Mapping[str, str]


def labels_beside(
    folders: FolderSource, read: Mapping[str, Rows], columns: Columns
) -> tuple[LabelFiles | None, list[str]]:
    """The files that are to be read rather than the folders, and those that repeat the folders.

    Args:
        folders: The source; what is found is said there.
        read: Columns and rows of each file of labels.
        columns: What the columns are called.

    Raises:
        DataError: Files and folders say different things, or several files do.
    """
    if not read:
        return None, []
    labels = folder_labels(folders)
    tables = {
        name: LabelFiles(folders.store, {name: read[name]}, columns, folders.choices)
        for name in sorted(read)
    }
    said = {name: said_by(table) for name, table in tables.items()}
    same = [name for name, one in said.items() if one is not None and _repeats(one, labels)]
    if same:
        folders.notes.append(f"{some(same)} says of the images what their folders say.")
    said = {name: one for name, one in said.items() if name not in same}
    if not said:
        return None, same
    table = one_label_file(folders, {name: read[name] for name in said}, said, columns)
    why_not = table.why_not()
    if why_not is not None:
        folders.notes.append(f"Read as folders. {why_not}.")
        folders.unread.append(table)
        return None, same
    whole = {path: label for one in said.values() for path, label in (one or {}).items()}
    return (table if _describes(table, folders, whole, labels) else None), same


def said_by(table: LabelFiles) -> Said | None:
    """The label of each image that a file names; None where its columns are unknown."""
    if table.why_not() is not None:
        return None
    # Lists of splits may name other images than this file: they are judged when all is read.
    columns = dataclasses.replace(table.columns, split=None)
    entries = LabelFiles(table.store, table.read_rows, columns, table.choices).entries()
    return {one.path: clean_text(str(one.label)) for one in entries if one.problem is None}


def _repeats(said: Said, labels: Mapping[str, str | None]) -> bool:
    """Whether a file says of its images what their folders say, under the same names or others."""
    if not said.keys() <= labels.keys():
        return False
    pairs = {(str(labels[path]), label) for path, label in said.items()}
    ours, theirs = ({pair[side] for pair in pairs} for side in (0, 1))
    one_each = len(ours) == len(theirs) == len(pairs) > 1
    return one_each and (all(a == b for a, b in pairs) or ours.isdisjoint(theirs))


def one_label_file(
    folders: FolderSource,
    read: Mapping[str, Rows],
    said: Mapping[str, Said | None],
    columns: Columns,
) -> LabelFiles:
    """The only file, or those of the splits and folders as one: no image is in two of them.

    Raises:
        DataError: There are several.
    """
    every = sorted(read)
    names = sorted(read.keys() - _repeated(said))
    read, said = {name: read[name] for name in names}, {name: said[name] for name in names}
    paths = [path for one in said.values() for path in one or ()]
    apart = None not in said.values() and len(set(paths)) == len(paths)
    if len(names) > 1 and not apart:
        first = _without_split(names[0])
        others = [n for n in every if _without_split(n) != first] or names[1:]
        raise DataError(
            f"{folders.uri} holds {len(names)} files that may state the labels: {some(names)}",
            why="several name the same images, and may label them differently",
            fix=f"Leave those out that are not meant, for instance `{exclude_line(others)}`.",
        )
    return LabelFiles(folders.store, read, columns, folders.choices)


def _repeated(said: Mapping[str, Said | None]) -> set[str]:
    """Files of which others say all, in smaller parts: trainval.txt beside train.txt, val.txt."""
    found: set[str] = set()
    for name, one in sorted(said.items(), key=lambda pair: -len(pair[1] or ())):
        rest = [
            other.items()
            for key, other in said.items()
            if other and one and key not in found and key != name and len(other) < len(one)
        ]
        if one and rest and one.items() <= set().union(*rest):
            found.add(name)
    return found


def _without_split(name: str) -> str:
    """A file's name without the split that it is for: images_family of images_family_test.txt."""
    words = re.findall(r"[^\W_]+", name.rpartition(".")[0])
    return " ".join(word for word in words if not splits_of([word]))


def _describes(
    table: LabelFiles, folders: FolderSource, said: Said, labels: Mapping[str, str | None]
) -> bool:
    """Whether the file is to be read rather than the folders.

    Raises:
        DataError: Both can be read, and they say different things.
    """
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


def label_table(
    folders: FolderSource, columns: Columns, only: str | None = None
) -> LabelFiles | None:
    """The file of labels in a folder that the run file calls a table; None without one.

    Args:
        folders: The folder.
        columns: What the columns are called.
        only: The file's name, where `data.source` names it.
    """
    found = [
        one
        for one in listing(folders.store)
        if not hidden(one.key) and not out(one.key, folders.choices)
    ]
    if only is not None:
        found = [one for one in found if one.key == only or suffixed(one.key)]
    read, _ = label_files(folders.store, found, columns, only=only)
    if only is not None:
        read = {name: rows for name, rows in read.items() if name == only}
    if not read:
        return None
    said = {
        name: said_by(LabelFiles(folders.store, {name: rows}, columns, folders.choices))
        for name, rows in read.items()
    }
    return one_label_file(folders, read, said, columns)

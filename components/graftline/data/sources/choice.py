"""A table beside class folders: which of both describes the images."""

from collections import Counter
from collections.abc import Mapping, Sequence

from graftline.data.sources.base import MOST, Columns, Entry
from graftline.data.sources.folders import FolderSource
from graftline.data.sources.label_text import clean_text, clip
from graftline.data.sources.layouts.layout import NO_CLASS, NO_SPLIT, exclude_line
from graftline.data.sources.layouts.layout import NO_LABELS as WITHOUT
from graftline.data.sources.table import CONFLICTING, NOT_NAMED, TableSource
from graftline.data.sources.table_advice import columns_meant, few_values, label_columns
from graftline.data.sources.table_images import is_image
from graftline.data.sources.table_rows import Row, some
from graftline.data.sources.table_splits import looks_like_split
from graftline.errors import DataError, StoreError

NO_LABELS = "no column holds the names of their folders"
WITHOUT_LABEL = (NO_CLASS, NO_SPLIT, WITHOUT)


def table_describes(table: TableSource, folders: FolderSource) -> bool:
    """Whether the table is to be read rather than the folders, from what both cover.

    Raises:
        DataError: Both can be read, and they say different things.
    """
    try:
        rows = table.entries()
    except DataError:
        if not _names_the_folders(table, folders):
            raise
        folders.notes.append(
            f"{some(table.names)} labels images by names that several folders hold, with the "
            "names of the folders: the folders are read."
        )
        return False
    table.notes.clear()
    table.warnings.clear()
    rest = sum(entry.problem == NOT_NAMED for entry in rows)
    taken = {entry.path: entry for entry in rows if entry.problem is None}
    named = len(taken) + sum(entry.problem == CONFLICTING for entry in rows)
    if not rest or named >= MOST * (named + rest):
        if table.by_columns:
            _refuse_properties(table, taken, folders)
        return True
    labels = folder_labels(folders)
    if len(set(labels.values())) < 2:
        return True
    names = ", ".join(table.names)
    if (
        taken
        and labels.keys().isdisjoint(taken)
        and {e.label for e in taken.values()} <= {*labels.values()}
    ):
        folders.from_table = taken
        folders.notes.append(
            f"{names} gives {len(taken):,} images their label that are in no class folder; the "
            "labels of the others are those of their folders."
        )
        return False
    same = all(labels.get(path) == entry.label for path, entry in taken.items())
    if same and not _says_more(table, taken):
        folders.notes.append(
            f"{names} names {len(taken):,} of {len(taken) + rest:,} images, with the labels of "
            "their folders: the folders are read. `data.format: table` takes only what it names."
        )
        return False
    more = "says more of them" if same else "gives them other labels than their folders"
    raise DataError(
        f"{folders.uri} can be read in two ways",
        why=f"{names} names {len(taken):,} images and {more}; folders of classes hold "
        f"{len(labels):,} images, {rest:,} of them without a row",
        fix="Select one in the run file: `data.format: table` takes what the table names and "
        "rejects the others; `data.format: folders` takes the folders and ignores the table.",
    )


def _refuse_properties(
    table: TableSource, taken: Mapping[str, Entry], folders: FolderSource
) -> None:
    """Refuse columns of yes and no that are other than the class folders: indoor, outdoor.

    Raises:
        DataError: They may be properties of the pictures rather than the classes.
    """
    labels = set(folder_labels(folders).values())
    said = {str(entry.label) for entry in taken.values()}
    if len(labels) > 1 and not said & labels:
        raise DataError(
            f"{folders.uri} can be read in two ways",
            why=f"{some(table.names)} has columns of yes and no ({some(sorted(said))}), and the "
            f"folders name other classes ({some(sorted(map(str, labels)))})",
            fix="Select one in the run file: `data.format: table` takes the columns as classes; "
            "`data.format: folders` takes the folders and ignores the table.",
        )


def refuse_class_folders(folders: FolderSource, names: list[str], kind: str) -> None:
    """Refuse tables or shards that hold images and stand beside folders of classes.

    Args:
        folders: The source read as folders.
        names: The files that hold images.
        kind: Their ``data.format``.

    Raises:
        DataError: There are images in at least two folders of classes.
    """
    try:
        labels = folder_labels(folders)
    except StoreError:
        return
    if len(set(labels.values())) > 1:
        shown = ", ".join(map(clip, names[:3]))
        raise DataError(
            f"{folders.uri} can be read in two ways",
            why=f"{shown} may hold images, and {len(labels):,} images are in folders of "
            f"{len(set(labels.values()))} classes",
            fix=f"Select one in the run file: `data.format: {kind}` or `data.format: folders`.",
        )


def refuse_unread(folders: FolderSource, entries: list[Entry]) -> None:
    """Refuse to pass over a table that names the images and says something else than folders do.

    Raises:
        DataError: Most rows name an image, and no column holds the labels of the folders.
    """
    labels = {one.path: str(one.label) for one in entries if one.problem is None}
    unsaid = {one.path: "" for one in entries if one.problem in WITHOUT_LABEL}
    unread = [table for table in folders.unread if isinstance(table, TableSource)]
    if len(set(labels.values())) < 2:
        refuse_table_of_images(folders, [one.path for one in entries if is_image(one.path)])
        if unread:
            _refuse_table(folders.uri, unread, [one.path for one in entries])
        return
    images = [*labels, *filter(is_image, unsaid)]
    found = _by_name(images)
    for table, name in [(one, name) for one in unread for name in one.names]:
        header, rows = table.rows(name)
        for column in header:
            cells = [clean_text(row.cells.get(column, "")).replace("\\", "/") for row in rows]
            paths = [found.get(cell) or found.get(cell.rpartition("/")[2]) for cell in cells]
            named_images = [
                (labels.get(path, ""), row) for path, row in zip(paths, rows, strict=True) if path
            ]
            if len(named_images) <= len(rows) / 2 or _only_lists(named_images, header, column):
                continue
            split = next((c for c in header if looks_like_split(c, rows) is not None), None)
            if name in folders.listed:  # its splits are obeyed; its labels, if any, must agree
                if not label_columns(header, column, split) or _repeatsfolder_labels(
                    named_images, header
                ):
                    continue
                split = None
            if split is not None or not _repeatsfolder_labels(named_images, header):
                more = f"its column {clip(split)!r} looks like the split" if split else NO_LABELS
                raise DataError(
                    f"{folders.uri} can be read in two ways",
                    why=f"the column {clip(column)!r} of {clip(name)} names "
                    f"{len(named_images):,} of the images, and {more}. {table.why_not() or ''}",
                    fix="Name the columns in the run file (data.image_column, data.label_column), "
                    "or set `data.format: folders` to ignore the table. "
                    + columns_meant(header, rows, images),
                )


def refuse_table_of_images(folders: FolderSource, images: Sequence[str]) -> None:
    """Refuse folders that are no classes by the columns of a table beside them that names images.

    Raises:
        DataError: A column of it does; the columns that are meant are named.
    """
    found = _by_name(images)
    best: tuple[int, int, str, str] | None = None  # images and columns; the table, the reason
    tables = [*folders.unread, *folders.unread_below]
    by_key = {
        name: one if len(one.names) == 1 else _one(folders, name)
        for one in tables
        if isinstance(one, TableSource)
        for name in one.names
    }
    for name, table in by_key.items():
        header, rows = table.rows(name)
        above = name.rpartition("/")[0]
        for column in header:
            cells = [clean_text(row.cells.get(column, "")).replace("\\", "/") for row in rows]
            named = sum(not found.keys().isdisjoint((f"{above}/{c}", c, _name(c))) for c in cells)
            if named > len(rows) / 2 and (best is None or (named, len(header)) > best[:2]):
                reason = f"its column {clip(column)!r} names {named:,} of the images"
                best = (named, len(header), name, reason)
    if best is not None and by_key[best[2]].why_not() is not None:
        _refuse_table(folders.uri, [by_key[best[2]]], list(images), best[3])


def _one(folders: FolderSource, name: str) -> TableSource:
    return TableSource(folders.store, name, folders.columns or Columns(), folders.choices)


def _by_name(images: Sequence[str]) -> dict[str, str]:
    """Images by their path, and by their name with and without suffix where that is unique."""
    found: dict[str, str] = {}
    for cut in (_stem, _name):
        names = Counter(map(cut, images))
        found.update({cut(path): path for path in images if names[cut(path)] < 2})
    found.update({path: path for path in images})
    return found


def _name(path: str) -> str:
    return path.rpartition("/")[2]


def _stem(path: str) -> str:
    return _name(path).rpartition(".")[0]


def _only_lists(
    named_images: Sequence[tuple[str, Row]], header: Sequence[str], column: str
) -> bool:
    """Whether a table names images without a label and says nothing that may be one."""
    rows = [row for _, row in named_images]
    others = [name for name in header if name != column]
    return not any(label for label, _ in named_images) and not any(
        few_values(n, rows) for n in others
    )


def _refuse_table(uri: str, tables: list[TableSource], paths: list[str], reason: str = "") -> None:
    """The folders name no classes, so the table is what says them: its fault is the answer."""
    table = next((one for one in tables if one.why_not() is not None), None)
    names = [name for one in tables for name in one.names]
    if table is None:
        raise DataError(
            f"{uri} holds the tables {some(names)}, and the folders do not name the classes",
            why="a row of each may be about the same image",
            fix="Let `data.source` name one of them, or leave the others out: "
            f"`{exclude_line(names[1:])}`.",
        )
    name = table.names[0]
    try:
        header, rows = table.rows(name)
    except DataError as error:
        raise DataError(
            error.what, why=error.why, fix=f"{error.fix} The folders name no classes."
        ) from error
    images = [path for path in paths if is_image(path)]
    raise DataError(
        str(table.why_not()),
        why=f"{reason}{', ' * bool(reason)}and the folders do not name the classes either",
        fix=f"Name the columns in the run file. {columns_meant(header, rows, images)}".strip(),
    )


def _repeatsfolder_labels(named_images: list[tuple[str, Row]], header: list[str]) -> bool:
    """Whether a column holds the names of the folders, or stands for them one to one."""
    named_images = [(label, row) for label, row in named_images if label]
    for column in header:
        pairs = {(label, clean_text(row.cells.get(column, ""))) for label, row in named_images}
        labels = len({label for label, _ in pairs})
        if 1 < len(pairs) == labels == len({cell for _, cell in pairs}):
            return True
    return False


def folder_labels(folders: FolderSource) -> dict[str, str | None]:
    """The labels of images in class folders, read without what is beside them."""
    alone = FolderSource(folders.store, folders.choices)
    try:
        return {one.path: one.label for one in alone.entries() if one.problem is None}
    except DataError:
        return {}  # no class folders that could be read


def _names_the_folders(table: TableSource, folders: FolderSource) -> bool:
    """Whether the labels of a table are the names of the class folders, and no others."""
    said = {
        clean_text(row.cells.get(table.columns.label, ""))
        for name in table.names
        for row in table.rows(name)[1]
    }
    labels = set(folder_labels(folders).values())
    return len(labels) > 1 and said == labels


def _says_more(table: TableSource, taken: dict[str, Entry]) -> bool:
    columns = table.columns
    asked = (columns.group, columns.attributes) != (Columns().group, ())
    return asked or any(entry.split for entry in taken.values())

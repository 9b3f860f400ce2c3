"""A table of images: a path and a label a row, and what else the user knows of each.

CSV, JSON lines, and Parquet with paths; `metadata.csv` and `metadata.jsonl` as Hugging Face's
ImageFolder has them. Several tables of one folder (train.csv, test.csv) are read as one.
"""

import dataclasses
import re
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence

from typing_extensions import override

from graftline.data.sources.base import (
    NO_ATTRIBUTES,
    NO_IMAGE,
    Columns,
    Entry,
    Reading,
    Source,
)
from graftline.data.sources.label_text import CLIP, clean_text, clip, controls
from graftline.data.sources.layouts.folder_names import UNLABELLED
from graftline.data.sources.layouts.layout import EXCLUDED, excluded
from graftline.data.sources.similar_labels import unified
from graftline.data.sources.split_beside_table import lists_beside
from graftline.data.sources.split_names import splits_of
from graftline.data.sources.table_advice import (
    groups_in_paths,
    ignored_files,
    unused_columns,
    wrong_names,
)
from graftline.data.sources.table_checks import check_header, check_splits, used
from graftline.data.sources.table_forms import table_of_images
from graftline.data.sources.table_images import (
    DRIVE_LETTER,
    NOT_FOUND,
    ImageFinder,
    is_image,
    printable,
    same_name,
)
from graftline.data.sources.table_lookup import found_by_name
from graftline.data.sources.table_rows import Row
from graftline.data.sources.table_splits import (
    cell,
    said_of_paths,
    splits_in_paths,
    splits_of_column,
)
from graftline.errors import ConfigurationError, DataError
from graftline.storage.base import ObjectInfo, Store

HELD_OUT_FIRST = {"test": 0, "val": 1, "train": 2}
NOT_NAMED = "not in the table"
CONFLICTING = "conflicting labels"
HUGGING_FACE = "file_name"  # the column of Hugging Face's ImageFolder
# What pandas and spreadsheets write for a missing value.
_NO_LABELS = frozenset(("nan", "NaN", "<NA>", "NaT", "NULL", "#N/A", "N/A", "n/a", "?", "-", "--"))


class TableSource(Source):
    """Rows of a table, or of several; images stand beside it, or anywhere by full URI.

    Args:
        store: The folder of the source.
        name: The table's key there, or several of one kind.
        columns: What its columns are called.
        reading: How labels are compared, and what is left out.
        whole: Whether the folder is the source: then its other images are counted as well.
    """

    format = "table"
    splits: Mapping[str, tuple[Sequence[str], Sequence[Row]]] = {}  # files that state splits alone

    def __init__(
        self,
        store: Store,
        name: str | Sequence[str],
        columns: Columns,
        reading: Reading | None = None,
        *,
        whole: bool = False,
    ) -> None:
        super().__init__()
        self.store = store
        self.names = [name] if isinstance(name, str) else list(name)
        self.columns = columns
        self.choices = reading or Reading()
        self.whole = whole
        self.by_columns = False  # whether it has a column for each class
        self.uri = f"{store.uri}/{name}" if isinstance(name, str) else store.uri
        self.images = ImageFinder(store, whole, self.choices.exclude)
        self.listed: frozenset[str] = frozenset()  # files that list splits and were read

    def why_not(self) -> str | None:
        """Why it is no table of images, None if it is one: what its first line names decides."""
        try:
            for name in self.names:
                header, _ = self.rows(name)
                columns = self._columns(header)
                if not {columns.image, columns.label} <= set(header):
                    check_header(header, f"{self.store.uri}/{name}", columns)
        except (ConfigurationError, DataError) as error:
            return error.what + (f": {error.why}" if error.why else "")
        return None

    def rows(self, name: str) -> tuple[list[str], list[Row]]:
        """The columns' names and the rows of one of the tables."""
        data = self.store.read(name)
        header, rows, note = table_of_images(data, f"{self.store.uri}/{name}", self.columns)
        self._note(note)
        self.by_columns = self.by_columns or bool(note)
        return header, rows

    def _columns(self, header: Sequence[str]) -> Columns:
        """The columns; the image's may be called as Hugging Face's ImageFolder calls it."""
        default = self.columns.image == Columns().image and self.columns.image not in header
        if default and HUGGING_FACE in header:
            return dataclasses.replace(self.columns, image=HUGGING_FACE)
        return self.columns

    @override
    def entries(self) -> list[Entry]:
        given = splits_of(self.names) if len(self.names) > 1 and self.columns.split else {}
        by_path: dict[str, list[tuple[str, Entry]]] = defaultdict(list)
        named: set[str] = set()
        for name in self.names:
            for line, image, entry in self._entries_of(name):
                if entry.split is None and name in given:
                    entry = dataclasses.replace(entry, split=given[name])
                where = f"line {line}" if len(self.names) == 1 else f"{name} line {line}"
                by_path[entry.path].append((where, entry))
                named.add(same_name(self.images.actual.get(image, image)))
        entries = [entry for same in by_path.values() for entry in _one_for_each_path(same)]
        del by_path
        if self.columns.split and not any(entry.split for entry in entries):
            entries = self._split_by_lists(self._split_by_path(entries))
        if not self.columns.group:
            self._note(groups_in_paths([one.path for one in entries if one.problem is None]))
        self._note(_other_folders(entries))
        not_named = self._not_named(named)
        self._note(_names_elsewhere(entries, not_named))
        others = [o.path for o in not_named if o.problem == NO_IMAGE and o.path not in self.listed]
        labels = {str(one.label) for one in entries if one.label}
        taken = [one.path for one in entries if one.problem is None]
        self._note(ignored_files(others, labels, taken))
        self.images.listed.clear()  # as large as all entries; another listing starts again
        return sorted(self._unified([*entries, *not_named]), key=lambda entry: entry.path)

    def _entries_of(self, name: str) -> Iterator[tuple[int, str, Entry]]:
        """Line, location and entry of each row of one of the tables."""
        header, rows = self.rows(name)
        columns = self._columns(header)
        check_header(header, f"{self.store.uri}/{name}", columns)
        if not rows:
            raise DataError(
                f"The table {self.store.uri}/{name} has no rows",
                fix="Add one row for each image.",
            )
        check_splits(header, rows, f"{self.store.uri}/{name}", columns)
        self._note(unused_columns(header, used(columns)))
        splits = splits_of_column(rows, columns.split)
        images = [self.images.location(row.cells.get(columns.image, ""), name) for row in rows]
        found = self.images.find({image for image in images if image})
        images = self.images.with_slashes(images, found)
        self._note(found_by_name(self.images, name, images, found))
        for row, image in zip(rows, images, strict=True):
            yield row.line, image, self._entry(row, image, found.get(image), columns, splits)

    def _note(self, text: str) -> None:
        if text and text not in self.notes:
            self.notes.append(text)

    def _split_by_path(self, entries: list[Entry]) -> list[Entry]:
        """Where no column states a split, the folders in the paths may."""
        found = splits_in_paths([one.path for one in entries if one.problem is None])
        if not found:
            return entries
        self._note(said_of_paths(found))
        return [dataclasses.replace(one, split=found.get(one.path)) for one in entries]

    def _split_by_lists(self, entries: list[Entry]) -> list[Entry]:
        """Where neither a column nor the paths state a split, lists beside the table may."""
        if not self.whole or any(one.split for one in entries):
            return entries
        start = self.images.base + "/"
        files = [
            dataclasses.replace(info, key=path.removeprefix(start))
            for path, info in self.images.listed.items()
            if path.startswith(start)
            and not excluded(path.removeprefix(start), self.choices.exclude)
        ]
        entries, listed, notes, warnings = lists_beside(
            self.store, files, entries, self.uri, self.splits
        )
        self.listed |= listed
        self.warnings += warnings
        for note in notes:
            self._note(note)
        return entries

    def _unified(self, entries: list[Entry]) -> list[Entry]:
        labels = [one.label for one in entries if one.label is not None]
        names, notes = unified(labels, self.choices.similar_labels)
        self.notes += [note for note in notes if note not in self.notes]
        out = self.choices.exclude
        return [
            dataclasses.replace(
                one,
                label=names.get(one.label) if one.label is not None else None,
                problem=EXCLUDED if out and excluded(one.path, out) else one.problem,
            )
            for one in entries
        ]

    # -- what a row says --------------------------------------------------------------------------

    def _entry(
        self,
        row: Row,
        image: str,
        info: ObjectInfo | None,
        columns: Columns,
        splits: Mapping[str, str],
    ) -> Entry:
        cells = row.cells
        split = cell(row, columns.split)
        label = cells.get(columns.label) or None
        problem = self._problem(row, image, info, columns)
        actual = self.images.actual.get(image, image)
        path = actual.removeprefix(self.images.base + "/") if image else f"(line {row.line})"
        if image and (image in self.images.unreadable or (info is None and len(path) > CLIP)):
            path = f"{clip(path)} (line {row.line})"
        if problem is None and split and split not in splits:
            problem = f"unknown split {clip(split)!r}"
        return Entry(
            path=printable(path),
            version=info.version if info else "",
            size=info.size if info else 0,
            label=label,
            split=splits.get(split),
            group=(clean_text(cells.get(columns.group, "")) or None) if columns.group else None,
            attributes={name: cells.get(name) or None for name in columns.attributes}
            or NO_ATTRIBUTES,
            problem=problem,
        )

    def _problem(
        self, row: Row, image: str, info: ObjectInfo | None, columns: Columns
    ) -> str | None:
        if row.problem is not None:
            return row.problem
        if row.surplus > 0:
            return "more cells than columns"
        for column in (columns.image, columns.label, columns.group, columns.split):
            if column and column in row.odd:
                return f"{clip(column)} is {row.odd[column]}, not a text"
        if not image:
            return "no image named"
        label = clean_text(row.cells.get(columns.label, ""))
        if not label:
            return "no label"
        if label in _NO_LABELS or label.lower() in UNLABELLED:
            return f"no label ({label})"
        if controls(label):
            return f"{clip(columns.label)} is no text"
        if len(label) > 1 and label[0] + label[-1] in ("[]", "{}"):
            return f"{clip(columns.label)} is a list, not a text"
        if image in self.images.unreadable:
            return self.images.unreadable[image]
        return None if info is not None else NOT_FOUND

    def _not_named(self, named: set[str]) -> list[Entry]:
        """What stands beside the images and no row names."""
        tables = {same_name(f"{self.images.base}/{name}") for name in self.names}
        rest = [
            (location, info)
            for location, info in self.images.listed.items()
            if location.startswith(self.images.base + "/")
            and same_name(location) not in named
            and same_name(location) not in tables
        ]
        if not self.whole:
            count = sum(is_image(location) for location, _ in rest)
            if count:
                self.notes.append(
                    f"{count:,} further images in the folders of the table have no row in it."
                )
            return []
        entries = []
        for location, info in rest:
            path = location.removeprefix(self.images.base + "/")
            hidden = any(part.startswith(".") for part in path.split("/"))
            problem = NOT_NAMED if is_image(location) else NO_IMAGE
            entries.append(
                Entry(
                    printable(path),
                    info.version,
                    info.size,
                    problem="hidden file" if hidden else problem,
                )
            )
        return entries

    @override
    def read(self, entry: Entry) -> bytes:
        if "://" in entry.path or entry.path.startswith("/"):
            store, key = self.images.store_of(entry.path)
            return store.read(key)
        return self.store.read(entry.path)


def _names_elsewhere(entries: Sequence[Entry], not_named: Sequence[Entry]) -> str:
    """The note on rows whose file is not there, and may be one that no row names."""
    images = [one.path for one in not_named if one.problem == NOT_NAMED]
    missing = [one.path for one in entries if one.problem in (NOT_FOUND, DRIVE_LETTER)]
    return wrong_names([re.sub(r" \(line \d+\)$", "", path) for path in missing], images)


def _other_folders(entries: Sequence[Entry]) -> str:
    """The note on images in a folder that is called like another class."""
    labels = {one.label for one in entries if one.problem is None}
    odd = [
        one
        for one in entries
        if one.problem is None
        and one.label != (folder := clean_text(one.path.rpartition("/")[0].rpartition("/")[2]))
        and folder in labels
    ]
    if not odd:
        return ""
    return (
        f"The table gives {len(odd):,} images another label than the folder they are in, for "
        f"instance {clip(odd[0].path)} ({clip(str(odd[0].label))}): the table is followed."
    )


def _one_for_each_path(same: list[tuple[str, Entry]]) -> Iterator[Entry]:
    """Rows that name one file: the first counts, held out rather than trained on.

    Where they disagree on the label none of them counts. The others come with their line.
    """
    usable = [pair for pair in same if pair[1].problem is None] or same
    chosen = min(usable, key=lambda pair: HELD_OUT_FIRST.get(pair[1].split or "", 3))
    first = chosen[1]
    if len({clean_text(entry.label or "") for _, entry in usable}) > 1:
        first = dataclasses.replace(first, problem=first.problem or CONFLICTING)
    yield first
    for pair in same:
        if pair is not chosen:
            where, entry = pair
            problem = entry.problem or first.problem or "duplicate row"
            yield dataclasses.replace(entry, path=f"{entry.path} ({where})", problem=problem)

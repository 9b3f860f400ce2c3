"""Class folders: the first folder below the source is the label."""

import dataclasses
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

from typing_extensions import override

from graftline.data.sources.label_text import clean_text
from graftline.data.sources.layout_checks import (
    check_classes,
    groups_of_views,
    said_of_views,
    with_group,
    with_variants,
)
from graftline.data.sources.layouts.decision import decide
from graftline.data.sources.layouts.folder_names import MASK, Counts, system_folders
from graftline.data.sources.layouts.layout import (
    EXCLUDED,
    GROUP_HINT,
    NO_CLASS,
    AmbiguousLayout,
    FolderMeaning,
    Layout,
    fixed,
    parse,
)
from graftline.data.sources.layouts.view_names import FileNames
from graftline.data.sources.similar_labels import unified
from graftline.data.sources.split_lists import SplitLists, with_lists
from graftline.data.sources.table_advice import (
    files_of_splits,
    groups_in_names,
    ignored_files,
    labels_in_names,
    other_files,
    unread_splits,
)
from graftline.data.sources.table_rows import some
from graftline.errors import ConfigurationError, StoreError
from graftline.images.decode import SUFFIXES
from graftline.storage.base import ObjectInfo, Store, checked_key
from graftline.storage.uri import shown

if TYPE_CHECKING:
    pass
from graftline.data.sources.base import (
    MOST,
    NO_IMAGE,
    Columns,
    Entry,
    Reading,
    Source,
    folder_counts,
    hidden,
    listing,
    masks_beside,
    out,
    renamed_columns,
    suffixed,
)

MIN_CLASSES = 2


class FolderSource(Source):
    """Folders whose names are classes, splits and groups.

    :mod:`graftline.data.sources.layouts.layout` says how they are read.

    Where the folders hold tables (``metadata.csv``), Parquet files or tar shards and the images
    are described there, those are read.

    Args:
        store: The folder.
        reading: What the user fixed.
        columns: Of tables below; None where only folders are to be read.
    """

    format = "folders"

    def __init__(
        self, store: Store, reading: Reading | None = None, columns: Columns | None = None
    ) -> None:
        super().__init__()
        self.store = store
        self.uri = store.uri
        self.choices = reading or Reading()
        self.columns = columns
        self.listed: set[str] = set()  # files that list splits and were read
        self.from_table: dict[str, Entry] = {}  # what a table says of images in no class folder
        self.unread: list[Source] = []  # tables beside the folders whose columns are unknown
        self.unread_below: list[Source] = []  # likewise, in the folders
        self._inner: Source | None = None

    @override
    def entries(self) -> list[Entry]:
        found = list(listing(self.store))
        self._inner = None
        inner = self._described_below(found)
        if inner is not None:
            entries = inner.entries()
            self._inner, self.format = inner, inner.format
            self.notes += [note for note in inner.notes if note not in self.notes]
            self.warnings += [one for one in inner.warnings if one not in self.warnings]
            return entries
        self.format = "folders"
        if (
            self.columns is not None
            and not self.from_table
            and (named := renamed_columns(self.columns))
        ):
            raise ConfigurationError(
                f"{', '.join(named)} names a column, and {self.uri} is read as folders",
                why=" ".join(self.notes) or "there is no table of images",
                fix="Remove it, or let `data.source` name the table"
                f"{': ' + some(tables) if (tables := self._tables_beside()) else ''}.",
            )
        return self._read_folders(found)

    def _tables_beside(self) -> list[str]:
        """The tables that were not read, as `data.source` would name them."""
        names = [name for one in self.unread for name in getattr(one, "names", ())]
        return [f"{shown(self.uri)}/{name}" for name in names]

    def _read_folders(self, found: list[ObjectInfo]) -> list[Entry]:
        counts = folder_counts(found, self.choices.exclude)
        seen = [one for one in found if not hidden(one.key) and not out(one.key, self.choices)]
        keys = [one.key for one in seen if suffixed(one.key)]
        lists = self._lists(seen, keys, {name for folders in counts for name in folders})
        layout = self._layout(found, counts, keys, lists)
        views = groups_of_views(layout, counts, keys)
        if views:
            self.notes = [note.replace(GROUP_HINT, "") for note in self.notes]
            self.notes.append(said_of_views(views))
        meanings: dict[tuple[str, ...], FolderMeaning] = {}
        masks = masks_beside(found)
        labels, notes = unified(
            {meaning.label for f in counts if (meaning := layout.meaning(f)).label is not None},
            self.choices.similar_labels,
        )
        self.notes += notes
        entries = [self._entry(info, layout, meanings, labels, masks) for info in found]
        if views:
            entries = [with_group(one, views.get(one.path)) for one in entries]
        entries, notes = with_variants(entries)
        self.notes += notes
        if self.from_table:
            entries = [self._with_table(one, layout) for one in entries]
        if lists is not None:
            entries = self._with_lists(lists, entries)
        self._check_unread(entries)
        return entries

    def _layout(
        self, found: list[ObjectInfo], counts: Counts, keys: list[str], lists: SplitLists | None
    ) -> Layout:
        """The layout of the run file, or that which fits; lists may name classes in its place."""
        pattern = parse(self.choices.layout)
        others = other_files([one.key for one in found if not hidden(one.key)])
        labelled = pattern is None and lists is not None and lists.label(MOST, len(keys))
        try:
            layout = fixed(counts, pattern) if pattern else self._decided(counts, others, keys)
        except AmbiguousLayout:
            if not labelled:
                raise
        else:
            folders = (layout.meaning(f) for f in counts)
            names = {meaning.label for meaning in folders if meaning.problem is None}
            if len(names) >= MIN_CLASSES or not labelled:
                self.layout, self.tree = layout, layout.tree(counts)
                self.notes.append(layout.sentence)
                return layout
        return Layout(("*", "class"), {}, system_folders(counts), "")

    def _with_table(self, one: Entry, layout: Layout) -> Entry:
        """The entry with what the table says of it, where it stands in no class folder."""
        said = self.from_table.get(one.path)
        if said is None or one.problem != NO_CLASS:
            return one
        split = said.split or layout.split_of(tuple(one.path.split("/")[:-1]))
        return dataclasses.replace(said, split=split)

    def _lists(
        self, found: list[ObjectInfo], keys: list[str], folders: set[str]
    ) -> SplitLists | None:
        """Lists of splits beside the folders, where they are to be read."""
        return None

    def _with_lists(self, lists: SplitLists, entries: list[Entry]) -> list[Entry]:
        taken = [one for one in entries if one.problem is None]
        if lists.only_some(len(taken)) and not all(one.split for one in taken):
            return entries
        without = {one.path for one in entries if one.problem == NO_CLASS}
        entries = with_lists(lists, entries, self.uri, folders=self.layout is not None)
        self.listed = set(lists.read)
        if self.columns is not None and self.columns.split is None:
            entries = [
                dataclasses.replace(one, split=None) if one.path in lists.splits else one
                for one in entries
            ]
            self.notes.append(f"The splits of {lists.names} are not taken (data.split_column).")
        else:
            self.notes += lists.notes
        if self.layout is not None:
            count = sum(one.problem is None and one.path in without for one in entries)
            self.notes += [f"{count:,} images in no class folder have their label from the lists."]
            self.notes = self.notes if count else self.notes[:-1]
            return entries
        labels = {one.label for one in entries if one.problem is None and one.label is not None}
        names, notes = unified(labels, self.choices.similar_labels)
        self.notes += [*notes, "The lists state the labels, too: the folders mean nothing."]
        return [
            dataclasses.replace(one, label=names.get(one.label)) if one.label else one
            for one in entries
        ]

    def _decided(self, counts: Counts, others: str, keys: list[str]) -> Layout:
        """The layout that fits; the error also says what is with the files beside the folders."""
        try:
            where = shown(self.uri)
            layout = decide(counts, where, FileNames(keys))
            check_classes(layout, counts, keys, where)
            return layout
        except AmbiguousLayout as error:
            notes = [one for one in (*self.notes, others, labels_in_names(keys)) if one]
            why = str(error.why)
            why = why[:1].upper() + why[1:] if notes else why
            error.why = " ".join([f"{note.rstrip('.')}." for note in notes] + [why])
            raise

    def _described_below(self, found: list[ObjectInfo]) -> Source | None:
        """What describes the images in another way than by folders; None where nothing does."""
        return None

    def _check_unread(self, entries: list[Entry]) -> None:
        """Refuse tables beside the folders that were not read and name the images.

        Where the folders name no classes, say what else may.
        """
        labels = {str(one.label) for one in entries if one.problem is None}
        others = [one.path for one in entries if one.problem == NO_IMAGE]
        others = [path for path in others if path not in self.listed]
        if len(labels) < MIN_CLASSES:
            images = [one.path for one in entries if suffixed(one.path)]
            unnamed = [one.path for one in entries if "." not in one.path.rpartition("/")[2]]
            notes = [other_files([*others, *unnamed]), labels_in_names(images)]
        else:
            given = any(one.split for one in entries)
            splits = [] if given else files_of_splits(others)
            self.warnings += [unread_splits(splits)] if splits else []
            taken = [one.path for one in entries if one.problem is None]
            notes = [ignored_files(others, labels, taken)]
            if not any(one.group or one.split for one in entries):
                notes.append(groups_in_names(taken))
        self.notes += [note for note in notes if note]

    def _entry(
        self,
        info: ObjectInfo,
        layout: Layout,
        meanings: dict[tuple[str, ...], FolderMeaning],
        labels: Mapping[str, str],
        masks: set[str],
    ) -> Entry:
        try:
            checked_key(info.key).encode()
        except (StoreError, UnicodeEncodeError):  # S3 allows "a//b", Linux any bytes
            shown = info.key.encode("utf-8", "backslashreplace").decode()
            return Entry(shown, info.version, info.size, problem="name cannot be used")
        *above, name = info.key.split("/")
        folders = tuple(above)
        meaning = meanings.get(folders)
        if meaning is None:
            meaning = meanings[folders] = layout.meaning(folders)
        label = (
            None if meaning.label is None else labels.get(meaning.label, clean_text(meaning.label))
        )
        problem = meaning.problem
        if label == "":
            problem = problem or "not in a class folder"
        if out(info.key, self.choices):
            problem = EXCLUDED
        elif hidden(info.key):
            problem = "hidden file"
        elif not _may_be_image(name):
            problem = NO_IMAGE
        elif info.key in masks:
            problem = problem or MASK
        return Entry(
            info.key,
            info.version,
            info.size,
            label or None,
            meaning.split,
            meaning.group,
            problem=problem,
        )

    @override
    def read(self, entry: Entry) -> bytes:
        return self._inner.read(entry) if self._inner else self.store.read(entry.path)

    @override
    def unpack(self, entry: Entry, max_bytes: int) -> Iterator[tuple[Entry, bytes]]:
        inner = self._inner
        return inner.unpack(entry, max_bytes) if inner else super().unpack(entry, max_bytes)


def _may_be_image(name: str) -> bool:
    suffix = "." + name.rpartition(".")[2].lower() if "." in name else ""
    return suffix in SUFFIXES or suffix == ""

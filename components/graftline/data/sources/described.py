"""Folders that hold tables, Parquet files or shards which describe the images in them."""

import posixpath
from collections.abc import Mapping
from types import MappingProxyType

from typing_extensions import override

from graftline.data.sources.base import (
    ARCHIVES,
    METADATA,
    PARQUET,
    ROWS,
    Entry,
    Source,
    hidden,
    out,
    suffixed,
)
from graftline.data.sources.choice import (
    folder_labels,
    refuse_table_of_images,
    refuse_unread,
    table_describes,
)
from graftline.data.sources.folders import MIN_CLASSES, FolderSource
from graftline.data.sources.label_choice import labels_beside
from graftline.data.sources.label_files import LabelFiles, Rows, label_files, unnamed_columns
from graftline.data.sources.layouts.folder_names import Counts
from graftline.data.sources.layouts.layout import AmbiguousLayout, Layout, parse
from graftline.data.sources.parquet import open_parquet
from graftline.data.sources.parquet_sets import refuse_several_sets
from graftline.data.sources.split_lists import SplitLists, read_split_lists
from graftline.data.sources.split_names import splits_of
from graftline.data.sources.table import TableSource
from graftline.data.sources.table_advice import labels_of
from graftline.data.sources.tar import ArchiveSource
from graftline.storage.base import ObjectInfo


class DescribedFolders(FolderSource):
    """Folders, or what is in them and describes their images."""

    splits_read: Mapping[str, Rows] = MappingProxyType({})  # JSON that states splits alone

    @override
    def _described_below(self, found: list[ObjectInfo]) -> Source | None:
        """What describes the images, where that is in folders below and is no folder."""
        if self.columns is None or parse(self.choices.layout) is not None:
            return None
        keys = [i.key for i in found if not hidden(i.key) and not out(i.key, self.choices)]
        named = [key for key in keys if posixpath.basename(key).lower() in METADATA]
        named = named or self._one_in_each_folder(keys)
        if named:
            table = TableSource(self.store, named, self.columns, self.choices, whole=True)
            why_not = table.why_not()
            if why_not is not None:
                self.notes.append(f"Read as folders. {why_not}.")
                self.unread.append(table)
            elif table_describes(table, self):
                self.notes.append(labels_of(named))
                return table
            return None
        if any(suffixed(key) for key in keys):
            return self._labels_beside(found)
        parquet = [key for key in keys if key.lower().endswith(PARQUET)]
        if parquet:
            refuse_several_sets(self.store.uri, parquet)
            return open_parquet(self.store, parquet, self.columns, self.choices)
        if any(key.lower().endswith(ARCHIVES) for key in keys):
            return ArchiveSource(self.store, self.columns, reading=self.choices)
        return None

    def _labels_beside(self, found: list[ObjectInfo]) -> Source | None:
        """The files that state the labels where folders do not: labels.json, labels.txt."""
        assert self.columns is not None
        seen = [one for one in found if not hidden(one.key) and not out(one.key, self.choices)]
        labels, splits = label_files(self.store, seen, self.columns)
        table, same = labels_beside(self, labels, self.columns)
        if table is None and len(set(folder_labels(self).values())) < MIN_CLASSES:
            unnamed = unnamed_columns(self.store, seen, self.columns)
            self.unread += [
                LabelFiles(self.store, {name: rows}, self.columns, self.choices)
                for name, rows in unnamed.items()
            ]
        self.listed.update(same)
        self.notes += [] if table is None else [labels_of(table.names)]
        with_splits = {name: labels[name] for name in same if self.columns.split in labels[name][0]}
        self.splits_read = {**splits, **with_splits}
        if table is not None:
            table.splits = splits
        return table

    def _one_in_each_folder(self, keys: list[str]) -> list[str]:
        """Tables of images, one in each folder (train/labels.csv, test/labels.csv)."""
        assert self.columns is not None
        found = [key for key in keys if key.lower().endswith(ROWS)]
        if not found or any("/" not in key for key in found):
            return []
        one_each = len({posixpath.dirname(key) for key in found}) == len(found)
        if not one_each and _of_splits(found):
            tables = [TableSource(self.store, key, self.columns, self.choices) for key in found]
            return found if all(table.why_not() is None for table in tables) else []
        as_folder = all(k.count("/") and _called_as_folder(k) for k in found)
        if not one_each or not (as_folder or len({posixpath.basename(key) for key in found}) == 1):
            return []
        table = TableSource(self.store, found, self.columns, self.choices)
        if table.why_not() is None:
            return found
        self.unread_below = [table]
        return []

    @override
    def _lists(
        self, found: list[ObjectInfo], keys: list[str], folders: set[str]
    ) -> SplitLists | None:
        if self.columns is None:
            return None
        tables = {
            name: table.rows(name)
            for table in self.unread
            if isinstance(table, TableSource)
            for name in table.names
            if TableSource(self.store, name, self.columns).why_not() is not None
        }
        tables = {**tables, **self.splits_read}
        return read_split_lists(self.store, found, keys, sorted(folders), tables)

    @override
    def _decided(self, counts: Counts, others: str, keys: list[str]) -> Layout:
        try:
            return super()._decided(counts, others, keys)
        except AmbiguousLayout:
            refuse_table_of_images(self, keys)  # it says more than any folder
            raise

    @override
    def _check_unread(self, entries: list[Entry]) -> None:
        super()._check_unread(entries)
        if self.unread or self.unread_below:
            refuse_unread(self, entries)


def _of_splits(keys: list[str]) -> bool:
    """Whether tables in one folder are each for a split: csv/train.csv, csv/test.csv."""
    one_folder = len({posixpath.dirname(key) for key in keys}) == 1
    splits = splits_of([posixpath.basename(key) for key in keys])
    return one_folder and len(splits) == len(keys) == len(set(splits.values()))


def _called_as_folder(key: str) -> bool:
    """Whether a table has the name of its folder in its own: train/train_labels.csv."""
    *_, folder, name = key.split("/")
    return folder.lower() in name.lower()

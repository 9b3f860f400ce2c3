"""Images whose names hold the class (`cat.7.jpg`, `Abyssinian_12.jpg`), by the user's pattern."""

import dataclasses
import re
from collections.abc import Mapping

from typing_extensions import override

from graftline.data.sources.base import (
    NO_IMAGE,
    Entry,
    hidden,
    listing,
    masks_beside,
    out,
    suffixed,
)
from graftline.data.sources.folders import FolderSource
from graftline.data.sources.label_text import clean_text, clip
from graftline.data.sources.layout_checks import with_variants
from graftline.data.sources.layouts.folder_names import MASK, MASKS
from graftline.data.sources.layouts.layout import EXCLUDED
from graftline.data.sources.similar_labels import unified
from graftline.data.sources.split_beside_table import lists_beside
from graftline.data.sources.table_splits import said_of_paths, splits_in_paths
from graftline.errors import StoreError
from graftline.storage.base import ObjectInfo, checked_key

NO_MATCH = "the name does not match data.label_pattern"


class NameSource(FolderSource):
    """A folder of images, whose names state the label and whose folders may state the split."""

    @override
    def entries(self) -> list[Entry]:
        found = list(listing(self.store))
        masks = masks_beside(found)
        pattern = re.compile(self.choices.label_pattern)
        entries = [self._named(info, pattern, masks) for info in found]
        entries, notes = with_variants(self._with_splits(entries, found))
        labels = {one.label for one in entries if one.problem is None and one.label}
        names, more = unified(labels, self.choices.similar_labels)
        self.notes += [
            f"The labels are what `{clip(self.choices.label_pattern)}` finds in the names of the "
            "files; folders name no classes (data.label_pattern).",
            *notes,
            *more,
        ]
        return [_as_unified(one, names) for one in entries]

    def _named(self, info: ObjectInfo, pattern: re.Pattern[str], masks: set[str]) -> Entry:
        """The entry of a file, with the label that its name states."""
        try:
            checked_key(info.key).encode()
        except (StoreError, UnicodeEncodeError):
            shown = info.key.encode("utf-8", "backslashreplace").decode()
            return Entry(shown, info.version, info.size, problem="name cannot be used")
        *folders, name = info.key.split("/")
        match = pattern.search(name)
        label = clean_text(match[1] or "") if match else ""
        problem = None
        if out(info.key, self.choices):
            problem = EXCLUDED
        elif hidden(info.key):
            problem = "hidden file"
        elif not suffixed(name):
            problem = NO_IMAGE
        elif info.key in masks or not MASKS.isdisjoint(part.lower() for part in folders):
            problem = MASK
        elif not label:
            problem = NO_MATCH
        return Entry(info.key, info.version, info.size, label or None, problem=problem)

    def _with_splits(self, entries: list[Entry], found: list[ObjectInfo]) -> list[Entry]:
        """The splits of the folders, else of lists beside the images."""
        if self.columns is not None and self.columns.split is None:
            return entries
        splits = splits_in_paths([one.path for one in entries if one.problem is None])
        if splits:
            self.notes.append(said_of_paths(splits))
            return [dataclasses.replace(one, split=splits.get(one.path)) for one in entries]
        files = [one for one in found if not hidden(one.key) and not out(one.key, self.choices)]
        entries, listed, notes, warnings = lists_beside(self.store, files, entries, self.uri, {})
        self.listed |= listed
        self.notes += notes
        self.warnings += warnings
        return entries


def _as_unified(one: Entry, names: Mapping[str, str]) -> Entry:
    label = names.get(one.label or "")
    return one if label is None else dataclasses.replace(one, label=label)

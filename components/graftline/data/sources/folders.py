"""Class folders: the first folder below the source is the label."""

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

from typing_extensions import override

from graftline.data.sources.folder_names import MASK, Counts
from graftline.data.sources.label_text import clean_text
from graftline.data.sources.layout import (
    EXCLUDED,
    AmbiguousLayout,
    FolderMeaning,
    Layout,
    fixed,
    parse,
)
from graftline.data.sources.layout_decision import decide
from graftline.data.sources.similar_labels import unified
from graftline.data.sources.table_advice import ignored_files, labels_in_names, other_files
from graftline.errors import ConfigurationError, StoreError
from graftline.images.decode import SUFFIXES
from graftline.storage.base import ObjectInfo, Store, checked_key

if TYPE_CHECKING:
    pass
from graftline.data.sources.base import (
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

    :mod:`graftline.data.sources.layout` says how they are read.

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
        self.unread: list[Source] = []  # tables beside the folders whose columns are unknown
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
            return entries
        self.format = "folders"
        if self.columns is not None and (named := renamed_columns(self.columns)):
            raise ConfigurationError(
                f"{', '.join(named)} names a column, and {self.uri} is read as folders",
                why=" ".join(self.notes) or "there is no table of images",
                fix="Remove it, or let `data.source` name the table.",
            )
        counts = folder_counts(found, self.choices.exclude)
        pattern = parse(self.choices.layout)
        others = other_files([one.key for one in found])
        layout = fixed(counts, pattern) if pattern else self._decided(counts, others)
        self.layout, self.tree = layout, layout.tree(counts)
        self.notes.append(layout.sentence)
        meanings: dict[tuple[str, ...], FolderMeaning] = {}
        masks = masks_beside(found)
        labels, notes = unified(
            {meaning.label for f in counts if (meaning := layout.meaning(f)).label is not None},
            self.choices.similar_labels,
        )
        self.notes += notes
        entries = [self._entry(info, layout, meanings, labels, masks) for info in found]
        self._check_unread(entries)
        return entries

    def _decided(self, counts: Counts, others: str) -> Layout:
        """The layout that fits; the error also says what is with the files beside the folders."""
        try:
            return decide(counts, self.uri)
        except AmbiguousLayout as error:
            notes = [*self.notes, *([others] if others else [])]
            error.why = " ".join([f"{note.rstrip('.')}." for note in notes] + [str(error.why)])
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
        if len(labels) < MIN_CLASSES:
            images = [one.path for one in entries if suffixed(one.path)]
            unnamed = [one.path for one in entries if "." not in one.path.rpartition("/")[2]]
            notes = [other_files([*others, *unnamed]), labels_in_names(images)]
        else:
            notes = [ignored_files(others, labels)]
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

"""Where the user's labelled images come from: class folders, a table, or tar shards.

Listing reads no image bytes (a table's own file is read), so that a change can be found cheaply.
"""

import dataclasses
import re
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

from graftline.data.absent import absent
from graftline.data.sources.layouts.layout import Layout, excluded
from graftline.errors import DataError, StoreError
from graftline.images.decode import SUFFIXES
from graftline.storage.base import ObjectInfo, Store, checked_key

if TYPE_CHECKING:
    pass

FORMATS = ("auto", "folders", "table", "shards")
TABLES = (".csv", ".tsv", ".jsonl", ".ndjson", ".parquet")
PARQUET = ".parquet"
ROWS = TABLES[:-1]  # the ones of text
METADATA = ("metadata.csv", "metadata.jsonl", "metadata.parquet")
MOST = 0.9  # of the images: a table that names as many describes the folder
NO_IMAGE = "not an image file"
ARCHIVES = (".tar", ".tar.gz", ".tgz")
MACOS = "__MACOSX"  # a folder of attributes in archives that macOS packs
NO_ATTRIBUTES: Mapping[str, str | None] = {}  # one for all: a million empty ones are 64 MB


@dataclasses.dataclass(frozen=True, slots=True)
class Entry:
    """One image as the source lists it, or one archive of images.

    Attributes:
        path: Its name within the source; ``archive.tar#member`` within an archive.
        version: Changes when its bytes change (ETag, or ``mtime_ns:size``).
        size: In bytes.
        label: None for an archive, and where the source has none.
        split: Given by the user, else None.
        group: Given by the user, else None.
        attributes: The user's own columns.
        problem: Why it cannot be used, where the listing alone tells.
        archive: Whether it holds images rather than being one.
        detail: More on the problem; for an image in an archive, where its label is from.
        fault: Why nothing of the source may be taken before the user has looked at it.
    """

    path: str
    version: str
    size: int
    label: str | None = None
    split: str | None = None
    group: str | None = None
    attributes: Mapping[str, str | None] = dataclasses.field(default_factory=lambda: NO_ATTRIBUTES)
    problem: str | None = None
    archive: bool = False
    detail: str | None = None
    fault: str | None = None


@dataclasses.dataclass(frozen=True, slots=True)
class Columns:
    """Names of a table's columns, or of the keys in a shard's JSON notes.

    A ``split`` of None leaves the choice of all splits to Graftline.
    """

    image: str = "image"
    label: str = "label"
    split: str | None = "split"
    group: str | None = None
    attributes: tuple[str, ...] = ()

    def wanted(self) -> dict[str, str]:
        """The columns that a table must have, with the setting of ``data`` that names each.

        The split column is one of them where it is named: the usual one may be absent.
        """
        found = {self.image: "image_column", self.label: "label_column"}
        found.update(dict.fromkeys(self.attributes, "attributes"))
        if self.group:
            found[self.group] = "group_column"
        if self.split and self.split != Columns().split:
            found[self.split] = "split_column"
        return found


@dataclasses.dataclass(frozen=True, slots=True)
class Reading:
    """What the user fixes of how a source is read: the run file's ``data`` section.

    Attributes:
        layout: What each level of folders is, as ``data.sources.layouts.layout.parse`` takes it.
        exclude: Patterns of folders and files that are left out.
        similar_labels: As :func:`graftline.data.sources.label_text.unified` has it.
        label_pattern: A regular expression whose first group is the label in a file's name.
    """

    layout: str = "auto"
    exclude: tuple[str, ...] = ()
    similar_labels: str = "auto"
    label_pattern: str = ""


class Source(ABC):
    """A place with labelled images.

    Attributes:
        uri: Normalised; names the source in the store's memory of it.
        format: ``folders``, ``table`` or ``shards``.
        notes: What was understood by convention, worth telling the user.
        warnings: What the user gave and was not understood.
        layout: How its folders are read, once they are listed.
        tree: The folders with what they are taken for, a line each.
        choices: What the user fixed.
    """

    uri: str
    format: str

    def __init__(self) -> None:
        self.notes: list[str] = []
        self.warnings: list[str] = []
        self.layout: Layout | None = None
        self.tree = ""
        self.choices = Reading()

    @abstractmethod
    def entries(self) -> list[Entry]:
        """Everything in the source, sorted by path."""

    @abstractmethod
    def read(self, entry: Entry) -> bytes:
        """The bytes of an entry that is an image."""

    def unpack(self, entry: Entry, max_bytes: int) -> Iterator[tuple[Entry, bytes]]:
        """The images in an archive, one after the other.

        A member that is larger than ``max_bytes`` comes with its ``problem`` and without bytes.
        """
        raise TypeError(f"{entry.path} is an image, not an archive")


def folder_counts(
    found: Sequence[ObjectInfo], exclude: Sequence[str] = ()
) -> dict[tuple[str, ...], int]:
    """How many images each folder of a listing holds: what a layout is decided from."""
    counts: Counter[tuple[str, ...]] = Counter()
    plain: Counter[tuple[str, ...]] = Counter()
    for info in found:
        if hidden(info.key) or (exclude and excluded(info.key, exclude)):
            continue
        try:
            checked_key(info.key).encode()
        except (StoreError, UnicodeEncodeError):
            continue
        *folders, name = info.key.split("/")
        if suffixed(name):
            counts[tuple(folders)] += 1
        elif "." not in name:
            plain[tuple(folders)] += 1
    return dict(counts or plain)


_MASK_NAME = re.compile(
    r"(?i)[ _.-](?:masks?|mask[ _-]?crop|seg|segmentation|gt|label|depth|depth[ _-]?crop)"
    r"(?:[ _-]?\d+)?$"
)
_PICTURE_NAME = re.compile(r"(?i)[ _.-](?:rgb|image|img|photo|colou?r|crop|orig(?:inal)?|raw)$")


def masks_beside(found: Sequence[ObjectInfo]) -> set[str]:
    """Images called like another one in their folder, and `_mask` behind that."""
    return masks_named([info.key for info in found])


def masks_named(keys: Sequence[str]) -> set[str]:
    """Names of images that are another one's and `_mask` behind that, or in place of `_rgb`."""
    masks = {}
    for key in keys:
        stem = key.rpartition(".")[0]
        match = _MASK_NAME.search(stem)
        if match and suffixed(key):
            masks[key] = stem[: match.start()]
    if not masks:
        return set()
    stems = {key.rpartition(".")[0] for key in keys if suffixed(key)}
    stems |= {stem[: end.start()] for stem in stems if (end := _PICTURE_NAME.search(stem))}
    return {key for key, stem in masks.items() if stem in stems}


def hidden(key: str) -> bool:
    """Whether a file or a folder above it is hidden."""
    return key.startswith(".") or "/." in key


def out(key: str, choices: Reading) -> bool:
    """Whether the user leaves this key out."""
    return bool(choices.exclude) and excluded(key, choices.exclude)


def renamed_columns(columns: Columns) -> list[str]:
    """The keys of the run file that name a column in another way than it is named anyway."""
    usual = Columns()
    keys = {"image": "image_column", "label": "label_column", "split": "split_column"}
    keys.update({"group": "group_column", "attributes": "attributes"})
    return [
        f"data.{key}"
        for name, key in keys.items()
        if getattr(columns, name) and getattr(columns, name) != getattr(usual, name)
    ]


def numbered(columns: Columns) -> bool:
    """Whether the run file names columns by their numbers, as of a text without names for them."""
    return columns.image.isdecimal() and columns.label.isdecimal()


def listing(store: Store) -> Iterator[ObjectInfo]:
    """All objects; a source without any does not exist or is empty, and both are errors."""
    empty = True
    for info in store.list():
        empty = False
        yield info
    if empty:
        _refuse_empty(store)


def _refuse_empty(store: Store) -> None:
    from graftline.storage.local import FileStore

    if isinstance(store, FileStore) and not store.root.exists():
        raise absent(store.root)
    if isinstance(store, FileStore) and not store.root.is_dir():
        raise DataError(
            f"The source {store.uri} is a single file and neither a table nor a tar shard",
            fix="Let `data.source` name a folder of class folders, a .parquet, a .jsonl, "
            "a .csv, a .tar or a .zip. Unpack other archives.",
        )
    raise DataError(
        f"The source {store.uri} is empty",
        fix="Put one folder of images per class there, or correct `data.source`.",
    )


def suffixed(name: str) -> bool:
    """Whether the name ends as an image's does."""
    return "." in name and "." + name.rpartition(".")[2].lower() in SUFFIXES

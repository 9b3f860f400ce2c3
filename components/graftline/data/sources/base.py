"""Where the user's labelled images come from: class folders, a table, or tar shards.

Listing reads no image bytes (a table's own file is read), so that a change can be found cheaply.
"""

import dataclasses
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

from graftline.errors import DataError, StoreNotFound
from graftline.storage.base import ObjectInfo, Store

if TYPE_CHECKING:
    pass

FORMATS = ("auto", "folders", "table", "shards")
TABLES = (".csv", ".tsv")
ARCHIVES = (".tar", ".tar.gz", ".tgz")
SPLIT_NAMES = {
    "train": "train",
    "training": "train",
    "test": "test",
    "testing": "test",
    "val": "val",
    "valid": "val",
    "validation": "val",
    "dev": "val",
}
NO_ATTRIBUTES: Mapping[str, str | None] = {}


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
    """

    path: str
    version: str
    size: int
    label: str | None = None
    split: str | None = None
    group: str | None = None
    attributes: Mapping[str, str | None] = dataclasses.field(default_factory=dict)
    problem: str | None = None
    archive: bool = False


@dataclasses.dataclass(frozen=True, slots=True)
class Columns:
    """Names of a table's columns, or of the keys in a shard's JSON notes."""

    image: str = "image"
    label: str = "label"
    split: str = "split"
    group: str | None = None
    attributes: tuple[str, ...] = ()


class Source(ABC):
    """A place with labelled images.

    Attributes:
        uri: Normalised; names the source in the store's memory of it.
        format: ``folders``, ``table`` or ``shards``.
        notes: What was understood by convention, worth telling the user.
    """

    uri: str
    format: str

    def __init__(self) -> None:
        self.notes: list[str] = []

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
        raise StoreNotFound(
            f"The source {store.uri} does not exist", fix="Correct `data.source` in the run file."
        )
    if isinstance(store, FileStore) and not store.root.is_dir():
        raise DataError(
            f"The source {store.uri} is a single file and neither a CSV table nor a tar shard",
            fix="Let `data.source` name a folder of class folders, a .csv or a .tar.",
        )
    raise DataError(
        f"The source {store.uri} is empty",
        fix="Put one folder of images per class there, or correct `data.source`.",
    )

"""Where the user's labelled images come from: class folders, a table, or tar shards.

Listing reads no image bytes (a table's own file is read), so that a change can be found cheaply.
"""

import dataclasses
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

from typing_extensions import override

from graftline.errors import ConfigurationError, DataError, StoreError, StoreNotFound
from graftline.images.decode import SUFFIXES
from graftline.storage.base import ObjectInfo, Store, checked_key, open_store

if TYPE_CHECKING:
    from graftline.data.snapshot import Snapshot

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


class FolderSource(Source):
    """Class folders: the first folder below the source is the label, however deep the file is.

    Where these folders are called train, val and test (and the like), they are the splits and
    the folders below them are the labels.
    """

    format = "folders"

    def __init__(self, store: Store) -> None:
        super().__init__()
        self.store = store
        self.uri = store.uri

    @override
    def entries(self) -> list[Entry]:
        found = list(listing(self.store))
        tops = {info.key.split("/")[0] for info in found if "/" in info.key}
        visible = {top for top in tops if not top.startswith(".")}
        by_split = "train" in {SPLIT_NAMES.get(top.lower()) for top in visible}
        by_split = by_split and len(visible) > 1 and all(t.lower() in SPLIT_NAMES for t in visible)
        by_split = by_split and any(info.key.count("/") >= 2 for info in found)
        if by_split:
            names = ", ".join(sorted(visible))
            self.notes.append(f"The folders {names} are taken as splits, those below as labels.")
        elif any(info.key.count("/") >= 2 for info in found):
            self.notes.append("Folders are nested: the first one below the source is the label.")
        return [self._entry(info, by_split) for info in found]

    def _entry(self, info: ObjectInfo, by_split: bool) -> Entry:
        try:
            checked_key(info.key).encode()
        except (StoreError, UnicodeEncodeError):  # S3 allows "a//b", Linux any bytes
            shown = info.key.encode("utf-8", "backslashreplace").decode()
            return Entry(shown, info.version, info.size, problem="name cannot be used")
        *folders, name = info.key.split("/")
        split = SPLIT_NAMES[folders[0].lower()] if by_split and len(folders) > 0 else None
        if by_split:
            folders = folders[1:]
        label = folders[0] if folders else None
        problem = None
        if any(part.startswith(".") for part in info.key.split("/")):
            problem = "hidden file"
        elif not _may_be_image(name):
            problem = "not an image file"
        elif label is None:
            problem = "not in a class folder"
        return Entry(info.key, info.version, info.size, label, split, problem=problem)

    @override
    def read(self, entry: Entry) -> bytes:
        return self.store.read(entry.path)


def open_source(uri: str, format: str = "auto", columns: Columns | None = None) -> Source:  # noqa: A002
    """Open a source of labelled images.

    Args:
        uri: A folder, ``file://`` or ``s3://`` URI; for a table, of the CSV file itself or of the
            folder that holds it.
        format: ``folders``, ``table``, ``shards``, or ``auto`` to look.
        columns: What a table's columns are called.

    Raises:
        ConfigurationError: An unknown format.
        StoreNotFound: There is nothing at that place.
    """
    from graftline.data.sources.table import TableSource
    from graftline.data.sources.tar import ArchiveSource

    columns = columns or Columns()
    if format not in FORMATS:
        raise ConfigurationError(
            f"data.format {format!r} is unknown", fix=f"Use one of {', '.join(FORMATS)}."
        )
    text = str(uri).rstrip("/")
    if text.lower().endswith((*TABLES, *ARCHIVES)):
        folder, _, name = text.rpartition("/")
        store = open_store(folder or ("/" if text.startswith("/") else "."))
        if name.lower().endswith(TABLES):
            return TableSource(store, name, columns)
        return ArchiveSource(store, columns, name)
    store = open_store(str(uri))
    roots = store.names() if format in ("auto", "table") else []
    tables = [name for name in roots if name.lower().endswith(TABLES)]
    if format == "table" and len(tables) != 1:
        raise DataError(
            f"{store.uri} holds {len(tables)} CSV tables, and `data.format` is table",
            fix="Let `data.source` name the CSV file itself.",
        )
    if format == "table":
        return TableSource(store, tables[0], columns)
    if format == "shards":
        return ArchiveSource(store, columns)
    if format == "auto" and any(name.lower().endswith(ARCHIVES) for name in roots):
        return ArchiveSource(store, columns)
    folders = FolderSource(store)
    if format == "auto" and len(tables) == 1:
        table = TableSource(store, tables[0], columns)
        why_not = table.why_not()
        if why_not is None:
            return table
        folders.notes.append(f"Read as class folders. {why_not}")
    return folders


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


def _may_be_image(name: str) -> bool:
    suffix = "." + name.rpartition(".")[2].lower() if "." in name else ""
    return suffix in SUFFIXES or suffix == ""


@dataclasses.dataclass(frozen=True)
class Changes:
    """What a listing of the source says against a snapshot.

    Attributes:
        new: Listed now, unknown to the snapshot.
        changed: Known by name, with other bytes.
        relabelled: The same bytes under another label (where the listing tells labels).
        removed: Names that the snapshot knows and the listing lacks.
        unchanged: How many are the same.
    """

    new: list[Entry]
    changed: list[Entry]
    relabelled: list[Entry]
    removed: list[str]
    unchanged: int

    def __bool__(self) -> bool:
        return bool(self.new or self.changed or self.relabelled or self.removed)


def compare(source: Source, snapshot: "Snapshot") -> Changes:
    """Compare a listing of the source with a snapshot of it; no image is read.

    What the snapshot set aside counts as known: only a new version of it is a change.
    """
    known: dict[str, tuple[str, str | None]] = {}
    for table in (snapshot.set_aside, snapshot.manifest):
        columns = (table.column(name).to_pylist() for name in ("source", "source_version", "label"))
        for path, version, label in zip(*columns, strict=True):
            known[path.partition("#")[0] if source.format == "shards" else path] = (version, label)
    new, changed, relabelled, same = [], [], [], 0
    for entry in source.entries():
        if entry.problem is not None and entry.path not in known:
            continue  # says by itself that it is no image; nothing to train on
        version, label = known.pop(entry.path, (None, None))
        if version is None:
            new.append(entry)
        elif version != entry.version:
            changed.append(entry)
        elif entry.label is not None and label != entry.label:
            relabelled.append(entry)
        else:
            same += 1
    return Changes(new, changed, relabelled, sorted(known), same)

"""What the store remembers of a source: what was looked at, what came of it, and every split.

Under ``sources/<digest of the source's URI>``: a pointer ``.json``, changed by compare-and-swap,
that names two Parquet tables by their content; and ``/partial/``, where a run leaves what it has
fetched so far, one file a shard, so that an interrupted run goes on where it stopped.
"""

import dataclasses
import hashlib
import json
import tempfile
from collections.abc import Iterable, Iterator, Mapping, MutableMapping
from pathlib import Path
from typing import Any

import pyarrow as pa

from graftline.data.shards import ByteRange
from graftline.data.sources.base import NO_ATTRIBUTES, Entry
from graftline.data.tables import parquet_bytes, parquet_rows, read_parquet, write_parquet
from graftline.errors import DataError, IntegrityError, StoreNotFound
from graftline.files import os_errors, sha256_of
from graftline.images.stored_values import ValueRange, Values
from graftline.progress import message
from graftline.stats.wording import counted
from graftline.steps.ingest.comparisons import Comparisons
from graftline.steps.ingest.known import Known, Seen
from graftline.steps.ingest.near_duplicates.duplicates import PictureHash
from graftline.steps.ingest.near_duplicates.same_picture import VERSION as COMPARISON_VERSION
from graftline.steps.ingest.packed_images import PackedImages
from graftline.storage import commit
from graftline.storage.base import Store

SCHEMA_VERSION = 1
TIFF = "tiff"  # read otherwise than before: a fourth band, planes of 16 bits, white that is zero


@dataclasses.dataclass
class Memory:
    """Everything remembered of one source.

    Attributes:
        seen: By path.
        images: By image id: those whose bytes are in the store.
        splits: By image id, for ever, of images that are no longer in the source too.
        version: Of the pointer, for the compare-and-swap.
        partial: Keys of what interrupted runs and this one left.
        repacked: Whether images were fetched again since their shard was gone.
        comparisons: Which images show the same picture.
        split: The shares and the seed of the last run; None where it did not say.
        unmeasured: Images that an older Graftline fetched without measuring their values.
        value_range: What was measured in this source.
    """

    seen: dict[str, Seen] = dataclasses.field(default_factory=dict)
    images: MutableMapping[str, Known] = dataclasses.field(default_factory=PackedImages)
    splits: dict[str, str] = dataclasses.field(default_factory=dict)
    version: str | None = None
    partial: set[str] = dataclasses.field(default_factory=set)
    repacked: bool = False
    comparisons: Comparisons = dataclasses.field(default_factory=Comparisons)
    split: Mapping[str, float] | None = None
    unmeasured: set[str] = dataclasses.field(default_factory=set)
    value_range: ValueRange | None = None


def memory_key(source_uri: str, name: str = ".json") -> str:
    """The store's key for a part of a source's memory."""
    digest = hashlib.sha256(source_uri.encode()).hexdigest()[:32]
    return f"sources/{digest}{name}"


def load_memory(store: Store, source_uri: str, listed: Iterable[Entry] = ()) -> Memory:
    """Read what is remembered; what is in a shard that is gone is forgotten.

    Args:
        store: Holds it.
        source_uri: Of the source.
        listed: What is in the source now. Texts that are the same are one object in memory.
    """
    memory = Memory()
    texts = _Texts(listed)
    pointer = _pointer(store, source_uri)
    if pointer is not None:
        memory.version = pointer.version
        _add_tables(memory, store, source_uri, pointer.content, texts)
    _add_partial(memory, store, source_uri, texts)
    shards = {info.key[len("shards/") : -len(".tar")] for info in store.list("shards/")}
    lost = {i for i, known in memory.images.items() if known.byte_range.shard not in shards}
    if lost:
        lost_images = counted(len(lost), "image")
        message("fetched again, since their shards are gone: %s", lost_images)
        _forget(memory, lost)
        memory.repacked = True
    older = {i for i in memory.unmeasured if i in memory.images and memory.images[i].format == TIFF}
    if older:
        message("%d TIFF images were read by an older Graftline; they are read again", len(older))
        _forget(memory, older)
    return memory


def _forget(memory: Memory, ids: set[str]) -> None:
    """Look at images again, and at the archives that they are in."""
    paths = {path for path, one in memory.seen.items() if one.image_id in ids}
    archives = {path.partition("#")[0] for path in paths if "#" in path}
    forgotten = paths | archives
    memory.seen = {p: s for p, s in memory.seen.items() if p not in forgotten}
    for image_id in ids & memory.images.keys():
        del memory.images[image_id]
    memory.unmeasured -= ids


def last_snapshot_id(store: Store, source_uri: str) -> str | None:
    """The snapshot that the last ingest of a source ended with, None before the first."""
    pointer = _pointer(store, source_uri)
    return None if pointer is None else str(pointer.content["snapshot"])


def last_split(store: Store, source_uri: str) -> Mapping[str, float] | None:
    """The shares and the seed by which a source was split last; None before the first run."""
    pointer = _pointer(store, source_uri)
    split = None if pointer is None else pointer.content.get("split")
    return split if isinstance(split, dict) else None


def _pointer(store: Store, source_uri: str) -> commit.Manifest | None:
    """What says which tables are current, None before the first run."""
    key = memory_key(source_uri)
    try:
        return commit.read(store, key, SCHEMA_VERSION)
    except StoreNotFound:
        return None
    except IntegrityError as error:
        raise DataError(
            f"{store.uri}/{key} is damaged", why=error.what, fix=_fix(store, key)
        ) from error


def _fix(store: Store, key: str) -> str:
    return (
        "Restore it from a backup: it holds the splits that earlier models were tested on. "
        f"To start again without them, remove {store.uri}/{key}."
    )


class _Texts:
    """One object for each text, however often it occurs in the tables."""

    def __init__(self, listed: Iterable[Entry]) -> None:
        self.entries = {entry.path: entry for entry in listed}
        self.ids: dict[str, str] = {}
        self.words: dict[str, str] = {}

    def id(self, image_id: str) -> str:
        return self.ids.setdefault(image_id, image_id)

    def word(self, text: str | None) -> str | None:
        return None if text is None else self.words.setdefault(text, text)

    def seen(self, row: Mapping[str, Any]) -> Seen:
        path, version = row["path"], row["version"]
        entry = self.entries.get(path)
        if entry is not None:
            path = entry.path
            version = entry.version if entry.version == version else version
        attributes = json.loads(row["attributes"]) if row["attributes"] else NO_ATTRIBUTES
        if entry is not None and attributes == entry.attributes:
            attributes = entry.attributes
        return Seen(
            path,
            version,
            None if row["image_id"] is None else self.id(row["image_id"]),
            self.word(row["reason"]),
            self.word(row["detail"]),
            self.word(row["label"]),
            self.word(row["split"]),
            self.word(row["group"]),
            attributes,
        )


def _add_tables(
    memory: Memory, store: Store, source_uri: str, head: Mapping[str, Any], texts: _Texts
) -> None:
    what = f"{store.uri}/{memory_key(source_uri)}"
    try:
        if "value_range" in head:
            low, high = head["value_range"]
            memory.value_range = (float(low), float(high))
        what = f"{store.uri}/{head['images']}"
        _add_images(memory, _stored_rows(store, head["images"]), texts)
        kept = list(memory.images)
        what = f"{store.uri}/{head['splits']}"
        for row in _stored_rows(store, head["splits"]):
            memory.splits[texts.id(row["image_id"])] = str(texts.word(row["split"]))
        what = f"{store.uri}/{head['seen']}"
        _add_seen(memory, _stored_rows(store, head["seen"]), texts)
    except (ValueError, KeyError, TypeError, StoreNotFound, IntegrityError) as error:
        raise DataError(
            f"{what} is damaged or gone",
            why=str(error),
            fix=_fix(store, memory_key(source_uri)),
        ) from error
    memory.split = head.get("split")
    _add_comparisons(memory, store, head.get("comparisons"), kept)


def _stored_rows(store: Store, key: str) -> Iterator[dict[str, Any]]:
    """The rows of a table in the store, few at a time in memory."""
    with tempfile.TemporaryDirectory(prefix="graftline-") as folder:
        path = Path(folder) / "table.parquet"
        store.download(key, path)
        # A name ends with the sha256 of the bytes, or its half.
        digest = key.rpartition("-")[2].removesuffix(".parquet")
        if not sha256_of(path).startswith(digest):
            raise IntegrityError(f"{store.uri}/{key} is not what its name says")
        yield from parquet_rows(path)


def _add_comparisons(memory: Memory, store: Store, kept: Any, images: list[str]) -> None:
    """Add what was compared; without it, or by another rule, everything is compared again."""
    if not isinstance(kept, dict) or kept.get("version") != COMPARISON_VERSION:
        return
    names = [f.name for f in COMPARISON]
    try:
        for row in _stored_rows(store, str(kept["key"])):
            one, other, same = (row[name] for name in names)
            if one == other:
                memory.comparisons.compared.add(images[one])
            else:
                memory.comparisons.answers[images[one], images[other]] = same
    except (ValueError, KeyError, TypeError, IndexError, StoreNotFound, IntegrityError):
        memory.comparisons = Comparisons()
        message("%s is damaged and is left out; images are compared again", kept.get("key"))


def _add_partial(memory: Memory, store: Store, source_uri: str, texts: _Texts) -> None:
    """Add what interrupted runs left; what cannot be read is only fetched once more."""
    for info in list(store.list(memory_key(source_uri, "/partial/"))):
        memory.partial.add(info.key)
        try:
            table = read_parquet(_read_partial(store, info.key))
            _add_seen(memory, table.column("seen")[0].as_py(), texts)
            _add_images(memory, table.column("images")[0].as_py(), texts)
        except StoreNotFound:
            continue  # another run is done with it, and moved the pointer
        except (ValueError, KeyError, TypeError, IntegrityError):
            message("%s is damaged and is left out; its images are fetched again", info.key)


def _read_partial(store: Store, key: str) -> bytes:
    _, own, digest = key.rpartition("/")[2].removesuffix(".parquet").partition("-")
    return commit.fetch_bytes(store, key, digest) if own else store.read(key)


def _add_seen(memory: Memory, rows: Iterable[Mapping[str, Any]], texts: _Texts) -> None:
    for row in rows:
        one = texts.seen(row)
        memory.seen[one.path] = one


def _add_images(memory: Memory, rows: Iterable[Mapping[str, Any]], texts: _Texts) -> None:
    for row in rows:
        image_id = texts.id(row["image_id"])
        memory.images[image_id] = Known(
            image_id,
            row["width"],
            row["height"],
            row["format"],
            row["bytes"],
            PictureHash(row["dhash"], row["thumbnail"]),
            ByteRange(row["shard"], row["offset"], row["length"]),
            Values(**row["values"]) if row.get("values") else None,
        )
        if "values" not in row:
            memory.unmeasured.add(image_id)


SEEN = pa.struct([(f.name, pa.string()) for f in dataclasses.fields(Seen)])
VALUES = [("kind", pa.string())] + [
    (name, pa.float64()) for name in ("lowest", "low", "high", "highest")
]
IMAGES = pa.struct(
    [
        ("image_id", pa.string()),
        ("width", pa.int32()),
        ("height", pa.int32()),
        ("format", pa.string()),
        ("bytes", pa.int64()),
        ("dhash", pa.uint64()),
        ("thumbnail", pa.binary()),
        ("shard", pa.string()),
        ("offset", pa.int64()),
        ("length", pa.int64()),
        ("values", pa.struct(VALUES)),
    ]
)
SPLIT = pa.struct([("image_id", pa.string()), ("split", pa.string())])
# Rows of the table of images. A row with itself: it was compared with all other such rows.
COMPARISON = pa.struct([("first", pa.int32()), ("second", pa.int32()), ("same", pa.bool_())])


def _seen_rows(seen: Iterable[Seen]) -> Iterator[dict[str, Any]]:
    names = [f.name for f in dataclasses.fields(Seen)]
    for one in seen:
        row = {name: getattr(one, name) for name in names}
        row["attributes"] = json.dumps(row["attributes"]) if row["attributes"] else None
        yield row


def _image_rows(images: Iterable[Known]) -> Iterator[dict[str, Any]]:
    for one in images:
        yield {
            "image_id": one.image_id,
            "width": one.width,
            "height": one.height,
            "format": one.format,
            "bytes": one.bytes,
            "dhash": one.picture_hash.dhash,
            "thumbnail": one.picture_hash.thumbnail,
            "shard": one.byte_range.shard,
            "offset": one.byte_range.offset,
            "length": one.byte_range.length,
            "values": None if one.values is None else dataclasses.asdict(one.values),
        }


def _comparison_rows(memory: Memory) -> Iterator[dict[str, Any]]:
    ids, known = sorted(memory.images), memory.comparisons
    for row, image_id in enumerate(ids):
        if image_id in known.compared:
            yield {"first": row, "second": row, "same": True}
    asked = {image_id for pair in known.answers for image_id in pair}
    row_of = {image_id: row for row, image_id in enumerate(ids) if image_id in asked}
    for one, other in sorted(known.answers):
        if one in row_of and other in row_of:
            same = known.answers[one, other]
            yield {"first": row_of[one], "second": row_of[other], "same": same}


def save_partial(
    store: Store, source_uri: str, shard: str, seen: Iterable[Seen], images: Iterable[Known]
) -> str:
    """Leave what was fetched so far where the next run finds it; the key comes back."""
    table = pa.table(
        {
            "seen": pa.array([list(_seen_rows(seen))], type=pa.list_(SEEN)),
            "images": pa.array([list(_image_rows(images))], type=pa.list_(IMAGES)),
        }
    )
    pattern = memory_key(source_uri, f"/partial/{shard[:16]}-{commit.ANY}.parquet")
    return commit.put_bytes(store, parquet_bytes(table), pattern)


def _store_rows(
    store: Store,
    source_uri: str,
    name: str,
    rows: Iterable[Mapping[str, Any]],
    schema: pa.Schema,
) -> str:
    """Write a table named by its content, a part of it in memory at a time; the key comes back."""
    with tempfile.TemporaryDirectory(prefix="graftline-") as folder:
        path = Path(folder) / "table.parquet"
        with os_errors(folder, "write"):
            write_parquet(path, rows, schema)
        pattern = memory_key(source_uri, f"/{name}-{commit.ANY}.parquet")
        return commit.put_file(store, path, pattern)


def save_memory(store: Store, source_uri: str, memory: Memory, snapshot_id: str) -> None:
    """Write the tables, then move the pointer to them.

    Raises:
        PreconditionFailed: Another run has moved it meanwhile: load and decide again.
    """
    head: dict[str, Any] = {
        "schema_version": SCHEMA_VERSION,
        "source": source_uri,
        "snapshot": snapshot_id,
    }
    if memory.value_range is not None:
        head["value_range"] = list(memory.value_range)
    tables: dict[str, tuple[Iterator[dict[str, Any]], pa.DataType]] = {
        "seen": (_seen_rows(memory.seen[path] for path in sorted(memory.seen)), SEEN),
        "images": (_image_rows(memory.images[i] for i in sorted(memory.images)), IMAGES),
        "splits": (
            ({"image_id": i, "split": memory.splits[i]} for i in sorted(memory.splits)),
            SPLIT,
        ),
    }
    tables["comparisons"] = (_comparison_rows(memory), COMPARISON)
    for name, (rows, kind) in tables.items():
        head[name] = _store_rows(store, source_uri, name, rows, pa.schema(list(kind)))
    head["comparisons"] = {"version": COMPARISON_VERSION, "key": head["comparisons"]}
    if memory.split is not None:
        head["split"] = dict(memory.split)
    commit.replace(store, memory_key(source_uri), head, memory.version)
    for key in memory.partial:
        store.delete(key)

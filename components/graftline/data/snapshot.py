"""The dataset snapshot: which images, with which label, in which split, and where their bytes are.

A folder with ``snapshot.json``, ``manifest.parquet`` (one row an image, sorted by image id) and
``set_aside.parquet`` (what was not taken, and why). The images are in the store's shards.
"""

import dataclasses
import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from graftline.data.shards import ByteRange, read_ranges
from graftline.data.tables import GROUP, read_parquet, write_table
from graftline.errors import (
    ConfigurationError,
    DataError,
    IntegrityError,
    PreconditionFailed,
    StoreNotFound,
)
from graftline.files import os_errors, replacing, sha256_of, write_atomic
from graftline.images.stored_values import ValueRange
from graftline.schema import SEAL, parse_json, seal, unseal
from graftline.storage import commit, open_store
from graftline.storage.base import Store

SCHEMA_VERSION = 2
SPLITS = ("train", "val", "test")
FILES = ("manifest.parquet", "set_aside.parquet", "snapshot.json")  # the last one completes it
RESTORE = "Run `ingest` again: the images are still in the store."

MANIFEST = pa.schema(
    [
        ("image_id", pa.string()),  # sha256 of the file's bytes
        ("source", pa.string()),
        ("source_version", pa.string()),
        ("label", pa.string()),
        ("split", pa.string()),
        ("group", pa.string()),
        ("width", pa.int32()),
        ("height", pa.int32()),
        ("format", pa.string()),
        ("bytes", pa.int64()),
        ("shard", pa.string()),
        ("offset", pa.int64()),
        ("length", pa.int64()),
        ("dhash", pa.uint64()),
    ]
)
SET_ASIDE = pa.schema(
    [
        ("source", pa.string()),
        ("source_version", pa.string()),
        ("label", pa.string()),
        ("reason", pa.string()),
        ("detail", pa.string()),
        ("image_id", pa.string()),
    ]
)

Rows = npt.NDArray[np.int64]


@dataclasses.dataclass(frozen=True)
class Snapshot:
    """A dataset as it was at one moment.

    Attributes:
        id: Digest of image ids, labels, splits, groups and attributes.
        folder: Where the files are.
        manifest: One row an image, sorted by image id.
        classes: The labels, sorted; a class index is a position here.
        store: URI of the store that holds the shards.
        source: URI that it was taken from.
        set_aside: What was not taken, with the reason.
        created: When, ISO 8601 in UTC.
        not_evaluated: Ids of val and test images that show the same picture as an image of an
            earlier split, in the order train, val, test. They keep their split, and nothing is
            measured on them.
        contradictions: Pairs of ids that show the same picture under two labels.
        value_range: The stored values that are black and white in its images of more than 8
            bits; None where there are none.
        reading: How the source was read, for people; no part of the id.
    """

    id: str
    folder: Path
    manifest: pa.Table
    classes: tuple[str, ...]
    store: str
    source: str
    set_aside: pa.Table
    created: str
    schema_version: int = SCHEMA_VERSION
    not_evaluated: tuple[str, ...] = ()
    contradictions: tuple[tuple[str, str], ...] = ()
    value_range: ValueRange | None = None
    reading: Mapping[str, Any] = dataclasses.field(default_factory=dict)

    def __len__(self) -> int:
        return int(self.manifest.num_rows)

    def rows(self, split: str | None = None) -> Rows:
        """Row numbers of a split that are trained or measured on, ascending; of all for None."""
        if split is None:
            return np.arange(len(self), dtype=np.int64)
        if split not in SPLITS:
            raise ConfigurationError(
                f"{split!r} is not a split", fix=f"Use one of {', '.join(SPLITS)}."
            )
        rows = np.flatnonzero(self.column("split") == split).astype(np.int64)
        if not self.not_evaluated:
            return rows
        return rows[~np.isin(self.column("image_id")[rows], list(self.not_evaluated))]

    def labels(self) -> npt.NDArray[np.int64]:
        """The class index of each row."""
        return np.searchsorted(np.array(self.classes, dtype=object), self.column("label"))

    def image_ids(self) -> list[str]:
        """The image id of each row."""
        return list(self.manifest.column("image_id").to_pylist())

    def column(self, name: str) -> npt.NDArray[Any]:
        """A manifest column as an array; strings as objects."""
        if name not in self.manifest.column_names:
            raise ConfigurationError(
                f"The snapshot has no column {name!r}",
                fix=f"It has {', '.join(self.manifest.column_names)}.",
            )
        values: npt.NDArray[Any] = self.manifest.column(name).to_numpy()
        return values

    @property
    def attributes(self) -> tuple[str, ...]:
        """The names of the user's own columns."""
        return tuple(self.manifest.column_names[len(MANIFEST) :])

    @cached_property
    def _byte_ranges(self) -> tuple[npt.NDArray[Any], ...]:
        return tuple(self.column(name) for name in ("image_id", "shard", "offset", "length"))

    def storage_order(self, rows: Sequence[int] | Rows) -> Rows:
        """The same rows in the order in which the store reads them fastest."""
        _, shards, offsets, _ = self._byte_ranges
        wanted = np.asarray(rows, dtype=np.int64)
        return wanted[np.lexsort((offsets[wanted], shards[wanted].astype(str)))]


def read_images(
    snapshot: Snapshot, rows: Sequence[int] | Rows, *, store: Store | None = None
) -> Iterator[tuple[int, bytes]]:
    """The encoded bytes of rows, in the order given, each compared with its sha256.

    Rows in :meth:`Snapshot.storage_order` are read in long ranges; any other order costs one
    request an image. Memory is bounded: :func:`graftline.data.shards.read_ranges` reads ahead.
    """
    ids, shards, offsets, lengths = snapshot._byte_ranges
    wanted = [
        (str(ids[row]), ByteRange(str(shards[row]), int(offsets[row]), int(lengths[row])))
        for row in rows
    ]
    opened = store or open_store(snapshot.store)
    for row, data in zip(rows, read_ranges(opened, wanted), strict=True):
        yield int(row), data


def snapshot_digest(
    manifest: pa.Table,
    not_evaluated: Sequence[str] = (),
    value_range: ValueRange | None = None,
) -> str:
    """The snapshot's id: equal data gives an equal id wherever the bytes stand.

    Args:
        manifest: Sorted by image id.
        not_evaluated: Sorted ids; without any, the digest is that of the manifest alone.
        value_range: Read by another range, the same files are other pictures.
    """
    columns_digested = ["image_id", "label", "split", "group"]
    attributes = manifest.column_names[len(MANIFEST) :]
    digest = hashlib.sha256(json.dumps([SCHEMA_VERSION, *attributes]).encode())
    if value_range is not None:
        digest.update(json.dumps({"value_range": list(value_range)}).encode() + b"\n")
    for batch in manifest.select([*columns_digested, *attributes]).to_batches(max_chunksize=10_000):
        columns = [column.to_pylist() for column in batch.columns]
        for row in zip(*columns, strict=True):
            digest.update(json.dumps(row, default=str).encode() + b"\n")
    if not_evaluated:
        digest.update(json.dumps(["not evaluated", *not_evaluated]).encode())
    return digest.hexdigest()[:32]


def write_snapshot(
    folder: Path,
    manifest: pa.Table,
    set_aside: pa.Table,
    *,
    store: str,
    source: str,
    created: str | None = None,
    not_evaluated: Sequence[str] = (),
    contradictions: Sequence[tuple[str, str]] = (),
    value_range: ValueRange | None = None,
    reading: Mapping[str, Any] | None = None,
) -> Snapshot:
    """Write the snapshot's folder; ``snapshot.json`` comes last and makes it complete."""
    if not _is_sorted(manifest.column("image_id")):
        manifest = manifest.sort_by("image_id").combine_chunks()
    identity = snapshot_digest(manifest, sorted(not_evaluated), value_range)
    classes = tuple(sorted(manifest.column("label").unique().to_pylist()))
    counted = manifest.column("split").value_counts().to_pylist()
    splits = {one["values"]: one["counts"] for one in counted}
    head = {
        "schema_version": SCHEMA_VERSION,
        "id": identity,
        "classes": classes,
        "images": {split: splits.get(split, 0) for split in SPLITS},
        "store": store,
        "source": source,
        "created": created or datetime.now(UTC).isoformat(timespec="seconds"),
        "reading": dict(reading or {}),
    }
    # Only where there are any: a reader that does not know them reads all other snapshots alike.
    if not_evaluated:
        head["not_evaluated"] = sorted(not_evaluated)
    if contradictions:
        head["contradictions"] = sorted(contradictions)
    if value_range is not None:
        head["value_range"] = list(value_range)
    with os_errors(str(folder), "write"):
        digests = {}
        for name, table in zip(FILES, (manifest, set_aside), strict=False):
            with replacing(folder / name) as temporary:
                write_table(temporary, table, GROUP)
                digests[name] = sha256_of(temporary)
        text = seal({**head, "sha256": digests}, indent=1)
        write_atomic(folder / FILES[-1], text)
    # Not read again: a second copy of the manifest would be the most of what ingest holds.
    return _snapshot(folder, unseal(text, FILES[-1]), manifest, set_aside)


def _is_sorted(ids: pa.ChunkedArray) -> bool:
    return pc.all(pc.less_equal(ids[:-1], ids[1:])).as_py() is not False


def read_snapshot(folder: Path | str) -> Snapshot:
    """Read a snapshot's folder.

    Raises:
        SchemaVersionError: It was written by an older or newer Graftline.
        DataError: A file of it is damaged.
    """
    folder = Path(folder)
    with os_errors(str(folder / FILES[-1]), "read"):
        text = (folder / FILES[-1]).read_bytes()
    try:
        parse_json(text, SCHEMA_VERSION, f"The snapshot in {folder}")  # other versions, other seals
        head = unseal(text, FILES[-1])
        tables = [_read_table(folder / name, head["sha256"][name]) for name in FILES[:-1]]
        return _snapshot(folder, head, *tables)
    except (IntegrityError, ValueError, KeyError, TypeError) as error:
        raise DataError(
            f"The snapshot in {folder} is damaged",
            why=str(error),
            fix=RESTORE,
        ) from error


def _snapshot(
    folder: Path, head: Mapping[str, Any], manifest: pa.Table, set_aside: pa.Table
) -> Snapshot:
    return Snapshot(
        id=head["id"],
        folder=folder,
        manifest=manifest,
        classes=tuple(head["classes"]),
        store=head["store"],
        source=head["source"],
        set_aside=set_aside,
        created=head["created"],
        not_evaluated=tuple(head.get("not_evaluated", ())),
        contradictions=tuple((one, other) for one, other in head.get("contradictions", ())),
        value_range=_value_range(head.get("value_range")),
        reading=head.get("reading") or {},
    )


def _value_range(values: Any) -> ValueRange | None:
    return None if values is None else (float(values[0]), float(values[1]))


def _read_table(path: Path, sha256: str) -> pa.Table:
    try:
        data = path.read_bytes()
    except FileNotFoundError as error:
        raise ValueError(f"{path.name} is missing") from error
    if hashlib.sha256(data).hexdigest() != sha256:
        raise ValueError(f"{path.name} is not the file that snapshot.json was written with")
    return read_parquet(data)


def snapshot_key(snapshot_id: str, name: str) -> str:
    """The store's key for a file of a snapshot."""
    return f"snapshots/{snapshot_id}/{name}"


def keep_snapshot(store: Store, snapshot: Snapshot, *, replace: bool = False) -> None:
    """Put the snapshot's files in the store, where later runs find them by its id.

    Two runs may keep the same snapshot at once, with other places of the same images. Each names
    its tables by their content, so that what ``snapshot.json`` names is whole, whoever wrote it.

    Args:
        store: The store.
        snapshot: The snapshot.
        replace: Whether one that is kept already is replaced, since its images were packed again.
    """
    key = snapshot_key(snapshot.id, FILES[-1])
    head = json.loads((snapshot.folder / FILES[-1]).read_bytes())
    head = {name: value for name, value in head.items() if name not in (SEAL, commit.TOKEN)}
    while True:
        version, damaged = None, False
        try:
            kept = commit.read(store, key)
            version = kept.version
            if not replace and _has_tables(store, snapshot.id, kept.content):
                return None
        except StoreNotFound:
            pass
        except IntegrityError:
            damaged = True
        for name in FILES[:-1]:
            commit.put_file(store, snapshot.folder / name, _table_key(snapshot.id, commit.ANY))
        if damaged:  # nobody can read it: it may be replaced whoever does so
            return commit.overwrite(store, key, head)
        try:
            commit.replace(store, key, head, version)
        except PreconditionFailed:
            continue  # another run kept it meanwhile
        return None


def fetch_snapshot(store: Store, snapshot_id: str, folder: Path) -> Snapshot:
    """Copy a kept snapshot out of the store and read it."""
    manifest = commit.read(store, snapshot_key(snapshot_id, FILES[-1]), SCHEMA_VERSION)
    what = f"The snapshot {snapshot_id} in {store.uri}"
    for name in FILES[:-1]:
        digest = _digest_of(manifest.content, name, what)
        try:
            commit.fetch_file(store, _table_key(snapshot_id, digest), digest, folder / name)
        except StoreNotFound:  # an earlier version kept it by its plain name
            commit.fetch_file(store, snapshot_key(snapshot_id, name), digest, folder / name)
    with os_errors(str(folder), "write"):
        write_atomic(folder / FILES[-1], manifest.data)
    return read_snapshot(folder)


def kept_head(store: Store, snapshot_id: str) -> dict[str, Any]:
    """What ``snapshot.json`` of a kept snapshot says."""
    return commit.read(store, snapshot_key(snapshot_id, FILES[-1])).content


def kept_manifest(store: Store, snapshot_id: str) -> bytes:
    """The bytes of a kept snapshot's manifest, compared with their sha256."""
    head = kept_head(store, snapshot_id)
    digest = _digest_of(head, FILES[0], f"The snapshot {snapshot_id} in {store.uri}")
    try:
        return commit.fetch_bytes(store, _table_key(snapshot_id, digest), digest)
    except StoreNotFound:
        return commit.fetch_bytes(store, snapshot_key(snapshot_id, FILES[0]), digest)


def _has_tables(store: Store, snapshot_id: str, head: Mapping[str, Any]) -> bool:
    digests = head.get("sha256") or {}
    return all(
        store.exists(_table_key(snapshot_id, str(digests.get(name))))
        or store.exists(snapshot_key(snapshot_id, name))
        for name in FILES[:-1]
    )


def _table_key(snapshot_id: str, digest: str) -> str:
    return snapshot_key(snapshot_id, f"{digest}.parquet")


def _digest_of(head: Mapping[str, Any], name: str, what: str) -> str:
    digests = head.get("sha256")
    if not isinstance(digests, dict) or not isinstance(digests.get(name), str):
        raise IntegrityError(f"{what} is damaged: it does not name {name}", fix=RESTORE)
    return str(digests[name])

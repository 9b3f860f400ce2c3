"""What the data page shows: a bounded choice of pictures, and the snapshot before this one."""

import hashlib
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa

from graftline.data.snapshot import FILES, Snapshot, kept_head, kept_manifest, read_images
from graftline.data.sources.base import Entry, Source
from graftline.data.tables import read_parquet
from graftline.errors import GraftlineError, IntegrityError, StoreNotFound
from graftline.images.decode import decode
from graftline.reports.html import thumbnail
from graftline.storage.base import Store

CLASSES, PER_CLASS = 60, 6
GROUPS, PER_GROUP = 12, 6
PAIRS = 24
REJECTED = 24
SIZE = 128  # longer side of a thumbnail, in pixels
MOST_HEADS = 500  # of snapshots in the store, read to find the one before
MOST_COMPARED = 300_000  # images; more would not fit the memory that ingest may use
HEAD_THREADS = 16

Rows = list[dict[str, Any]]


@dataclass(frozen=True)
class Before:
    """What changed since the snapshot before this one, by image id.

    Attributes:
        id: Of the earlier snapshot.
        created: When it was taken.
        added: Row numbers of images that it lacks.
        removed: File and label of images that are gone.
        relabelled: Row numbers of images with another label now, with the earlier one.
    """

    id: str
    created: str
    added: list[int]
    removed: list[tuple[str, str]]
    relabelled: list[tuple[int, str]]

    def __bool__(self) -> bool:
        return bool(self.added or self.removed or self.relabelled)


@dataclass(frozen=True)
class Evidence:
    """All that the page is made of.

    Attributes:
        snapshot: The snapshot.
        sheets: Row numbers of the examples of each class.
        groups: Row numbers of the largest groups of more than one image, and their full sizes.
        grouped: How many groups of more than one image there are, and images in them.
        contradictions: Pairs of row numbers.
        not_evaluated: Row numbers, each with an image of its group in another split or None.
        pictures: Data URIs by row number.
        rejected: Data URIs by row number of the table of what was rejected.
        before: None where there is no earlier snapshot of the source.
        levels: Darkest, mean and brightest value of the pictures shown, 0 to 255.
    """

    snapshot: Snapshot
    sheets: Mapping[str, list[int]]
    groups: list[tuple[list[int], int]]
    grouped: tuple[int, int]
    contradictions: list[tuple[int, int]]
    not_evaluated: list[tuple[int, int | None]]
    pictures: Mapping[int, str] = field(repr=False)
    rejected: Mapping[int, str] = field(repr=False)
    before: Before | None
    levels: tuple[float, float, float] | None


def gather(snapshot: Snapshot, store: Store, source: Source | None = None) -> Evidence:
    """Choose what is shown and read its pictures, at most about 600.

    Args:
        snapshot: The snapshot.
        store: Where its images are.
        source: Is asked for what was rejected; None shows no pictures of it.

    Raises:
        StoreError: The store cannot be read.
    """
    row_of = _rows_by_id(snapshot)
    before = changes(snapshot, store)
    sheets = _sheets(snapshot)
    groups, grouped = _groups(snapshot)
    pairs = [
        (row_of[one], row_of[other])
        for one, other in snapshot.contradictions
        if one in row_of and other in row_of
    ][:PAIRS]
    left_out = _not_evaluated(snapshot, row_of)
    shown: set[int] = {row for rows in sheets.values() for row in rows}
    shown.update(row for rows, _ in groups for row in rows)
    shown.update(row for pair in (*pairs, *left_out) for row in pair if row is not None)
    if before is not None:
        shown.update([*before.added[:PAIRS], *(row for row, _ in before.relabelled[:PAIRS])])
    pictures, levels = _pictures(snapshot, store, shown)
    return Evidence(
        snapshot=snapshot,
        sheets=sheets,
        groups=groups,
        grouped=grouped,
        contradictions=pairs,
        not_evaluated=left_out,
        pictures=pictures,
        rejected=_rejected(snapshot, source) if source is not None else {},
        before=before,
        levels=levels,
    )


def _rows_by_id(snapshot: Snapshot) -> dict[str, int]:
    """The rows of the images that the snapshot names by id."""
    named = {*snapshot.not_evaluated, *(one for pair in snapshot.contradictions for one in pair)}
    if not named:
        return {}
    return {str(i): row for row, i in enumerate(snapshot.column("image_id")) if i in named}


def _sheets(snapshot: Snapshot) -> dict[str, list[int]]:
    """Examples by class: image ids are digests, so the first of them are a random choice.

    Of more than ``CLASSES`` classes, half are the largest and half the smallest.
    """
    labels = snapshot.labels()
    counts = np.bincount(labels, minlength=len(snapshot.classes))
    chosen = np.arange(len(snapshot.classes))
    if len(chosen) > CLASSES:
        order = np.argsort(counts, kind="stable")
        chosen = np.sort(np.concatenate([order[: CLASSES // 2], order[-(CLASSES // 2) :]]))
    order = np.argsort(labels, kind="stable")
    first = np.concatenate([[0], np.cumsum(counts)])
    return {
        snapshot.classes[k]: [
            int(row) for row in order[first[k] : min(first[k + 1], first[k] + PER_CLASS)]
        ]
        for k in chosen
    }


def _groups(snapshot: Snapshot) -> tuple[list[tuple[list[int], int]], tuple[int, int]]:
    counted = pa.table({"group": snapshot.manifest.column("group")}).group_by("group")
    table = counted.aggregate([("group", "count")])
    sizes = table.column("group_count").to_numpy()
    names = table.column("group")
    several = np.flatnonzero(sizes > 1)
    largest = sorted(several, key=lambda i: (-int(sizes[i]), str(names[int(i)].as_py())))[:GROUPS]
    shown: dict[str, list[int]] = {str(names[int(i)].as_py()): [] for i in largest}
    for row, group in enumerate(snapshot.column("group") if shown else ()):
        if group in shown and len(shown[group]) < PER_GROUP:
            shown[group].append(row)
    found = [(shown[str(names[int(i)].as_py())], int(sizes[i])) for i in largest]
    return found, (len(several), int(sizes[several].sum()))


def _not_evaluated(snapshot: Snapshot, row_of: Mapping[str, int]) -> list[tuple[int, int | None]]:
    """Each beside an image of its group in another split, where there is one."""
    rows = [row_of[i] for i in snapshot.not_evaluated if i in row_of][:PAIRS]
    if not rows:
        return []
    groups, splits = snapshot.column("group"), snapshot.column("split")
    wanted = {groups[row] for row in rows}
    mates: dict[str, list[int]] = defaultdict(list)
    for row, group in enumerate(groups):
        if group in wanted:
            mates[group].append(row)
    return [
        (row, next((m for m in mates[groups[row]] if splits[m] != splits[row]), None))
        for row in rows
    ]


def _pictures(
    snapshot: Snapshot, store: Store, rows: Iterable[int]
) -> tuple[dict[int, str], tuple[float, float, float] | None]:
    found: dict[int, str] = {}
    levels: list[tuple[float, float, float]] = []
    for row, data in read_images(snapshot, snapshot.storage_order(list(rows)), store=store):
        try:
            image = decode(data, shortest=SIZE, value_range=snapshot.value_range)
        except GraftlineError:
            continue  # larger than the usual limit: named without a picture
        levels.append((float(image.min()), float(image.mean()), float(image.max())))
        found[row] = thumbnail(image, SIZE)
    if not levels:
        return found, None
    low, mean, high = zip(*levels, strict=True)
    return found, (min(low), sum(mean) / len(mean), max(high))


def _rejected(snapshot: Snapshot, source: Source) -> dict[int, str]:
    """Pictures of what was rejected although it is an image, of each reason in turn."""
    by_reason: dict[str, list[int]] = defaultdict(list)
    table = snapshot.set_aside.select(["source", "source_version", "reason", "image_id"])
    names, versions, reasons, ids = (column.to_pylist() for column in table.columns)
    for row, (reason, image_id) in enumerate(zip(reasons, ids, strict=True)):
        if image_id and len(by_reason[reason]) < REJECTED:
            by_reason[reason].append(row)
    found: dict[int, str] = {}
    share = max(1, REJECTED // max(1, len(by_reason)))
    for row in [row for rows in by_reason.values() for row in rows[:share]][:REJECTED]:
        try:
            data = source.read(Entry(names[row], versions[row] or "", 0))
            if hashlib.sha256(data).hexdigest() != ids[row]:
                continue
            image = decode(data, shortest=SIZE, value_range=snapshot.value_range)
        except (GraftlineError, TypeError, NotImplementedError):
            continue  # in an archive, gone, or changed since: named without a picture
        found[row] = thumbnail(image, SIZE)
    return found


def changes(snapshot: Snapshot, store: Store) -> Before | None:
    """Compare with the snapshot of the same source that was taken before this one."""
    found = _previous(snapshot, store)
    if found is None or len(snapshot) > MOST_COMPARED:
        return None
    identity, created, count = found
    if count > MOST_COMPARED:
        return None
    try:
        table = read_parquet(kept_manifest(store, identity))
    except (StoreNotFound, IntegrityError, ValueError):
        return None
    columns = (table.column(name).to_pylist() for name in ("image_id", "label", "source"))
    old = {i: (label, path) for i, label, path in zip(*columns, strict=True)}
    added, relabelled = [], []
    pairs = zip(snapshot.column("image_id"), snapshot.column("label"), strict=True)
    for row, (image_id, label) in enumerate(pairs):
        label_before, _ = old.pop(image_id, (None, ""))
        if label_before is None:
            added.append(row)
        elif label_before != label:
            relabelled.append((row, label_before))
    removed = sorted((path, label) for label, path in old.values())
    return Before(identity, created, added, removed, relabelled)


def _previous(snapshot: Snapshot, store: Store) -> tuple[str, str, int] | None:
    """Id, time and number of images of the snapshot before; heads only are read."""
    keys = [info.key for info in store.list("snapshots/") if info.key.endswith("/" + FILES[-1])]
    if len(keys) > MOST_HEADS:
        return None
    with ThreadPoolExecutor(HEAD_THREADS, thread_name_prefix="heads") as pool:
        heads = [head for head in pool.map(_reader(store), keys) if head]
    earlier = [
        (str(head["created"]), str(head["id"]), sum(head["images"].values()))
        for head in heads
        if head["source"] == snapshot.source
        and head["id"] != snapshot.id
        and str(head["created"]) <= snapshot.created
    ]
    if not earlier:
        return None
    created, identity, count = max(earlier)
    return identity, created, count


def _reader(store: Store) -> Callable[[str], dict[str, Any] | None]:
    def read(key: str) -> dict[str, Any] | None:
        try:
            head = kept_head(store, key.split("/")[1])
        except (StoreNotFound, IntegrityError):
            return None
        return head if {"id", "created", "source", "images"} <= head.keys() else None

    return read

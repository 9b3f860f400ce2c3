"""The step `ingest`: list, fetch only what is new, check, find duplicates, split, pack."""

import dataclasses
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from typing_extensions import override

from graftline.data.snapshot import SPLITS, Snapshot, keep_snapshot, write_snapshot
from graftline.data.sources import open_source
from graftline.data.sources.base import Columns, Entry, Reading, Source
from graftline.errors import PreconditionFailed
from graftline.images.decode import MAX_PIXELS
from graftline.images.stored_values import ValueRange
from graftline.progress import message
from graftline.steps.ingest.checks import (
    MIN_IMAGES_PER_CLASS,
    check_arguments,
    check_given,
    check_near_duplicates,
    check_remembered,
    check_selection,
)
from graftline.steps.ingest.fetch import GONE, fetch
from graftline.steps.ingest.incomplete import carved, refuse_missing
from graftline.steps.ingest.known import Seen
from graftline.steps.ingest.members import merge_labels, read_packed_folders
from graftline.steps.ingest.page import page_file, write_page
from graftline.steps.ingest.reading import check_same_reading, describe
from graftline.steps.ingest.selection import Selection, current, select, tables
from graftline.steps.ingest.source_index import Memory, load_memory, save_memory
from graftline.steps.ingest.value_range import Finding, check_range, find_range, measure_older, say
from graftline.steps.runtime import StepResult
from graftline.storage import open_store
from graftline.storage.base import Store

DEFAULT_SPLIT: Mapping[str, float] = {"train": 0.7, "val": 0.15, "test": 0.15}
SAMPLES_VERSION = 2  # of how a shard's samples are read; another one reads the shards again
TURNS = 5  # of giving way to another run on the same source


@dataclasses.dataclass(frozen=True, kw_only=True)
class IngestResult(StepResult):
    """What came in.

    Attributes:
        snapshot_id: Of the snapshot.
        images: Images by split.
        classes: The labels, sorted.
        per_class: Images by class.
        set_aside: Files that were not taken, by reason.
        fetched: Files read now.
        reused: Images whose bytes were in the store already.
        near_duplicates: Images that look like another one.
        not_evaluated: Held-out images that nothing is measured on: they show what an image of
            an earlier split shows.
        contradictions: Pairs that show the same picture under two labels.
        groups: How many groups there are.
        reading: How the source was read: format, layout, notes, and the splits taken from train.
        warnings: What is poor but possible.
        value_range: Black and white in images of more than 8 bits; None where there are none.
        page: The data page's file; None where it could not be written.
    """

    snapshot_id: str
    images: dict[str, int]
    classes: list[str]
    per_class: dict[str, int]
    set_aside: dict[str, int]
    fetched: int
    reused: int
    near_duplicates: int
    not_evaluated: int
    contradictions: int
    groups: int
    warnings: list[str]
    value_range: list[float] | None = None
    reading: dict[str, Any] = dataclasses.field(default_factory=dict)
    page: str | None = None

    @override
    def metrics(self) -> dict[str, float]:
        return {
            **{f"images_{split}": float(count) for split, count in self.images.items()},
            "set_aside": float(sum(self.set_aside.values())),
            "fetched": float(self.fetched),
            "near_duplicates": float(self.near_duplicates),
            "not_evaluated": float(self.not_evaluated),
        }

    @override
    def params(self) -> dict[str, str]:
        found = {"snapshot_id": self.snapshot_id, "classes": str(len(self.classes))}
        if self.value_range is not None:
            found["value_range"] = "{:g} to {:g}".format(*self.value_range)
        return found

    @override
    def files(self) -> dict[str, Path]:
        return page_file(self.page)


def run(
    *,
    source: str,
    store: str,
    snapshot_folder: Path,
    format: str = "auto",  # noqa: A002 -- the run file's own word
    split: Mapping[str, float] = DEFAULT_SPLIT,
    seed: int = 0,
    image_column: str = "image",
    label_column: str = "label",
    split_column: str | None = "split",
    group_column: str | None = None,
    attributes: Sequence[str] = (),
    layout: str = "auto",
    exclude: Sequence[str] = (),
    similar_labels: str = "auto",
    missing_splits: str = "carve",
    near_duplicates: str | None = "auto",
    min_images_per_class: int = MIN_IMAGES_PER_CLASS,
    max_pixels: int = MAX_PIXELS,
    value_range: Sequence[float] | None = None,
) -> IngestResult:
    """Take a snapshot of a source of labelled images.

    Args:
        source: A folder, ``file://`` or ``s3://`` URI, or a CSV table.
        store: Where the images are kept.
        snapshot_folder: Is written.
        format: ``auto``, ``folders``, ``table`` or ``shards``.
        split: Fractions of train, val and test for what is new.
        seed: Of the hash that splits.
        image_column: Of a table.
        label_column: Of a table, or a key of a shard's JSON notes; so are the next three.
        split_column: A stated split is obeyed; None leaves all to the hash.
        group_column: Images of one group stay in one split.
        attributes: Further columns to keep.
        layout: What each level of folders is, or ``auto``.
        exclude: Patterns of folders and files that are left out.
        similar_labels: What to do where labels look the same: ``auto``, ``merge``, ``refuse``
            or ``keep``.
        missing_splits: ``carve`` takes a split that the source lacks out of train; or ``refuse``.
        near_duplicates: ``auto`` groups the same picture saved again; ``off`` (or None) looks
            for none; ``strict`` also rejects what contradicts or ties splits together.
        min_images_per_class: A class with fewer is an error.
        max_pixels: Larger images are rejected unread.
        value_range: The stored values that are black and white in images of more than 8 bits;
            None measures them.

    Raises:
        DataError: Nothing that can be learned from; the message says what to do.
        StoreError: The source or the store cannot be read or written.
    """
    split = {name: float(value) for name, value in split.items()}
    near = near_duplicates or "off"
    check_arguments(split, attributes, min_images_per_class, near)
    given = check_range(value_range)
    columns = Columns(image_column, label_column, split_column, group_column, tuple(attributes))
    reading = Reading(layout, tuple(exclude), similar_labels)
    refuse_missing((), missing_splits)
    origin = open_source(source, format, columns, reading)
    place = open_store(store)
    place.check_writable()
    entries = origin.entries()
    message("%s: %s entries (%s)", origin.uri, f"{len(entries):,}", origin.format)
    told = _tell(origin, 0)
    check_given(origin, entries, split, min_images_per_class, missing_splits)
    read_as = f"{SAMPLES_VERSION} {columns!r}"
    fetched: set[str] = set()
    for turn in range(TURNS):
        memory = load_memory(place, origin.uri)
        new = [entry for entry in entries if _is_new(entry, memory, read_as)]
        fetched |= fetch(origin, new, place, memory, columns=read_as, max_pixels=max_pixels)
        found = list(current(entries, memory))
        named = merge_labels(read_packed_folders(found, origin), origin)
        told = _tell(origin, told)
        check_same_reading(place, origin, reading)
        selection = select(
            named,
            memory,
            store=place,
            fractions=split,
            seed=seed,
            near_duplicates=near,
            max_pixels=max_pixels,
            missing=missing_splits,
        )
        finding = _range(selection, memory, place, given)
        warnings = [
            *([carved(selection.missing, split)] if selection.missing else []),
            *check_remembered(memory, {**split, "seed": seed}, place, origin.uri),
            *check_near_duplicates(selection, near),
            *check_selection(selection, origin, min_images_per_class),
            *finding.warnings,
        ]
        record = describe(origin, selection.missing)
        manifest, set_aside = tables(selection, memory, list(attributes))
        snapshot = write_snapshot(
            snapshot_folder,
            manifest,
            set_aside,
            store=place.uri,
            source=origin.uri,
            not_evaluated=sorted(selection.alike.not_evaluated),
            contradictions=selection.alike.contradictions,
            value_range=finding.value_range,
            reading=record,
        )
        # What another run kept meanwhile may name places of the images that are not ours.
        keep_snapshot(place, snapshot, replace=memory.repacked or turn > 0)
        memory.splits.update(selection.assignment.splits)
        _forget_absent(memory, entries, found)
        try:
            save_memory(place, origin.uri, memory, snapshot.id)
            break
        except PreconditionFailed:
            if turn == TURNS - 1:
                raise
            message("Another run on this source was faster; deciding again with what it did")
    say(finding)
    page = write_page(snapshot, place, origin, warnings)
    return dataclasses.replace(_result(snapshot, selection, fetched, warnings), page=page)


def _range(selection: Selection, memory: Memory, store: Store, given: ValueRange | None) -> Finding:
    """By which range the images are read; what is measured is remembered."""
    if memory.unmeasured:
        measure_older(store, memory, selection.chosen)
    paths = {image_id: one.path for image_id, one in selection.chosen.items()}
    finding = find_range(paths, memory.images, given=given, remembered=memory.value_range)
    if given is None:
        memory.value_range = finding.value_range or memory.value_range
    return finding


def _tell(source: Source, after: int) -> int:
    """Say what was understood, from a position in the notes on; the next one comes back."""
    for note in source.notes[after:]:
        message("%s", note)
    if source.tree and len(source.notes) > after:
        message("\n%s", source.tree)
    return len(source.notes)


def _is_new(entry: Entry, memory: Memory, columns: str) -> bool:
    if entry.problem is not None:
        return False
    seen = memory.seen.get(entry.path)
    if seen is None or seen.version != entry.version or seen.reason == GONE:
        return True
    return entry.archive and seen.detail != columns


def _forget_absent(memory: Memory, entries: list[Entry], found: list[Seen]) -> None:
    """Drop the names that the source no longer has; splits are kept for ever."""
    names = {entry.path for entry in entries} | {one.path for one in found}
    memory.seen = {path: one for path, one in memory.seen.items() if path in names}


def _result(
    snapshot: Snapshot, selection: Selection, fetched: set[str], warnings: list[str]
) -> IngestResult:
    for warning in warnings:
        message("Warning: %s", warning)
    splits = Counter(selection.assignment.splits[i] for i in selection.chosen)
    aside = Counter(one.reason for one in selection.aside)
    for reason, count in sorted(aside.items()):
        message("Rejected, %s: %d", reason, count)
    return IngestResult(
        snapshot_id=snapshot.id,
        images={split: splits[split] for split in SPLITS},
        classes=list(snapshot.classes),
        per_class=dict(sorted(Counter(str(s.label) for s in selection.chosen.values()).items())),
        set_aside=dict(sorted(aside.items())),
        fetched=len(fetched),
        reused=sum(one.path not in fetched for one in selection.chosen.values()),
        near_duplicates=selection.near,
        not_evaluated=len(selection.alike.not_evaluated),
        contradictions=len(selection.alike.contradictions),
        groups=len(set(selection.assignment.groups.values())),
        warnings=warnings,
        value_range=None if snapshot.value_range is None else list(snapshot.value_range),
        reading=dict(snapshot.reading),
    )

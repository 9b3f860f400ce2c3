"""The step `ingest`: list, fetch only what is new, check, find duplicates, split, pack."""

import dataclasses
from collections import Counter
from pathlib import Path
from typing import Any

from typing_extensions import override

from graftline.data.snapshot import (
    SPLITS,
    Snapshot,
    keep_snapshot,
    read_snapshot,
    write_snapshot,
)
from graftline.data.sources import open_source
from graftline.data.sources.base import Entry, Source
from graftline.errors import PreconditionFailed
from graftline.images.stored_values import ValueRange
from graftline.progress import message
from graftline.settings import read_section
from graftline.steps.ingest.arguments import IngestConfig
from graftline.steps.ingest.checks import (
    check_attributes,
    check_given,
    check_near_duplicates,
    check_remembered,
    check_selection,
)
from graftline.steps.ingest.fetch import GONE, fetch
from graftline.steps.ingest.incomplete import carved
from graftline.steps.ingest.known import Seen
from graftline.steps.ingest.members import merge_labels, read_packed_folders
from graftline.steps.ingest.page import FILE, page_file, write_page
from graftline.steps.ingest.reading import check_same_reading, describe
from graftline.steps.ingest.selection import Selection, current, select, tables
from graftline.steps.ingest.source_index import Memory, load_memory, save_memory
from graftline.steps.ingest.value_range import Finding, find_range, measure_older, say
from graftline.steps.runtime import StepResult
from graftline.storage import open_store
from graftline.storage.base import Store
from graftline.storage.uri import shown

SAMPLES_VERSION = 3  # of how a shard's samples are read; another one reads the shards again
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
    data_page: Path | None = None,
    **config: Any,
) -> IngestResult:
    """Take a snapshot of a source of labelled images.

    Args:
        source: A folder, ``file://`` or ``s3://`` URI, or a CSV table.
        store: Where the images are kept.
        snapshot_folder: Is written.
        data_page: Where the data page goes; without it, beside the snapshot's files.
        config: See :class:`graftline.steps.ingest.arguments.IngestConfig`.

    Raises:
        ConfigurationError: A setting is unknown or cannot be.
        DataError: Nothing that can be learned from; the message says what to do.
        StoreError: The source or the store cannot be read or written.
    """
    settings = read_section(IngestConfig, "data", config)
    check_attributes(settings.attributes)
    opened = open_store(store)
    opened.check_writable()
    fetched: set[str] = set()
    for turn in range(TURNS):
        origin, entries = _listed(source, settings)
        notes_shown = len(origin.notes)
        memory = load_memory(opened, origin.uri, entries)
        found = _fetched(origin, entries, opened, memory, settings, fetched)
        del entries  # an eighth of what a large source takes; another turn lists it again
        named = merge_labels(read_packed_folders(found, origin), origin)
        _tell(origin, notes_shown)
        check_same_reading(opened, origin, settings.reading)
        selection = _select(named, memory, opened, settings)
        del found, named
        finding = _range(selection, memory, opened, settings.value_range)
        warnings = _warnings(selection, memory, origin, opened, settings) + list(finding.warnings)
        snapshot = _write(snapshot_folder, selection, memory, origin, opened, settings, finding)
        # What another run kept meanwhile may name places of the images that are not ours.
        keep_snapshot(opened, snapshot, replace=memory.repacked or turn > 0)
        memory.splits.update(selection.assignment.splits)
        result = _result(snapshot, selection, fetched, warnings)
        del selection, snapshot  # as large as the memory, which is written now
        if _saved(memory, opened, origin, result.snapshot_id, last_turn=turn == TURNS - 1):
            break
    say(finding)
    _report(result)
    del memory
    snapshot = read_snapshot(snapshot_folder)
    page = write_page(snapshot, opened, origin, warnings, data_page or snapshot_folder / FILE)
    return dataclasses.replace(result, page=page)


def _listed(uri: str, settings: IngestConfig) -> tuple[Source, list[Entry]]:
    """The source, and what it holds; whether a later step could use that is checked."""
    origin = open_source(uri, settings.format, settings.columns, settings.reading)
    entries = origin.entries()
    message("%s: %s entries (%s)", shown(origin.uri), f"{len(entries):,}", origin.format)
    _tell(origin, 0)
    minimum, fractions = settings.min_images_per_class, settings.fractions
    check_given(origin, entries, fractions, minimum, settings.missing_splits)
    return origin, entries


def _fetched(
    source: Source,
    entries: list[Entry],
    store: Store,
    memory: Memory,
    settings: IngestConfig,
    fetched: set[str],
) -> list[Seen]:
    """What the source holds, with what is new read into the store and the memory.

    Args:
        source: The source.
        entries: As it lists them; what is no longer there is forgotten.
        store: Where images are kept.
        memory: Of the source.
        settings: The run file's.
        fetched: The names of what was read are added.
    """
    read_as = f"{SAMPLES_VERSION} {settings.columns!r}"
    new = [entry for entry in entries if _is_new(entry, memory, read_as)]
    fetched |= fetch(source, new, store, memory, columns=read_as, max_pixels=settings.max_pixels)
    found = list(current(entries, memory))
    _forget_absent(memory, entries, found)
    return found


def _select(named: list[Seen], memory: Memory, store: Store, settings: IngestConfig) -> Selection:
    return select(
        named,
        memory,
        store=store,
        fractions=settings.fractions,
        seed=settings.seed,
        near_duplicates=settings.near_duplicates,
        max_pixels=settings.max_pixels,
        missing=settings.missing_splits,
    )


def _warnings(
    selection: Selection, memory: Memory, source: Source, store: Store, settings: IngestConfig
) -> list[str]:
    """What is poor but possible."""
    decided = {**settings.fractions, "seed": settings.seed}
    return [
        *source.warnings,
        *([carved(selection.missing, settings.fractions)] if selection.missing else []),
        *check_remembered(memory, decided, store, source.uri),
        *check_near_duplicates(selection, settings.near_duplicates),
        *check_selection(selection, source, settings.min_images_per_class),
    ]


def _write(
    folder: Path,
    selection: Selection,
    memory: Memory,
    source: Source,
    store: Store,
    settings: IngestConfig,
    finding: Finding,
) -> Snapshot:
    record = describe(source, selection.missing)
    manifest, rejected = tables(selection, memory, list(settings.attributes))
    return write_snapshot(
        folder,
        manifest,
        rejected,
        store=store.uri,
        source=source.uri,
        not_evaluated=sorted(selection.alike.not_evaluated),
        contradictions=selection.alike.contradictions,
        value_range=finding.value_range,
        reading=record,
    )


def _range(selection: Selection, memory: Memory, store: Store, given: ValueRange | None) -> Finding:
    """By which range the images are read; what is measured is remembered."""
    if memory.unmeasured:
        measure_older(store, memory, selection.chosen)
    paths = {image_id: one.path for image_id, one in selection.chosen.items()}
    finding = find_range(paths, memory.images, given=given, remembered=memory.value_range)
    if given is None:
        memory.value_range = finding.value_range or memory.value_range
    return finding


def _tell(source: Source, after: int) -> None:
    """Say what was understood, from a position in the notes on."""
    for note in source.notes[after:]:
        message("%s", note)
    if source.tree and len(source.notes) > after:
        message("\n%s", source.tree)


def _is_new(entry: Entry, memory: Memory, columns: str) -> bool:
    if entry.problem is not None:
        return False
    seen = memory.seen.get(entry.path)
    if seen is None or seen.version != entry.version or seen.reason == GONE:
        return True
    return entry.archive and seen.detail != columns


def _saved(
    memory: Memory, store: Store, source: Source, snapshot_id: str, *, last_turn: bool
) -> bool:
    """Whether this run was the first to save what it decided."""
    try:
        save_memory(store, source.uri, memory, snapshot_id)
    except PreconditionFailed:
        if last_turn:
            raise
        message("Another run on this source was faster; deciding again with what it did")
        return False
    return True


def _forget_absent(memory: Memory, entries: list[Entry], found: list[Seen]) -> None:
    """Drop the names that the source no longer has; splits are kept for ever."""
    names = {entry.path for entry in entries}
    names.update(one.path for one in found)
    for path in [path for path in memory.seen if path not in names]:
        del memory.seen[path]


def _report(result: IngestResult) -> None:
    for warning in result.warnings:
        message("Warning: %s", warning)
    for reason, count in result.set_aside.items():
        message("Rejected, %s: %d", reason, count)


def _result(
    snapshot: Snapshot, selection: Selection, fetched: set[str], warnings: list[str]
) -> IngestResult:
    splits = Counter(selection.assignment.splits[i] for i in selection.chosen)
    aside = Counter(one.reason for one in selection.aside)
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

"""From what was looked at to the snapshot's rows: duplicates, groups, splits, and what is left."""

import dataclasses
from collections import defaultdict
from collections.abc import Iterator, Mapping

import numpy as np
import pyarrow as pa

from graftline.data.snapshot import MANIFEST, SET_ASIDE
from graftline.data.sources.base import Entry
from graftline.steps.ingest.duplicates import near_duplicates
from graftline.steps.ingest.source_index import Known, Memory, Seen
from graftline.steps.ingest.splits import HELD_OUT_FIRST, Assignment, Candidate, assign

DUPLICATE = "exact duplicate"
CONFLICT = "conflicting labels"
TIE = "would tie splits together"
_SIDE = {None: 0, "train": 1, "val": 2, "test": 3}


@dataclasses.dataclass(frozen=True, slots=True)
class Aside:
    """One thing that is not taken, and why."""

    path: str
    version: str
    label: str | None
    reason: str
    detail: str | None = None
    image_id: str | None = None


@dataclasses.dataclass
class Selection:
    """What goes into the snapshot.

    Attributes:
        chosen: One entry for each image.
        assignment: Their groups and splits.
        aside: All that is not taken.
        near: How many images look like another one.
        across: How many of them look like one in another split.
        moved: Images that the user's table put into another split than before.
    """

    chosen: dict[str, Seen]
    assignment: Assignment
    aside: list[Aside]
    near: int
    across: int
    moved: int


def current(entries: list[Entry], memory: Memory) -> Iterator[Seen]:
    """Each listed image with what is known of it; an archive's members for the archive."""
    members: dict[str, list[Seen]] = defaultdict(list)
    if any(entry.archive for entry in entries):
        for one in memory.seen.values():
            members[one.path.partition("#")[0]].append(one)
    for entry in entries:
        if entry.archive:
            now = [one for one in members[entry.path] if "#" in one.path]
            yield from (one for one in now if one.version == entry.version)
        elif entry.problem is not None:
            yield Seen(entry.path, entry.version, None, entry.problem, label=entry.label)
        else:
            yield dataclasses.replace(
                memory.seen[entry.path],
                label=entry.label,
                split=entry.split,
                group=entry.group,
                attributes=entry.attributes,
            )


def select(
    found: list[Seen],
    memory: Memory,
    *,
    fractions: Mapping[str, float],
    seed: int,
    distance: int | None,
) -> Selection:
    """Choose one entry for each image, and give it its group and split.

    Args:
        found: From :func:`current`.
        memory: Holds what the images look like, and the splits they have had.
        fractions: Of each split.
        seed: Of the hash.
        distance: Of near-duplicates in bits; None to look for none.
    """
    chosen, aside = _one_for_each_image(found)
    ids = sorted(chosen)
    candidates = [
        Candidate(i, str(chosen[i].label), chosen[i].split, memory.splits.get(i), chosen[i].group)
        for i in ids
    ]
    pairs: list[tuple[int, int]] = []
    if distance is not None and len(ids) > 1:
        looks = [memory.images[i].looks for i in ids]
        hashes = np.array([one.dhash for one in looks], dtype=np.uint64)
        thumbnails = np.frombuffer(b"".join(one.thumbnail for one in looks), dtype=np.uint8)
        sides = np.array([_SIDE[one.fixed] for one in candidates])
        found_pairs = near_duplicates(hashes, thumbnails.reshape(len(ids), -1), distance, sides)
        pairs = [(int(a), int(b)) for a, b in found_pairs]
    assignment = assign(candidates, pairs, fractions, seed)
    for image_id, why in assignment.ties.items():
        aside.append(_aside(chosen.pop(image_id), TIE, why))
    moved = sum(bool(c.given and c.earlier and c.given != c.earlier) for c in candidates)
    splits = [assignment.splits.get(i) for i in ids]
    near = {index for pair in pairs for index in pair if splits[pair[0]] and splits[pair[1]]}
    across = {i for a, b in pairs for i in (a, b) if a in near and splits[a] != splits[b]}
    return Selection(chosen, assignment, aside, len(near), len(across), moved)


def _one_for_each_image(found: list[Seen]) -> tuple[dict[str, Seen], list[Aside]]:
    """Exact duplicates: one stays, held out rather than trained on; conflicting ones all go."""
    by_image: dict[str, list[Seen]] = defaultdict(list)
    aside = []
    for one in found:
        if one.image_id is None:
            aside.append(_aside(one, one.reason or "unknown", one.detail))
        else:
            by_image[one.image_id].append(one)
    chosen = {}
    for image_id, same in by_image.items():
        labels = sorted({str(one.label) for one in same})
        if len(labels) > 1:
            why = f"the same bytes are labelled {', '.join(labels)}"
            aside += [_aside(one, CONFLICT, why) for one in same]
            continue
        first, *others = sorted(same, key=_held_out_first)
        chosen[image_id] = first
        aside += [_aside(one, DUPLICATE, f"of {first.path}") for one in others]
    return chosen, aside


def _held_out_first(one: Seen) -> tuple[int, str]:
    rank = HELD_OUT_FIRST.index(one.split) if one.split else len(HELD_OUT_FIRST)
    return rank, one.path


def _aside(one: Seen, reason: str, detail: str | None) -> Aside:
    return Aside(one.path, one.version, one.label, reason, detail, one.image_id)


def tables(
    selection: Selection, memory: Memory, attributes: list[str]
) -> tuple[pa.Table, pa.Table]:
    """The manifest, sorted by image id, and the table of what was set aside, sorted by name."""
    rows = []
    for image_id in sorted(selection.chosen):
        one, known = selection.chosen[image_id], memory.images[image_id]
        rows.append(_manifest_row(one, known, selection.assignment, attributes))
    schema = MANIFEST
    for name in attributes:
        schema = schema.append(pa.field(name, pa.string()))
    aside = [
        {
            "source": one.path,
            "source_version": one.version,
            "label": one.label,
            "reason": one.reason,
            "detail": one.detail,
            "image_id": one.image_id,
        }
        for one in sorted(selection.aside, key=lambda one: (one.path, one.reason))
    ]
    return (
        pa.Table.from_pylist(rows, schema=schema),
        pa.Table.from_pylist(aside, schema=SET_ASIDE),
    )


def _manifest_row(
    one: Seen, known: Known, assignment: Assignment, attributes: list[str]
) -> dict[str, object]:
    return {
        "image_id": known.image_id,
        "source": one.path,
        "source_version": one.version,
        "label": one.label,
        "split": assignment.splits[known.image_id],
        "group": assignment.groups[known.image_id],
        "width": known.width,
        "height": known.height,
        "format": known.format,
        "bytes": known.bytes,
        "shard": known.place.shard,
        "offset": known.place.offset,
        "length": known.place.length,
        "dhash": known.looks.dhash,
        **{name: one.attributes.get(name) for name in attributes},
    }

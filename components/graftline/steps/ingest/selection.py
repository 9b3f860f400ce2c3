"""From what was looked at to the snapshot's rows: duplicates, groups, splits, and what is left."""

import dataclasses
from collections import defaultdict
from collections.abc import Iterator, Mapping

import numpy as np
import pyarrow as pa

from graftline.data.snapshot import MANIFEST, SET_ASIDE, SPLITS
from graftline.data.sources.base import Entry
from graftline.data.tables import table_of
from graftline.steps.ingest.incomplete import complete, missing_splits, refuse_missing
from graftline.steps.ingest.known import Known, Seen
from graftline.steps.ingest.near_duplicates import linkage
from graftline.steps.ingest.source_index import Memory
from graftline.steps.ingest.splits import HELD_OUT_FIRST, Assignment, Candidate, assign
from graftline.storage.base import Store

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


@dataclasses.dataclass(frozen=True)
class Alike:
    """What near-duplicates mean for the images that are taken.

    Attributes:
        pairs: Ids that show the same picture.
        copies: Ids of images that are a further copy in their group.
        contradictions: Of the pairs, those with two labels.
        not_evaluated: Ids of held-out images, with the image that gives each away.
    """

    pairs: tuple[tuple[str, str], ...] = ()
    copies: frozenset[str] = frozenset()
    contradictions: tuple[tuple[str, str], ...] = ()
    not_evaluated: Mapping[str, str] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass
class Selection:
    """What goes into the snapshot.

    Attributes:
        chosen: One entry for each image.
        assignment: Their groups and splits.
        aside: All that is not taken.
        near: How many images look like another one.
        across: How many of them look like one in another split, and are tested on nevertheless.
        moved: Images that the user's table put into another split than before.
        missing: Splits that the source lacks, filled with images of its train.
        scattered: Groups of the user with images in more than one split.
    """

    chosen: dict[str, Seen]
    assignment: Assignment
    aside: list[Aside]
    near: int
    across: int
    moved: int
    alike: Alike
    missing: tuple[str, ...] = ()
    scattered: int = 0


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
            yield _with_label(memory.seen[entry.path], entry)


def _with_label(seen: Seen, entry: Entry) -> Seen:
    """What was seen, with what the listing tells of it now."""
    listed = (entry.label, entry.split, entry.group, entry.attributes)
    if listed == (seen.label, seen.split, seen.group, seen.attributes):
        return seen
    label, split, group, attributes = listed
    return dataclasses.replace(seen, label=label, split=split, group=group, attributes=attributes)


def select(
    found: list[Seen],
    memory: Memory,
    *,
    store: Store,
    fractions: Mapping[str, float],
    seed: int,
    near_duplicates: str,
    max_pixels: int,
    missing: str = "carve",
) -> Selection:
    """Choose one entry for each image, and give it its group and split.

    Args:
        found: From :func:`current`.
        memory: Holds what the images look like, and the splits they have had.
        store: Holds the images; those that look alike are read again to be compared.
        fractions: Of each split.
        seed: Of the hash.
        near_duplicates: ``auto``, ``off`` or ``strict``.
        max_pixels: Of an image.
        missing: Whether splits that the source lacks are taken out of train, or refused.
    """
    chosen, aside = _one_for_each_image(found)
    strict = near_duplicates == "strict"
    pairs: list[tuple[str, str]] = []
    if near_duplicates != "off":
        pairs = _same_pictures(chosen, memory, store, max_pixels)
    if strict:
        aside += _reject_contradictions(chosen, pairs)
        pairs = [pair for pair in pairs if pair[0] in chosen and pair[1] in chosen]
    ids = sorted(chosen)
    candidates = [
        Candidate(i, str(chosen[i].label), chosen[i].split, memory.splits.get(i), chosen[i].group)
        for i in ids
    ]
    refuse_missing(missing_splits((one.given for one in candidates), fractions), missing)
    candidates, filled = complete(candidates, _edges(candidates, pairs), fractions, seed)
    assignment = _assigned(candidates, pairs, fractions, seed, join=not strict)
    for image_id, why in assignment.ties.items():
        aside.append(_aside(chosen.pop(image_id), TIE, why))
    moved = sum(bool(c.given and c.earlier and c.given != c.earlier) for c in candidates)
    pairs = [pair for pair in pairs if pair[0] in chosen and pair[1] in chosen]
    alike = _alike(chosen, pairs, assignment, carved=bool(filled))
    return Selection(
        chosen,
        assignment,
        aside,
        len({i for pair in pairs for i in pair}),
        _across(pairs, assignment.splits, alike),
        moved,
        alike,
        filled,
        _scattered(candidates, assignment.splits),
    )


def _across(pairs: list[tuple[str, str]], splits: Mapping[str, str], alike: Alike) -> int:
    """How many images look like one in another split, and are tested on nevertheless."""
    apart = [pair for pair in pairs if splits[pair[0]] != splits[pair[1]]]
    return len({i for pair in apart if not set(pair) & alike.not_evaluated.keys() for i in pair})


def _edges(candidates: list[Candidate], pairs: list[tuple[str, str]]) -> list[tuple[int, int]]:
    """The pairs that make groups, as positions; the user's own groups need none."""
    row_of = {one.image_id: index for index, one in enumerate(candidates)}
    return linkage.stars(
        [
            (row_of[a], row_of[b])
            for a, b in pairs
            if candidates[row_of[a]].group is None and candidates[row_of[b]].group is None
        ]
    )


def _scattered(candidates: list[Candidate], splits: Mapping[str, str]) -> int:
    """How many of the user's groups have images in several splits."""
    of_group: dict[str, set[str]] = defaultdict(set)
    for one in candidates:
        if one.group is not None and one.image_id in splits:
            of_group[one.group].add(splits[one.image_id])
    return sum(len(both) > 1 for both in of_group.values())


def _same_pictures(
    chosen: Mapping[str, Seen], memory: Memory, store: Store, max_pixels: int
) -> list[tuple[str, str]]:
    ids = sorted(chosen)
    sides = np.array([_SIDE[chosen[i].split or memory.splits.get(i)] for i in ids], dtype=np.int64)
    found = memory.comparisons.compare(ids, memory.images, sides, store, max_pixels)
    return [(ids[one], ids[other]) for one, other in found]


def _reject_contradictions(chosen: dict[str, Seen], pairs: list[tuple[str, str]]) -> list[Aside]:
    """Take out images that show the same picture under two labels, as equal bytes are."""
    why: dict[str, str] = {}
    for pair in pairs:
        for one, other in (pair, pair[::-1]):
            if chosen[one].label != chosen[other].label:
                seen = chosen[other]
                why.setdefault(one, f"the same picture as {seen.path}, labelled {seen.label}")
    return [_aside(chosen.pop(i), CONFLICT, reason) for i, reason in sorted(why.items())]


def _assigned(
    candidates: list[Candidate],
    pairs: list[tuple[str, str]],
    fractions: Mapping[str, float],
    seed: int,
    *,
    join: bool,
) -> Assignment:
    """Groups and splits, by those pairs that cannot make a chain of groups."""
    row_of = {one.image_id: index for index, one in enumerate(candidates)}
    usable = [
        (row_of[a], row_of[b])
        for a, b in pairs
        if candidates[row_of[a]].group is None and candidates[row_of[b]].group is None
    ]
    sides = linkage.sides_of_newcomers(usable, [one.fixed for one in candidates])
    side: list[str | None] = [one.fixed for one in candidates]
    ties: dict[str, str] = {}
    for index, found in sides.items():
        side[index] = next(split for split in HELD_OUT_FIRST if split in found)
        if len(found) > 1 and not join:
            names = " and ".join(split for split in SPLITS if split in found)
            ties[candidates[index].image_id] = f"it has near-duplicates in {names}"
    kept = [one for one in candidates if one.image_id not in ties]
    rows = {one.image_id: index for index, one in enumerate(kept)}
    together = [
        (rows[candidates[a].image_id], rows[candidates[b].image_id])
        for a, b in usable
        if (side[a] is None or side[b] is None or side[a] == side[b])
        and not {candidates[a].image_id, candidates[b].image_id} & ties.keys()
    ]
    edges = linkage.stars(together)
    sided = [
        one if one.earlier == now else dataclasses.replace(one, earlier=now)
        for one in kept
        for now in (side[row_of[one.image_id]],)
    ]
    assignment = assign(sided, edges, fractions, seed, join=join)
    assignment.ties.update(ties)
    return assignment


def _alike(
    chosen: Mapping[str, Seen],
    pairs: list[tuple[str, str]],
    assignment: Assignment,
    *,
    carved: bool,
) -> Alike:
    """What is alike, and what of it is left out of the evaluation.

    Where the user's table gives both splits, or both images are in groups, which says that they
    are independent, the user's word stands, and there is a warning. Where a missing split was
    carved out of train, the user has said nothing of how train is divided.
    """

    def by_user(one: str, other: str) -> bool:
        splits = {chosen[one].split, chosen[other].split}
        return None not in splits and not (carved and splits == {"train"})

    ids = sorted({i for pair in pairs for i in pair})
    row_of = {image_id: index for index, image_id in enumerate(ids)}
    own = [
        (row_of[a], row_of[b])
        for a, b in pairs
        if None in (chosen[a].group, chosen[b].group) and not by_user(a, b)
    ]
    given_away = linkage.leaks(own, [assignment.splits[i] for i in ids])
    return Alike(
        pairs=tuple(pairs),
        copies=frozenset(
            linkage.copies(assignment.groups, [i for i in ids if chosen[i].group is None])
        ),
        contradictions=tuple(p for p in pairs if chosen[p[0]].label != chosen[p[1]].label),
        not_evaluated={ids[held_out]: ids[known] for held_out, known in given_away.items()},
    )


def _one_for_each_image(found: list[Seen]) -> tuple[dict[str, Seen], list[Aside]]:
    """Exact duplicates: one stays, held out rather than trained on; conflicting ones all go."""
    chosen: dict[str, Seen] = {}
    several: dict[str, list[Seen]] = {}
    aside = []
    for one in found:
        if one.image_id is None:
            aside.append(_aside(one, one.reason or "unknown", one.detail))
        elif one.image_id in chosen:
            several.setdefault(one.image_id, [chosen[one.image_id]]).append(one)
        else:
            chosen[one.image_id] = one
    for image_id, same in [(i, several[i]) for i in chosen if i in several]:
        labels = sorted({str(one.label) for one in same})
        if len(labels) > 1:
            why = f"the same bytes are labelled {', '.join(labels)}"
            aside += [_aside(one, CONFLICT, why) for one in same]
            del chosen[image_id]
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
    """The manifest, sorted by image id, and the table of rejected files, sorted by name."""
    rows = (
        _manifest_row(selection.chosen[i], memory.images[i], selection.assignment, attributes)
        for i in sorted(selection.chosen)
    )
    schema = MANIFEST
    for name in attributes:
        schema = schema.append(pa.field(name, pa.string()))
    aside = (
        {
            "source": one.path,
            "source_version": one.version,
            "label": one.label,
            "reason": one.reason,
            "detail": one.detail,
            "image_id": one.image_id,
        }
        for one in sorted(selection.aside, key=lambda one: (one.path, one.reason))
    )
    return table_of(rows, schema), table_of(aside, SET_ASIDE)


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
        "shard": known.byte_range.shard,
        "offset": known.byte_range.offset,
        "length": known.byte_range.length,
        "dhash": known.picture_hash.dhash,
        **{name: one.attributes.get(name) for name in attributes},
    }

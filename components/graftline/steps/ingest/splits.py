"""Groups and splits. Whatever is in a split stays there for ever; nothing ever moves.

What belongs together (the user's group, else near-duplicates) stays on one side:

1. A split that the user's table gives is obeyed.
2. An image that had a split keeps it.
3. A newcomer joins the split of its group. One that looks like images of two splits joins the
   held-out one, test before val: it cannot be tested on (what it looks like was trained on), but
   no image that was tested on before is lost, as it would be if the newcomer were trained on.
   One whose group, as the user stated it, has images of two splits is rejected.
4. Where a group is all new, a hash of seed and group id decides, which needs no knowledge of
   what else came at the same time: equal data has equal splits whatever its history. Only where
   that leaves a class without images in a split, the smallest group to spare moves there, so that
   a class of three images has one in each split.
"""

import dataclasses
import hashlib
from array import array
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TypeAlias

import numpy as np

from graftline.data.snapshot import SPLITS

HELD_OUT_FIRST = ("test", "val", "train")
Numbers: TypeAlias = "array[int]"
SPLITS_HELD_OUT = HELD_OUT_FIRST[:2]


@dataclasses.dataclass(frozen=True, slots=True)
class Candidate:
    """An image that wants a place.

    Attributes:
        image_id: Its id.
        label: Its class.
        given: The split that the user's table states.
        earlier: The split it has had.
        group: The user's group.
    """

    image_id: str
    label: str
    given: str | None = None
    earlier: str | None = None
    group: str | None = None

    @property
    def fixed(self) -> str | None:
        """The split that is not ours to choose."""
        return self.given or self.earlier


@dataclasses.dataclass
class Assignment:
    """Groups and splits by image id, and what cannot have one.

    Attributes:
        groups: The user's, else the smallest image id among the near-duplicates.
        splits: One of :data:`graftline.data.snapshot.SPLITS`.
        ties: Rejected images, with the splits they would tie together.
    """

    groups: dict[str, str]
    splits: dict[str, str]
    ties: dict[str, str]


def assign(
    candidates: Sequence[Candidate],
    pairs: Iterable[tuple[int, int]],
    fractions: Mapping[str, float],
    seed: int,
    *,
    join: bool = False,
) -> Assignment:
    """Give each image its group and its split.

    Args:
        candidates: Sorted by image id.
        pairs: Positions of near-duplicates.
        fractions: Of each split; their sum is 1.
        seed: Of the hash.
        join: Whether a newcomer that looks like images of two splits joins the held-out one;
            else it is rejected.
    """
    neighbours: dict[int, list[int]] = defaultdict(list)
    for first, second in pairs:
        if candidates[first].group is None and candidates[second].group is None:
            neighbours[first].append(second)
            neighbours[second].append(first)
    forest = _Forest([one.fixed for one in candidates])
    tied = _join(candidates, neighbours, forest, join)
    result = Assignment({}, {}, {candidates[i].image_id: why for i, why in tied.items()})
    open_groups: dict[str, Numbers] = defaultdict(lambda: array("q"))  # starts and ends, by class
    roots, order = _by_root(forest, len(candidates), tied)
    for start, end in _runs(roots):
        indices = order[start:end]
        split, name = forest.split[roots[start]], candidates[indices[0]].image_id
        for one in (candidates[index] for index in indices):
            result.groups[one.image_id] = one.group or name
            if split is not None:
                result.splits[one.image_id] = split
        if split is None:
            labels = Counter(candidates[index].label for index in indices)
            most = max(labels.values())
            open_groups[min(c for c, n in labels.items() if n == most)].extend((start, end))
    held: dict[str, Counter[str]] = defaultdict(Counter)
    for one in candidates:
        if one.fixed is not None:
            held[one.label][one.fixed] += 1
    for label, ends in open_groups.items():
        groups = [order[start:end] for start, end in zip(ends[::2], ends[1::2], strict=True)]
        named = [(result.groups[candidates[g[0]].image_id], g) for g in groups]
        named.sort(key=lambda pair: (_fraction(seed, pair[0]), pair[0]))
        chosen = [_by_hash(_fraction(seed, name), fractions) for name, _ in named]
        _fill(chosen, [len(group) for _, group in named], fractions, held[label])
        for (_, group), split in zip(named, chosen, strict=True):
            result.splits.update((candidates[index].image_id, split) for index in group)
    return result


def _by_root(forest: "_Forest", count: int, tied: Mapping[int, str]) -> tuple[Numbers, Numbers]:
    """The root of each image that is not tied, sorted, and the images in that order."""
    kept = array("q", (index for index in range(count) if index not in tied))
    roots = np.array([forest.root(index) for index in kept], dtype=np.int64)
    order = np.argsort(roots, kind="stable")
    return array("q", roots[order].tobytes()), array("q", np.array(kept)[order].tobytes())


def _runs(roots: Numbers) -> Iterator[tuple[int, int]]:
    """Where each stretch of equal numbers begins and ends."""
    start = 0
    for end in range(1, len(roots) + 1):
        if end == len(roots) or roots[end] != roots[start]:
            yield start, end
            start = end


class _Forest:
    """Disjoint sets of images, each with the split that one of its members has."""

    def __init__(self, splits: list[str | None]) -> None:
        self.parent = array("q", range(len(splits)))  # a list of numbers takes five times as much
        self.split = list(splits)

    def root(self, index: int) -> int:
        while self.parent[index] != index:
            self.parent[index] = self.parent[self.parent[index]]
            index = self.parent[index]
        return index

    def join(self, first: int, second: int) -> None:
        first, second = sorted((self.root(first), self.root(second)))
        if first != second:
            self.parent[second] = first
            self.split[first] = self.split[first] or self.split[second]


def _join(
    candidates: Sequence[Candidate],
    neighbours: Mapping[int, Sequence[int]],
    forest: _Forest,
    join: bool,
) -> dict[int, str]:
    """Put together what belongs together: the settled first, then newcomers by their id."""
    tied: dict[int, str] = {}
    joined: set[int] = set()
    by_group: dict[str, dict[int, None]] = defaultdict(dict)
    order = sorted(range(len(candidates)), key=lambda i: (candidates[i].fixed is None, i))
    for index in order:
        one = candidates[index]
        related = [other for other in neighbours.get(index, ()) if other in joined]
        if one.group is not None:
            related = list(by_group[one.group])
        if one.fixed is not None:  # stays where it is, whatever else looks like it
            related = [other for other in related if forest.split[forest.root(other)] == one.fixed]
        sides = {forest.split[forest.root(other)] for other in related} - {None}
        if len(sides) > 1 and join and one.group is None:
            side = next(split for split in HELD_OUT_FIRST if split in sides)
            apart = sides - {side}
            related = [o for o in related if forest.split[forest.root(o)] not in apart]
            sides = {side}
        if len(sides) > 1:
            names = " and ".join(split for split in SPLITS if split in sides)
            what = "its group has images" if one.group is not None else "it has near-duplicates"
            tied[index] = f"{what} in {names}"
            continue
        for other in related:
            forest.join(index, other)
        joined.add(index)
        if one.group is not None:
            by_group[one.group] = dict.fromkeys(
                forest.root(other) for other in [*by_group[one.group], index]
            )
    return tied


def _fraction(seed: int, name: str) -> float:
    """A number in [0, 1) that the seed and the name decide."""
    digest = hashlib.sha256(f"{seed}:{name}".encode()).digest()
    return int.from_bytes(digest[:7], "big") / 2**56


def _by_hash(fraction: float, fractions: Mapping[str, float]) -> str:
    bound = 0.0
    for split in ("test", "val"):
        bound += fractions.get(split, 0.0)
        if fraction < bound:
            return split
    return "train"


def _fill(
    chosen: list[str],
    sizes: Sequence[int],
    fractions: Mapping[str, float],
    held: Mapping[str, int],
) -> None:
    """Put a group into each split of a class that the hash left empty, if there are enough.

    One group is for training; of two, the other is held out.

    Args:
        chosen: A split for each group, in the order of their hashes; is changed.
        sizes: Images in each group.
        fractions: Of each split.
        held: Images of the class that have been in each split before.
    """
    usual = ["train", *(s for s in SPLITS_HELD_OUT if fractions.get(s, 0) > 0)]
    wanted = [split for split in usual if not held.get(split)][: len(chosen)]
    for split in wanted:
        have = Counter(chosen)
        if not have[split]:
            # The smallest of those that can be spared; the largest to train on.
            spare = [i for i, s in enumerate(chosen) if have[s] > 1 or s not in wanted]
            sign = -1 if split == "train" else 1
            chosen[min(spare, key=lambda i: (sign * sizes[i], i))] = split

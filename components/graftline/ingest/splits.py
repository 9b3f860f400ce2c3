"""Groups and splits. Whatever is in a split stays there for ever; nothing ever moves.

What belongs together (the user's group, else near-duplicates) stays on one side:

1. A split that the user's table gives is obeyed.
2. An image that had a split keeps it.
3. A newcomer joins the split of its group. One that would tie two splits together is set aside.
4. Groups that are all new are put in order by a hash of seed and group id. In a class that is
   new altogether they are then allotted by quota, so that a class of three images has one in
   each split; in a class that has splits already, the hash itself decides, which needs no
   knowledge of what else came at the same time.
"""

import dataclasses
import hashlib
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence

from graftline.dataset import SPLITS

HELD_OUT_FIRST = ("test", "val", "train")


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
        splits: One of :data:`graftline.dataset.SPLITS`.
        ties: Set aside, with the splits they would tie together.
    """

    groups: dict[str, str]
    splits: dict[str, str]
    ties: dict[str, str]


def assign(
    candidates: Sequence[Candidate],
    pairs: Iterable[tuple[int, int]],
    fractions: Mapping[str, float],
    seed: int,
) -> Assignment:
    """Give each image its group and its split.

    Args:
        candidates: Sorted by image id.
        pairs: Positions of near-duplicates.
        fractions: Of each split; their sum is 1.
        seed: Of the hash.
    """
    neighbours: dict[int, list[int]] = defaultdict(list)
    for first, second in pairs:
        if candidates[first].group is None and candidates[second].group is None:
            neighbours[first].append(second)
            neighbours[second].append(first)
    forest = _Forest([one.fixed for one in candidates])
    tied = _join(candidates, neighbours, forest)
    members: dict[int, list[int]] = defaultdict(list)
    for index in range(len(candidates)):
        if index not in tied:
            members[forest.root(index)].append(index)
    result = Assignment({}, {}, {candidates[i].image_id: why for i, why in tied.items()})
    open_groups: dict[str, list[list[int]]] = defaultdict(list)
    for root, indices in members.items():
        for index in indices:
            one = candidates[index]
            result.groups[one.image_id] = one.group or candidates[min(indices)].image_id
            if forest.split[root] is not None:
                result.splits[one.image_id] = str(forest.split[root])
        if forest.split[root] is None:
            labels = Counter(candidates[index].label for index in indices)
            most = max(labels.values())
            open_groups[min(c for c, n in labels.items() if n == most)].append(indices)
    settled = {one.label for one in candidates if one.fixed is not None}
    for label, groups in open_groups.items():
        named = [(result.groups[candidates[g[0]].image_id], g) for g in groups]
        named.sort(key=lambda pair: (_fraction(seed, pair[0]), pair[0]))
        if label in settled:
            chosen = [_by_hash(_fraction(seed, name), fractions) for name, _ in named]
        else:
            chosen = _by_quota([len(group) for _, group in named], fractions)
        for (_, group), split in zip(named, chosen, strict=True):
            result.splits.update((candidates[index].image_id, split) for index in group)
    return result


class _Forest:
    """Disjoint sets of images, each with the split that one of its members has."""

    def __init__(self, splits: list[str | None]) -> None:
        self.parent = list(range(len(splits)))
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
    candidates: Sequence[Candidate], neighbours: Mapping[int, Sequence[int]], forest: _Forest
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


def _by_quota(sizes: Sequence[int], fractions: Mapping[str, float]) -> list[str]:
    """A split for each group of a new class, by the fractions of its images.

    The first three go to test, val and train (large ones last), so that few groups still serve
    all; from then on each goes where most is missing.
    """
    total = sum(sizes)
    have = dict.fromkeys(SPLITS, 0)
    chosen: dict[int, str] = {}
    wanted = [split for split in HELD_OUT_FIRST if fractions.get(split, 0) > 0]
    small_first = sorted(range(len(sizes)), key=lambda i: (sizes[i] > max(1, total / 3), i))
    firsts = wanted
    if len(sizes) < len(wanted):
        firsts = ["train"] if len(sizes) == 1 else [wanted[0], "train"]
    for index, split in zip(small_first, firsts, strict=False):
        chosen[index] = split
        have[split] += sizes[index]
    for index, size in enumerate(sizes):
        if index not in chosen:
            split = max(wanted, key=lambda s: fractions[s] * total - have[s])
            chosen[index] = split
            have[split] += size
    return [chosen[index] for index in range(len(sizes))]

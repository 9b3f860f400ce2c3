"""From pairs of the same picture to groups that cannot cascade, and what leaks between splits.

In a chain of pairs (frames of a video, each like the next) the first has nothing in common with
the last. So a group is a picture and what was found to be the same as that very picture: any two
of its images are at most two comparisons apart. What is alike across two groups may then come to
be in two splits; the held-out one of them is left out of the evaluation.
"""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence

Pair = tuple[int, int]
RANK = {"train": 0, "val": 1, "test": 2}  # an image is tested by splits that come later only


def stars(pairs: Iterable[Pair]) -> list[Pair]:
    """Those pairs that hold groups together: each of a centre and one other image.

    The image with most pairs is a centre and takes all that are free; then the next. Equal data
    gives equal groups: ties go to the smaller number.
    """
    neighbours: dict[int, set[int]] = defaultdict(set)
    for one, other in pairs:
        neighbours[one].add(other)
        neighbours[other].add(one)
    taken: set[int] = set()
    kept = []
    for centre in sorted(neighbours, key=lambda i: (-len(neighbours[i]), i)):
        if centre not in taken:
            free = neighbours[centre] - taken
            taken |= free | {centre}
            kept += [(min(centre, other), max(centre, other)) for other in sorted(free)]
    return sorted(kept)


def leaks(pairs: Iterable[Pair], splits: Sequence[str | None]) -> dict[int, int]:
    """Held-out images that are left out of the evaluation, with the image that gives them away.

    Args:
        pairs: Of the same picture.
        splits: Of each image; None for one that is not taken.
    """
    found: dict[int, int] = {}
    apart = [
        sorted(pair, key=lambda i: RANK[str(splits[i])])
        for pair in pairs
        if splits[pair[0]] and splits[pair[1]] and splits[pair[0]] != splits[pair[1]]
    ]
    # First what was trained on: a val image that is left out itself gives nothing away.
    for known, held_out in sorted(apart, key=lambda pair: (RANK[str(splits[pair[0]])], pair)):
        if known not in found:
            found.setdefault(held_out, known)
    return found


def sides_of_newcomers(pairs: Iterable[Pair], fixed: Sequence[str | None]) -> dict[int, set[str]]:
    """The splits of the settled images that each newcomer is the same picture as."""
    sides: dict[int, set[str]] = defaultdict(set)
    for pair in pairs:
        for one, other in (pair, pair[::-1]):
            side = fixed[other]
            if fixed[one] is None and side is not None:
                sides[one].add(side)
    return dict(sides)


def copies(groups: Mapping[str, str], members: Iterable[str]) -> set[str]:
    """Those members of near-duplicate groups that are a further copy of another one."""
    seen: set[str] = set()
    further = set()
    for image_id in sorted(members):
        if groups[image_id] in seen:
            further.add(image_id)
        seen.add(groups[image_id])
    return further

"""Folds for cross-validation: stratified by class, never through a group; and their arithmetic."""

import warnings
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from sklearn.model_selection import StratifiedGroupKFold, StratifiedKFold

Index = NDArray[np.int64]


@dataclass(frozen=True)
class Folds:
    """How rows are divided.

    Attributes:
        assignment: Fold of each row, shape (N,).
        count: Number of folds.
        grouped: Whether groups were kept whole.
        effective: Number of independent units: groups where there are any, else rows.
        notes: What a reader should know, such as classes rarer than the folds.
    """

    assignment: Index
    count: int
    grouped: bool
    effective: int
    notes: tuple[str, ...]

    def __iter__(self) -> "FoldIterator":
        return FoldIterator(self)


class FoldIterator:
    """Yields (fit rows, held-out rows) fold by fold; a fold without rows is left out."""

    def __init__(self, folds: Folds) -> None:
        self._folds = folds
        self._next = 0

    def __iter__(self) -> "FoldIterator":
        return self

    def __next__(self) -> tuple[Index, Index]:
        while self._next < self._folds.count:
            held_out = self._folds.assignment == self._next
            self._next += 1
            if held_out.any() and not held_out.all():
                return np.flatnonzero(~held_out), np.flatnonzero(held_out)
        raise StopIteration


def make_folds(
    labels: Index, groups: Index, classes: tuple[str, ...], count: int, seed: int
) -> Folds:
    """Divide rows into folds.

    Args:
        labels: Class index of each row.
        groups: Group number of each row; rows of one group stay together.
        classes: Class names, for the notes.
        count: Folds wanted; fewer only where there are fewer groups.
        seed: Of the shuffle.
    """
    distinct = len(np.unique(groups))
    grouped = distinct < len(groups)
    count = max(2, min(count, distinct))
    assignment = np.zeros(len(labels), dtype=np.int64)
    with warnings.catch_warnings():
        # Both splitters warn of a class with fewer members than folds; the notes say it better.
        warnings.simplefilter("ignore", UserWarning)
        try:
            divided = _divide(labels, groups, count, seed, grouped)
        except ValueError:  # every class is rarer than the folds
            divided = None
    if divided is None:
        order = np.random.default_rng(seed).permutation(distinct)
        assignment = order[np.unique(groups, return_inverse=True)[1]] % count
    else:
        for fold, rows in enumerate(divided):
            assignment[rows] = fold
    notes = _rare(labels, groups, classes, count)
    return Folds(assignment, count, grouped, distinct, notes)


def subsample(labels: Index, groups: Index, limit: int, seed: int, *, rare: int = 20) -> Index:
    """Rows of a stratified sample of whole groups, about ``limit`` of them, sorted.

    Every class keeps at least its first groups up to ``rare`` rows, so that rare ones stay.
    """
    if len(labels) <= limit:
        return np.arange(len(labels))
    order = np.random.default_rng(seed).permutation(len(labels))
    _, number = np.unique(groups, return_inverse=True)
    rank = np.full(number.max() + 1, -1)
    rank[number[order[::-1]]] = np.arange(len(order))[::-1]  # place of each group's first row
    counts = np.bincount(labels)
    quota = np.maximum(np.ceil(counts * (limit / len(labels))), np.minimum(counts, rare))
    taken = np.zeros(len(counts))
    kept = np.zeros(number.max() + 1, dtype=bool)
    by_group = np.argsort(rank[number], kind="stable")
    for row in by_group:
        group, label = number[row], labels[row]
        if kept[group] or taken[label] < quota[label]:
            kept[group] = True
            taken[label] += 1
    return np.flatnonzero(kept[number])


def _divide(labels: Index, groups: Index, count: int, seed: int, grouped: bool) -> list[Index]:
    rows = np.zeros((len(labels), 1))
    if grouped:
        splitter = StratifiedGroupKFold(count, shuffle=True, random_state=seed)
        return [held_out for _, held_out in splitter.split(rows, labels, groups)]
    splitter = StratifiedKFold(count, shuffle=True, random_state=seed)
    return [held_out for _, held_out in splitter.split(rows, labels)]


def _rare(labels: Index, groups: Index, classes: tuple[str, ...], count: int) -> tuple[str, ...]:
    """Classes that not every fold can hold, in one sentence."""
    pairs = np.unique(np.stack([labels, groups]), axis=1)
    units = np.bincount(pairs[0], minlength=len(classes))
    rare = [
        f"{classes[i]} ({units[i]})"
        for i in np.argsort(units, kind="stable")
        if 0 < units[i] < count
    ]
    if not rare:
        return ()
    shown = ", ".join(rare[:10]) + (f" and {len(rare) - 10} more" if rare[10:] else "")
    return (
        f"With fewer independent images than the {count} folds, some folds are fitted or "
        f"measured without these classes, and their part of the figures is uncertain: {shown}.",
    )

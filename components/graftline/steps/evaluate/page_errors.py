"""What the page shows of mistakes: the confusion matrix, the worst ones, what changed."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from graftline.reports.html import Data
from graftline.steps.evaluate.pictures import changed
from graftline.steps.evaluate.results import Findings, Picture

Ints = NDArray[np.int64]

MATRIX_CLASSES = 30  # a larger matrix cannot be read
BESIDE = 12  # of more classes, the images stand below the matrix and its cells are small
PAIRS = 20


@dataclass(frozen=True, kw_only=True)
class Shown:
    """A test image on the page: its true label, the label given and how surely."""

    picture: Picture
    position: int
    truth: str
    given: str
    sure: float


@dataclass(frozen=True, kw_only=True)
class MatrixCell:
    """A cell of the confusion matrix, by numbers of classes; ``share`` of the true class."""

    truth: int
    given: int
    count: int
    share: float
    text: str

    @property
    def kind(self) -> str:
        """Right or wrong."""
        return "right" if self.truth == self.given else "wrong"


def values(findings: Findings) -> dict[str, Any]:
    """The values that the templates show, by name."""
    worst = [position for position in findings.worst if position in findings.pictures]
    return {
        "matrix": _matrix(findings.test.snapshot.classes, findings.measured.confusion),
        "mistakes": [_shown(findings, position) for position in worst],
        "changes": _changes(findings),
    }


def _matrix(names: tuple[str, ...], counts: Ints) -> dict[str, Any]:
    """The matrix, or its most confused part, and the most confused pairs."""
    shown = np.arange(len(names))
    if len(names) > MATRIX_CLASSES:
        errors = counts.sum(axis=0) + counts.sum(axis=1) - 2 * np.diag(counts)
        shown = np.sort(np.argsort(-errors, kind="stable")[:MATRIX_CLASSES])
    cells = {i: [_cell(names, counts, i, j) for j in shown.tolist()] for i in shown.tolist()}
    longest = 5 if len(shown) <= BESIDE else 2
    return {
        "classes": len(names),
        "shown": [names[i] for i in shown],
        "rows": [(names[i], row) for i, row in cells.items()],
        "many": len(shown) > BESIDE,
        "long": any(len(names[i]) > longest for i in shown),
        "pairs": _pairs(names, counts),
    }


def _cell(names: tuple[str, ...], counts: Ints, truth: int, given: int) -> MatrixCell:
    count = int(counts[truth, given])
    text = f"{names[truth]} taken for {names[given]}: {count}"
    if truth == given:
        text = f"{names[truth]} correctly recognised: {count}"
    share = round(count / max(1, int(counts[truth].sum())), 3)
    return MatrixCell(truth=truth, given=given, count=count, share=share, text=text)


def _pairs(names: tuple[str, ...], counts: Ints) -> list[MatrixCell]:
    errors = counts.copy()
    np.fill_diagonal(errors, 0)
    order = np.argsort(-errors, axis=None, kind="stable")[:PAIRS]
    return [
        MatrixCell(
            truth=truth,
            given=given,
            count=int(errors[truth, given]),
            share=int(errors[truth, given]) / int(counts[truth].sum()),
            text=f"{names[truth]} taken for {names[given]}",
        )
        for truth, given in np.transpose(np.unravel_index(order, errors.shape)).tolist()
        if errors[truth, given]
    ]


def confusion_data(findings: Findings) -> Data:
    """What the script needs: names, cells and the pictures that are not in the page."""
    cells: dict[str, list[tuple[int, float]]] = {}
    test = findings.test
    sure, wrong = test.probabilities.max(axis=1), ~test.right
    for position in sorted(findings.pictures, key=lambda p: -sure[p] if wrong[p] else sure[p]):
        key = f"{test.labels[position]},{test.predicted[position]}"
        cells.setdefault(key, []).append((position, round(float(sure[position]), 4)))
    in_page = {*findings.worst, *changed(findings)[0], *changed(findings)[1]}
    pictures = {
        str(position): {"uri": picture.uri, "source": picture.source}
        for position, picture in findings.pictures.items()
        if position not in in_page
    }
    counts = {
        f"{truth},{given}": int(findings.measured.confusion[truth, given])
        for truth, given in np.argwhere(findings.measured.confusion).tolist()
    }
    classes = list(test.snapshot.classes)
    value = {"classes": classes, "counts": counts, "cells": cells, "pictures": pictures}
    return Data("confusion-data", value)


def _changes(findings: Findings) -> list[tuple[str, str, list[Shown]]]:
    """Images on which challenger and champion differ: a heading, who is wrong, and the images."""
    champion = findings.test.champion
    if champion is None:
        return []
    names = findings.test.snapshot.classes
    every = [*names, *(name for name in champion.classes if name not in set(names))]
    gained, lost = changed(findings)
    theirs = {position: every[champion.predicted[position]] for position in gained}
    found = [
        (
            "Lost: only the champion is right",
            "this model",
            [_shown(findings, position) for position in lost],
        ),
        (
            "Gained: only this model is right",
            "champion",
            [_shown(findings, position, theirs[position]) for position in gained],
        ),
    ]
    return [each for each in found if each[2]]


def _shown(findings: Findings, position: int, given: str = "") -> Shown:
    names, test = findings.test.snapshot.classes, findings.test
    return Shown(
        picture=findings.pictures[position],
        position=position,
        truth=names[test.labels[position]],
        given=given or names[test.predicted[position]],
        sure=float(test.probabilities[position].max()),
    )

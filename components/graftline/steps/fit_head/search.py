"""Choosing the linear classifier: k-NN as a measure, logistic regression and SVM over a grid."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from graftline.progress import Progress
from graftline.stats.intervals import wilson
from graftline.steps.fit_head.folds import Folds, Index
from graftline.steps.fit_head.linear import (
    FAMILIES,
    WIDEST,
    Family,
    LinearFit,
    Matrix,
    Scaling,
    Standardisation,
    balanced_weights,
    fit_linear,
    standardisation,
)
from graftline.steps.fit_head.parallel import side_by_side

SEARCH_ITERATIONS = 100  # the order of candidates is settled long before a fit has converged
SEARCH_TOLERANCE = 5e-4
GIVE_UP_BELOW = 0.01  # a path over C ends once it is this much worse than its best


@dataclass(frozen=True)
class Candidate:
    """One point of the grid and what cross-validation says of it.

    Attributes:
        family: Logistic regression or linear SVM.
        scaling: How features are standardised.
        C: Inverse strength of the regularisation.
        accuracy: Share of images that the folds without them label correctly.
        interval: 95% interval of it.
        fold_accuracies: By fold.
    """

    family: Family
    scaling: Scaling
    C: float
    accuracy: float
    interval: tuple[float, float]
    fold_accuracies: tuple[float, ...]

    def to_dict(self) -> dict[str, Any]:
        """For the decision record."""
        return {
            "family": self.family,
            "scaling": self.scaling.value,
            "C": self.C,
            "accuracy": round(self.accuracy, 6),
            "interval": [round(value, 6) for value in self.interval],
        }


def knn_accuracies(
    features: Matrix, labels: Index, folds: Folds, neighbours: Sequence[int], classes: int
) -> dict[int, float]:
    """Cross-validated accuracy of k nearest neighbours by cosine, each vote weighted by it.

    Args:
        features: Raw features, shape (N, feature_dim).
        labels: Class indices, shape (N,).
        folds: Fold of each row.
        neighbours: The k to try; a k beyond the rows of a fold counts all of them.
        classes: Number of classes.
    """
    lengths = np.linalg.norm(features, axis=1, keepdims=True)
    unit = features / np.maximum(lengths, 1e-12)
    correct = dict.fromkeys(neighbours, 0)
    for fit_rows, held_out in folds:
        bank, bank_labels = unit[fit_rows], labels[fit_rows]
        most = min(max(neighbours), len(fit_rows))
        for start in range(0, len(held_out), 1024):
            rows = held_out[start : start + 1024]
            cosine = unit[rows] @ bank.T
            near = np.argpartition(-cosine, most - 1, axis=1)[:, :most]
            closeness = np.take_along_axis(cosine, near, axis=1)
            order = np.argsort(-closeness, axis=1, kind="stable")
            near = np.take_along_axis(near, order, axis=1)
            closeness = np.take_along_axis(closeness, order, axis=1)
            for k in neighbours:
                guess = _vote(bank_labels[near[:, :k]], closeness[:, :k], classes)
                correct[k] += int((guess == labels[rows]).sum())
    return {k: count / len(labels) for k, count in correct.items()}


def search(
    features: Matrix,
    labels: Index,
    folds: Folds,
    classes: int,
    *,
    grid: Sequence[float],
    balanced: bool,
) -> list[Candidate]:
    """Cross-validate every candidate, best first.

    Each path goes from strong to weak regularisation, each fit starting from the last one, and
    ends early once it has become clearly worse. Ties go to the stronger regularisation, and to
    logistic regression, whose probabilities are the better ones.
    """
    scalings = [how for how in Scaling if how is not Scaling.WITHIN or features.shape[1] <= WIDEST]
    paths = [(family, scaling) for family in FAMILIES for scaling in scalings]
    found: list[Candidate] = []
    with Progress("choosing the probe", len(paths) * len(grid) * folds.count, "fits") as bar:
        for scaling in scalings:
            parts = [_Part(features, labels, fit, held, scaling) for fit, held in folds]
            for family in FAMILIES:
                path = _walk(parts, classes, family, scaling, sorted(grid), balanced, folds, bar)
                found += path
                bar.advance((len(grid) - len(path)) * folds.count)
    return sorted(found, key=lambda c: (-round(c.accuracy, 9), FAMILIES.index(c.family), c.C))


def fit_candidate(
    features: Matrix, labels: Index, classes: int, candidate: Candidate, *, balanced: bool
) -> tuple[LinearFit, Standardisation]:
    """Fit the chosen candidate to convergence on these rows."""
    scaling = standardisation(features, candidate.scaling, labels)
    weights = balanced_weights(labels, classes) if balanced else None
    fit = fit_linear(
        scaling.apply(features),
        labels,
        classes,
        family=candidate.family,
        C=candidate.C,
        class_weight=weights,
    )
    return fit, scaling


class _Part:
    """A fold with its features standardised by its own fit rows."""

    def __init__(
        self, features: Matrix, labels: Index, fit: Index, held_out: Index, scaling: Scaling
    ) -> None:
        raw = features[fit]
        by = standardisation(raw, scaling, labels[fit])
        self.fit, self.fit_labels = by.apply(raw), labels[fit]
        self.held_out, self.held_out_labels = by.apply(features[held_out]), labels[held_out]

    def correct(self, fit: LinearFit) -> int:
        """How many held-out rows it labels correctly."""
        return int((fit.decide(self.held_out).argmax(axis=1) == self.held_out_labels).sum())


def _walk(
    parts: list[_Part],
    classes: int,
    family: Family,
    scaling: Scaling,
    grid: Sequence[float],
    balanced: bool,
    folds: Folds,
    bar: Progress,
) -> list[Candidate]:
    """One path over C."""
    path: list[Candidate] = []
    fits: list[LinearFit | None] = [None] * len(parts)
    for C in grid:

        def fit_part(number: int, C: float = C, last: list[LinearFit | None] = fits) -> LinearFit:
            part = parts[number]
            weights = balanced_weights(part.fit_labels, classes) if balanced else None
            return fit_linear(
                part.fit,
                part.fit_labels,
                classes,
                family=family,
                C=C,
                start=last[number],
                class_weight=weights,
                max_iterations=SEARCH_ITERATIONS,
                tolerance=SEARCH_TOLERANCE,
            )

        fitted = side_by_side(fit_part, range(len(parts)))
        correct = [part.correct(fit) for part, fit in zip(parts, fitted, strict=True)]
        fits = list(fitted)
        bar.advance(len(parts))
        sizes = [len(part.held_out_labels) for part in parts]
        accuracy = sum(correct) / sum(sizes)
        by_fold = tuple(right / size for right, size in zip(correct, sizes, strict=True))
        interval = wilson(accuracy, folds.effective)
        path.append(Candidate(family, scaling, C, accuracy, interval, by_fold))
        if accuracy < max(candidate.accuracy for candidate in path) - GIVE_UP_BELOW:
            break
    return path


def _vote(labels: NDArray[np.int64], weights: Matrix, classes: int) -> Index:
    """The class with the largest sum of cosines among the neighbours, shape (rows,)."""
    votes = np.zeros((len(labels), classes))
    rows = np.arange(len(labels))
    for column in range(labels.shape[1]):
        # Cosine may be negative; shifted, so that a far neighbour still votes for its class.
        np.add.at(votes, (rows, labels[:, column]), weights[:, column] + 1.0)
    winner: Index = votes.argmax(axis=1)
    return winner

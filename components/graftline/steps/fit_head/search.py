"""Choosing the linear classifier: k-NN as a measure, the candidates by cross-validation."""

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
    Family,
    LinearFit,
    balanced_weights,
    fit_linear,
    on_device,
)
from graftline.steps.fit_head.parallel import side_by_side
from graftline.steps.fit_head.scaling import (
    WIDEST,
    Matrix,
    Scaling,
    Standardisation,
    principal,
    standardisation,
    turned,
)

SEARCH_ITERATIONS = 100  # the order of candidates is settled long before a fit has converged
SEARCH_TOLERANCE = 5e-4
FINE_TOLERANCE = 2e-4  # of turned features, whose gradient is divided by the root of the curvature
ROUGH_ITERATIONS, ROUGH_TOLERANCE = 30, 2e-3  # of the coarse search: only where the best is
PATIENCE = 2  # values without a better one, after which a path ends
GIVE_UP_BELOW = 0.01  # a path over C ends once it is this much worse than its best
REFINED_WITHIN = 0.003  # of the best so far: other paths are not searched more finely
LONG_GRID, COARSE_STEP = 16, 4  # from so many values on, every fourth first
SCALINGS = (Scaling.WITHIN, Scaling.SHARED, Scaling.EACH)  # the likely winner first


@dataclass(frozen=True)
class Candidate:
    """One point of the grid and what cross-validation says of it.

    Attributes:
        family: Logistic regression, linear SVM or nearest class mean.
        scaling: How features are standardised.
        C: Inverse strength of the regularisation; 1 where nothing is regularised.
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
    families: Sequence[Family] = FAMILIES,
    scalings: Sequence[Scaling] = SCALINGS,
) -> list[Candidate]:
    """Cross-validate every candidate, best first.

    A long grid is searched coarse to fine: every fourth value, then the values around the best
    one of each path that can still win. Each path goes from strong to weak regularisation, each
    fit starting from the last one, and ends early once it has become clearly worse. Ties go to the
    stronger regularisation, and to logistic regression, whose probabilities are the better ones.
    """
    grid = sorted(grid)
    coarse = grid if len(grid) < LONG_GRID else grid[::COARSE_STEP]
    scalings = [how for how in scalings if how is not Scaling.WITHIN or features.shape[1] <= WIDEST]
    found: list[Candidate] = []
    fits = len(scalings) * len(families) * len(coarse) * folds.count
    with Progress("choosing the probe", fits, "fits") as bar:
        for scaling in scalings:
            turn = _common_turn(features, labels, scaling)
            parts = [_Part(features, labels, fit, held, scaling, turn) for fit, held in folds]
            for family in families:
                walk = _Walk(parts, classes, family, scaling, balanced, folds.effective)
                if family == "mean":  # nothing is regularised
                    found += walk.along((1.0,), bar)
                    bar.advance((len(coarse) - 1) * folds.count)
                    continue
                long = len(coarse) < len(grid)
                path = walk.along(coarse, bar, rough=long, patience=PATIENCE if long else None)
                bar.advance((len(coarse) - len(path)) * folds.count)
                best = max(path, key=lambda candidate: candidate.accuracy)
                top = max([c.accuracy for c in found], default=0.0)
                if long and best.accuracy >= top - REFINED_WITHIN:
                    path = walk.refined(path, grid)
                found += path
    return sorted(found, key=lambda c: (-round(c.accuracy, 9), FAMILIES.index(c.family), c.C))


def _around(C: float, grid: Sequence[float]) -> Sequence[float]:
    """The best coarse value again, and those between it and its coarse neighbours."""
    at = grid.index(C)
    return grid[max(0, at - COARSE_STEP + 1) : at + COARSE_STEP]


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


def _common_turn(features: Matrix, labels: Index, scaling: Scaling) -> NDArray[np.float64] | None:
    """Principal directions of all images, near enough those of every fold: found once.

    It is a turn and nothing else: no fold learns from it what its held-out images are. None with
    so few images that each fold is quickly turned by itself, and with too many features.
    """
    count, width = features.shape
    if count <= width // 2 or width > WIDEST:
        return None
    return principal(standardisation(features, scaling, labels).apply(features))


class _Part:
    """A fold with its features standardised by its own fit rows and turned."""

    def __init__(
        self,
        features: Matrix,
        labels: Index,
        fit: Index,
        held_out: Index,
        scaling: Scaling,
        turn: NDArray[np.float64] | None,
    ) -> None:
        raw = features[fit]
        by = standardisation(raw, scaling, labels[fit], in_span=turn is None)
        if turn is None and features.shape[1] <= WIDEST:
            turn = principal(by.apply(raw))
        if turn is not None:
            by = turned(by, turn)
        inside = by.apply(raw)
        self.spread = None if turn is None else inside.var(axis=0, dtype=np.float64)
        self.fit, self.fit_labels = on_device(inside), labels[fit]
        self.held_out, self.held_out_labels = by.apply(features[held_out]), labels[held_out]

    def correct(self, fit: LinearFit) -> int:
        """How many held-out rows it labels correctly."""
        return int((fit.decide(self.held_out).argmax(axis=1) == self.held_out_labels).sum())


@dataclass(frozen=True)
class _Walk:
    """A path over C: one family on one scaling, all folds side by side."""

    parts: list[_Part]
    classes: int
    family: Family
    scaling: Scaling
    balanced: bool
    units: int

    def along(
        self,
        grid: Sequence[float],
        bar: Progress | None,
        *,
        rough: bool = False,
        patience: int | None = None,
    ) -> list[Candidate]:
        """Candidates from strong to weak regularisation, until one cannot win any more."""
        path: list[Candidate] = []
        fits: list[LinearFit | None] = [None] * len(self.parts)
        for C in grid:

            def fit_part(number: int, C: float = C, last: Sequence[Any] = fits) -> LinearFit:
                return self._fit(self.parts[number], C, last[number], rough)

            fitted = side_by_side(fit_part, range(len(self.parts)))
            path.append(self._measured(C, fitted))
            fits = list(fitted)
            if bar is not None:
                bar.advance(len(self.parts))
            if _past_its_best(path, len(grid) if patience is None else patience):
                break
        return path

    def refined(self, path: Sequence[Candidate], grid: Sequence[float]) -> list[Candidate]:
        """The path with the values around its best one; no rough value is better than those."""
        best = max(path, key=lambda candidate: candidate.accuracy)
        near = self.along(_around(best.C, grid), None, patience=PATIENCE)
        fine = {candidate.C: candidate for candidate in near}
        top = max(candidate.accuracy for candidate in fine.values())
        rough = [candidate for candidate in path if candidate.C not in fine]
        # Fits that stop early can look better than what they become.
        return [candidate for candidate in rough if candidate.accuracy < top] + list(fine.values())

    def _fit(self, part: _Part, C: float, start: LinearFit | None, rough: bool) -> LinearFit:
        weights = balanced_weights(part.fit_labels, self.classes) if self.balanced else None
        fine = SEARCH_TOLERANCE if part.spread is None else FINE_TOLERANCE
        return fit_linear(
            part.fit,
            part.fit_labels,
            self.classes,
            family=self.family,
            C=C,
            start=start,
            class_weight=weights,
            spread=part.spread,
            max_iterations=ROUGH_ITERATIONS if rough else SEARCH_ITERATIONS,
            tolerance=ROUGH_TOLERANCE if rough else fine,
        )

    def _measured(self, C: float, fitted: Sequence[LinearFit]) -> Candidate:
        correct = [part.correct(fit) for part, fit in zip(self.parts, fitted, strict=True)]
        sizes = [len(part.held_out_labels) for part in self.parts]
        accuracy = sum(correct) / sum(sizes)
        by_fold = tuple(right / size for right, size in zip(correct, sizes, strict=True))
        interval = wilson(accuracy, self.units)
        return Candidate(self.family, self.scaling, C, accuracy, interval, by_fold)


def _past_its_best(path: Sequence[Candidate], patience: int) -> bool:
    """Whether accuracy fell clearly, or stopped rising after it once had risen."""
    accuracies = [candidate.accuracy for candidate in path]
    best = int(np.argmax(accuracies))
    tired = best > 0 and len(path) - 1 - best >= patience
    return tired or accuracies[-1] < accuracies[best] - GIVE_UP_BELOW


def _vote(labels: NDArray[np.int64], weights: Matrix, classes: int) -> Index:
    """The class with the largest sum of cosines among the neighbours, shape (rows,)."""
    votes = np.zeros((len(labels), classes))
    rows = np.arange(len(labels))
    for column in range(labels.shape[1]):
        # Cosine may be negative; shifted, so that a far neighbour still votes for its class.
        np.add.at(votes, (rows, labels[:, column]), weights[:, column] + 1.0)
    winner: Index = votes.argmax(axis=1)
    return winner

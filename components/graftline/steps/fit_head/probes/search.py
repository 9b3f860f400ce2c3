"""Choosing the linear classifier: k-NN as a measure, the candidates by cross-validation."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from graftline.progress import Progress
from graftline.stats.intervals import wilson
from graftline.steps.fit_head.probes.divided import Divided, Part
from graftline.steps.fit_head.probes.folds import Folds, Index
from graftline.steps.fit_head.probes.linear import (
    FAMILIES,
    Family,
    LinearFit,
    balanced_weights,
    fit_linear,
)
from graftline.steps.fit_head.probes.parallel import side_by_side
from graftline.steps.fit_head.probes.scaling import (
    Matrix,
    Scaling,
    Standardisation,
    can_whiten,
    standardisation,
)

SEARCH_ITERATIONS = 100  # the order of candidates is settled long before a fit has converged
SEARCH_TOLERANCE = 5e-4
FINE_TOLERANCE = 2e-4  # of turned features, whose gradient is divided by the root of the curvature
ROUGH_ITERATIONS, ROUGH_TOLERANCE = 30, 2e-3  # of the coarse search: only where the best is
PATIENCE = 2  # values without a better one, after which a path ends
GIVE_UP_BELOW = 0.01  # a path over C ends once it is this much worse than its best
REFINED_WITHIN = 0.003  # of the best so far: other paths are not searched more finely
SCREENED = 2  # folds on which all paths over a long grid are walked
FINALISTS = 3  # paths that are walked on all folds
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
            "folds": len(self.fold_accuracies),
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
    divided: Divided | None = None,
) -> list[Candidate]:
    """Cross-validate the candidates, best first.

    A path is one family on one scaling, from strong to weak regularisation, each fit starting
    from the last one; it ends early once it has become clearly worse. A long grid is searched
    coarse to fine: every fourth value, then the values around the best one. With more than three
    folds, all paths are first walked coarsely on two folds, and only the three best go on to all
    folds. Coarse fits stop before they have converged: far from the best C the accuracies of weak
    regularisation are approximate. Ties go to the stronger regularisation, and to logistic
    regression, whose probabilities are the better ones.

    Args:
        features: Raw features, shape (N, feature_dim).
        labels: Class indices, shape (N,).
        folds: Fold of each row.
        classes: Number of classes.
        grid: Values of C.
        balanced: Whether classes are weighted by their inverse frequency.
        families: That compete.
        scalings: That compete.
        divided: The same rows, prepared by an earlier search or for later fits.
    """
    divided = divided or Divided(features, labels, folds)
    if not can_whiten(*features.shape):
        scalings = [how for how in scalings if how is not Scaling.WITHIN]
    walks = [_Walk(divided, classes, f, how, balanced) for how in scalings for f in families]
    grid, screened = sorted(grid), list[Candidate]()
    with Progress("choosing the probe", len(walks), "paths") as bar:
        if len(grid) >= LONG_GRID and len(divided) > SCREENED + 1 and len(walks) > FINALISTS:
            walks, screened = _screened(walks, divided, grid, bar)
        found: list[Candidate] = []
        for walk in walks:
            found += _path(walk, grid, max((c.accuracy for c in found), default=0.0))
            bar.advance(1)
    return sorted(found + screened, key=_rank)


def _screened(
    walks: Sequence["_Walk"], divided: Divided, grid: Sequence[float], bar: Progress
) -> tuple[list["_Walk"], list[Candidate]]:
    """The paths that go on, the best first, and the candidates of the others."""
    paths = []
    for walk in walks:
        values = (1.0,) if walk.family == "mean" else grid[::COARSE_STEP]
        some = replace(walk, folds=range(SCREENED))
        paths.append((walk, some.along(values, rough=True, patience=PATIENCE)))
        bar.advance(1)
        best = max(paths, key=lambda pair: max(c.accuracy for c in pair[1]))
        divided.forget(all_but=[best[0].scaling, walk.scaling])
    paths.sort(key=lambda pair: min(_rank(candidate) for candidate in pair[1]))
    left = [candidate for _, path in paths[FINALISTS:] for candidate in path]
    return [walk for walk, _ in paths[:FINALISTS]], left


def _rank(candidate: Candidate) -> tuple[float, ...]:
    """Finalists first, then by accuracy, then by preference."""
    at = FAMILIES.index(candidate.family)
    return (-len(candidate.fold_accuracies), -round(candidate.accuracy, 9), at, candidate.C)


def _path(walk: "_Walk", grid: Sequence[float], top: float) -> list[Candidate]:
    """One family on one scaling, over C."""
    if walk.family == "mean":  # nothing is regularised
        return walk.along((1.0,))
    if len(grid) < LONG_GRID:
        return walk.along(grid)
    path = walk.along(grid[::COARSE_STEP], rough=True, patience=PATIENCE)
    best = max(path, key=lambda candidate: candidate.accuracy)
    return walk.refined(path, grid) if best.accuracy >= top - REFINED_WITHIN else path


def _around(C: float, grid: Sequence[float]) -> Sequence[float]:
    """The best coarse value again, and those between it and its coarse neighbours."""
    at = grid.index(C)
    return grid[max(0, at - COARSE_STEP + 1) : at + COARSE_STEP]


def fit_candidate(
    features: Matrix, labels: Index, classes: int, candidate: Candidate, *, balanced: bool
) -> tuple[LinearFit, Standardisation]:
    """Fit the chosen candidate to convergence on these rows."""
    scaling = standardisation(features, candidate.scaling, labels, in_span=True)
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


@dataclass(frozen=True)
class _Walk:
    """A path over C: one family on one scaling, its folds side by side."""

    divided: Divided
    classes: int
    family: Family
    scaling: Scaling
    balanced: bool
    folds: Sequence[int] | None = None

    def along(
        self,
        grid: Sequence[float],
        *,
        rough: bool = False,
        patience: int | None = None,
    ) -> list[Candidate]:
        """Candidates from strong to weak regularisation, until one cannot win any more."""
        parts = self.divided.parts(self.scaling, self.folds)
        path: list[Candidate] = []
        fits: list[LinearFit | None] = [None] * len(parts)
        for C in grid:

            def fit_part(number: int, C: float = C, last: Sequence[Any] = fits) -> LinearFit:
                return self._fit(parts[number], C, last[number], rough)

            product = self.divided.features.size * self.classes
            fitted = side_by_side(fit_part, range(len(parts)), product=product)
            path.append(self._measured(C, parts, fitted))
            fits = list(fitted)
            if _past_its_best(path, len(grid) if patience is None else patience):
                break
        return path

    def refined(self, path: Sequence[Candidate], grid: Sequence[float]) -> list[Candidate]:
        """The path with the values around its best one; no rough value is better than those."""
        best = max(path, key=lambda candidate: candidate.accuracy)
        near = self.along(_around(best.C, grid), patience=PATIENCE)
        fine = {candidate.C: candidate for candidate in near}
        top = max(candidate.accuracy for candidate in fine.values())
        rough = [candidate for candidate in path if candidate.C not in fine]
        # Fits that stop early can look better than what they become.
        return [candidate for candidate in rough if candidate.accuracy < top] + list(fine.values())

    def _fit(self, part: Part, C: float, start: LinearFit | None, rough: bool) -> LinearFit:
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

    def _measured(self, C: float, parts: list[Part], fitted: Sequence[LinearFit]) -> Candidate:
        correct = [part.correct(fit) for part, fit in zip(parts, fitted, strict=True)]
        sizes = [len(part.held_out_labels) for part in parts]
        accuracy = sum(correct) / sum(sizes)
        by_fold = tuple(right / size for right, size in zip(correct, sizes, strict=True))
        folds = self.divided.folds
        units = max(1, round(folds.effective * sum(sizes) / len(self.divided.labels)))
        interval = wilson(accuracy, units)
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

"""Which images a linear classifier gets right that was fitted without them."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from graftline.steps.fit_head.probes.folds import Folds, Index, make_folds
from graftline.steps.fit_head.probes.scaling import Matrix
from graftline.steps.fit_head.probes.search import Candidate, fit_candidate, search


def best_probe(
    features: Matrix,
    labels: Index,
    groups: Index,
    classes: tuple[str, ...],
    *,
    grid: Sequence[float],
    folds: int,
    balanced: bool,
    seed: int,
) -> tuple[Candidate, NDArray[np.bool_]]:
    """The best linear classifier by cross-validation, and which rows it gets right in it.

    Args:
        features: Raw features, shape (N, feature_dim).
        labels: Class indices, shape (N,).
        groups: Group number of each row; a group is never on both sides.
        classes: Class names.
        grid: Values of C.
        folds: Of the cross-validation.
        balanced: Whether classes are weighted by inverse frequency.
        seed: Of the folds; equal rows and seeds give equal folds, so that backbones are paired.
    """
    divided = make_folds(labels, groups, classes, folds, seed)
    found = search(features, labels, divided, len(classes), grid=grid, balanced=balanced)
    return found[0], _right(features, labels, divided, len(classes), found[0], balanced)


def _right(
    features: Matrix, labels: Index, folds: Folds, classes: int, probe: Candidate, balanced: bool
) -> NDArray[np.bool_]:
    right = np.zeros(len(labels), dtype=bool)
    for fit, held in folds:
        line, scaling = fit_candidate(features[fit], labels[fit], classes, probe, balanced=balanced)
        right[held] = line.decide(scaling.apply(features[held])).argmax(axis=1) == labels[held]
    return right

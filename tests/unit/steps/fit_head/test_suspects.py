"""Planted label errors are found on real digits; pairs that are confused; sets without either."""

import numpy as np
import pytest
from sklearn.datasets import load_digits

from graftline.steps.fit_head.probes.divided import Divided
from graftline.steps.fit_head.probes.folds import make_folds
from graftline.steps.fit_head.probes.scaling import Scaling
from graftline.steps.fit_head.probes.search import Candidate, search
from graftline.steps.fit_head.suspects import (
    hardest_pairs,
    out_of_fold,
    probabilities,
    suspect_rows,
)

DIGITS = tuple("0123456789")


@pytest.mark.parametrize("seed", [0, 1])
def test_planted_label_errors_are_found(seed: int) -> None:
    x, y = load_digits(return_X_y=True)
    x = x.astype(np.float32)
    random = np.random.default_rng(seed)
    planted = random.permutation(len(y))[: len(y) // 20]
    given = y.copy()
    given[planted] = (y[planted] + random.integers(1, 10, len(planted))) % 10
    folds = make_folds(given, np.arange(len(y)), DIGITS, 5, seed)
    ranked = search(x, given, folds, 10, grid=(0.001, 0.01, 0.1), balanced=False)
    best = next(candidate for candidate in ranked if candidate.family == "logistic")
    said = probabilities(out_of_fold(Divided(x, given, folds), 10, best, balanced=False))
    found = suspect_rows(given, said)
    right = len(np.intersect1d(found, planted))
    assert right / len(planted) >= 0.8
    assert right / len(found) >= 0.5
    assert len(np.intersect1d(found[:20], planted)) >= 18  # the least credible come first
    likely = said.argmax(axis=1)
    assert (
        likely[np.intersect1d(found, planted)] == y[np.intersect1d(found, planted)]
    ).mean() > 0.9


def test_labels_without_errors_are_hardly_suspected() -> None:
    x, y = load_digits(return_X_y=True)
    folds = make_folds(y, np.arange(len(y)), DIGITS, 5, 0)
    best = Candidate("logistic", Scaling.WITHIN, 0.01, 0.95, (0.9, 1.0), ())
    divided = Divided(x.astype(np.float32), y, folds)
    said = probabilities(out_of_fold(divided, 10, best, balanced=False))
    assert np.allclose(said.sum(axis=1), 1.0)
    assert (said.argmax(axis=1) == y).mean() > 0.93
    assert len(suspect_rows(y, said)) < 0.04 * len(y)


def test_a_class_that_no_image_has_does_not_disturb() -> None:
    labels = np.repeat([0, 2], 20)
    said = np.full((40, 3), 0.05)
    said[np.arange(40), labels] = 0.9
    labels[3] = 2
    assert suspect_rows(labels, said).tolist() == [3]
    assert len(suspect_rows(np.zeros(5, dtype=np.int64), np.ones((5, 1)))) == 0


def test_pairs_count_both_ways_and_the_worst_comes_first() -> None:
    labels = np.array([0, 0, 0, 1, 1, 1, 2, 2])
    said = np.array([0, 1, 1, 0, 1, 1, 2, 1])
    pairs = hardest_pairs(labels, np.eye(3)[said], ("cat", "dog", "fox"))
    assert pairs == [
        {"classes": ["cat", "dog"], "confused": 3, "of": 6, "share": 0.5},
        {"classes": ["dog", "fox"], "confused": 1, "of": 5, "share": 0.2},
    ]

"""Labels that are probably wrong, and the pairs of classes that are hardest to tell apart.

Confident learning (Northcutt et al. 2021, "Confident Learning: Estimating Uncertainty in Dataset
Labels"): a label is suspect where a classifier that has not seen the image is more confident of
another class than it is of that class's own images on average. `cleanlab` does the counting.
"""

import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import softmax

from graftline.data.snapshot import Snapshot
from graftline.steps.fit_head.probes.divided import Divided, Part
from graftline.steps.fit_head.probes.folds import Index
from graftline.steps.fit_head.probes.linear import balanced_weights, fit_linear
from graftline.steps.fit_head.probes.parallel import side_by_side
from graftline.steps.fit_head.probes.search import (
    FINE_TOLERANCE,
    SEARCH_ITERATIONS,
    SEARCH_TOLERANCE,
    Candidate,
)

MOST_SUSPECTS = 300  # in the decision record
HARDLY = 0.1  # of what the classifier gives a class's own images on average
MOST_PAIRS = 10

Probabilities = NDArray[np.float64]
Scores = NDArray[np.float64]


def out_of_fold(divided: Divided, classes: int, candidate: Candidate, *, balanced: bool) -> Scores:
    """What the candidate says of each row when fitted on the folds without it, (N, classes).

    Args:
        divided: The rows, by folds.
        classes: Number of classes.
        candidate: What is fitted.
        balanced: Whether classes are weighted by their inverse frequency.
    """
    scores = np.zeros((len(divided.labels), classes))

    def fit(part: Part) -> None:
        weights = balanced_weights(part.fit_labels, classes) if balanced else None
        fitted = fit_linear(
            part.fit,
            part.fit_labels,
            classes,
            family=candidate.family,
            C=candidate.C,
            class_weight=weights,
            spread=part.spread,
            max_iterations=SEARCH_ITERATIONS,
            tolerance=SEARCH_TOLERANCE if part.spread is None else FINE_TOLERANCE,
        )
        scores[part.rows] = fitted.decide(part.held_out)

    product = divided.features.size * classes
    side_by_side(fit, divided.parts(candidate.scaling), product=product)
    return scores


def probabilities(scores: Scores) -> Probabilities:
    """Of a logistic regression's scores: confident learning needs them."""
    found: Probabilities = softmax(scores, axis=1)
    return found


def suspect_rows(labels: Index, probabilities: Probabilities) -> Index:
    """Rows whose labels are probably wrong, the least credible first.

    Args:
        labels: Class indices, shape (N,).
        probabilities: Of rows that the classifier has not seen, shape (N, classes).
    """
    from cleanlab.count import get_confident_thresholds
    from cleanlab.filter import find_label_issues

    present, index = np.unique(labels, return_inverse=True)
    if len(present) < 2:
        return np.zeros(0, dtype=np.int64)
    among = probabilities[:, present]
    among = among / np.maximum(among.sum(axis=1, keepdims=True), 1e-12)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # of classes with few images: seen elsewhere
        counted = find_label_issues(index, among, filter_by="prune_by_noise_rate", n_jobs=1)
    # A fit on noisy labels is not confident enough of the right class, and the counts come out
    # too low: a label in which it hardly believes at all is suspect whatever they say.
    given = among[np.arange(len(index)), index]
    hardly = given < HARDLY * get_confident_thresholds(index, among)[index]
    found = np.flatnonzero(counted | (hardly & (among.argmax(axis=1) != index)))
    ranked: Index = found[np.argsort(given[found], kind="stable")]
    return ranked


def suspects(
    snapshot: Snapshot, rows: Index, labels: Index, probabilities: Probabilities
) -> dict[str, Any]:
    """For the decision record: ``count``, ``of`` and the first of them in ``images``.

    Args:
        snapshot: The data.
        rows: Manifest row of each image that was examined, shape (N,).
        labels: Their class indices.
        probabilities: See :func:`out_of_fold`.
    """
    found = suspect_rows(labels, probabilities)
    ids, sources = snapshot.image_ids(), snapshot.column("source")
    likely = probabilities.argmax(axis=1)
    images = [
        {
            "image_id": ids[rows[at]],
            "source": sources[rows[at]],
            "given": snapshot.classes[labels[at]],
            "likely": snapshot.classes[likely[at]],
            "confidence": round(float(probabilities[at, likely[at]]), 4),
        }
        for at in found[:MOST_SUSPECTS]
    ]
    return {"count": len(found), "of": len(rows), "images": images}


def hardest_pairs(
    labels: Index, probabilities: Probabilities, classes: Sequence[str]
) -> list[dict[str, Any]]:
    """Pairs of classes that are taken for each other most often, the worst first."""
    count = len(classes)
    said = probabilities.argmax(axis=1)
    table = np.bincount(labels * count + said, minlength=count * count).reshape(count, count)
    both = np.triu(table + table.T, 1)
    images = np.bincount(labels, minlength=count)
    order = np.argsort(-both, axis=None, kind="stable")[:MOST_PAIRS]
    pairs = []
    for first, second in zip(*np.unravel_index(order, both.shape), strict=True):
        if both[first, second]:
            of = int(images[first] + images[second])
            pairs.append(
                {
                    "classes": [classes[first], classes[second]],
                    "confused": int(both[first, second]),
                    "of": of,
                    "share": round(int(both[first, second]) / of, 6),
                }
            )
    return pairs

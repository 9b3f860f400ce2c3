"""The figures of the classifier, and the champion's beside them, from probabilities alone."""

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from graftline.stats.calibration import expected_noise, reliability, softmax
from graftline.stats.intervals import Bootstrap
from graftline.steps.evaluate import metrics
from graftline.steps.evaluate.answers import CalibratedAnswers
from graftline.steps.evaluate.champion import ChampionAnswers
from graftline.steps.evaluate.config import EvaluationSettings
from graftline.steps.evaluate.gate import Champion, Evidence
from graftline.steps.evaluate.out_of_distribution import coverage
from graftline.steps.evaluate.results import Measured, SideBySide
from graftline.steps.evaluate.slices import SliceFigures

Ints = NDArray[np.int64]


def measured(
    test: CalibratedAnswers, slices: list[SliceFigures], rules: EvaluationSettings, seed: int
) -> Measured:
    """All figures on the test split.

    Args:
        test: The answers of classifier and champion.
        slices: As measured before.
        rules: Settings.
        seed: For the bootstrap.
    """
    probabilities, labels, names = test.probabilities, test.labels, test.snapshot.classes
    areas = metrics.areas_by_class(probabilities, labels)
    figures = metrics.overall(probabilities, labels, rules.top_k, areas)
    bootstrap = _bootstrap(labels, test.groups, rules, seed)
    replicates = metrics.resampled(probabilities, labels, bootstrap, top_k=rules.top_k)
    before = reliability(softmax(test.answers.logits), labels)
    return Measured(
        figures=figures,
        intervals=metrics.intervals(replicates, figures, rules.confidence),
        uncalibrated_ece=before.ece,
        ece_noise=expected_noise(probabilities, seed=seed),
        classes=metrics.by_class(probabilities, labels, names, rules.confidence, areas),
        confusion=metrics.confusion(test.predicted, labels, len(names)),
        reliability=reliability(probabilities, labels),
        reliability_before=before,
        curves=metrics.curves(probabilities, labels),
        coverage=coverage(probabilities, labels),
        slices=slices,
        side_by_side=_side_by_side(test, rules, seed),
    )


def _bootstrap(
    labels: Ints, groups: Ints | None, rules: EvaluationSettings, seed: int
) -> Bootstrap:
    return Bootstrap(np.zeros_like(labels), groups, replicates=rules.bootstrap, seed=seed)


def _side_by_side(
    test: CalibratedAnswers, rules: EvaluationSettings, seed: int
) -> SideBySide | None:
    champion = test.champion
    if champion is None or not champion.comparable.any():
        return None
    both = champion.comparable
    truth, ours, theirs = test.labels[both], test.probabilities[both], champion.probabilities[both]
    groups = None if test.groups is None else test.groups[both]
    bootstrap = _bootstrap(truth, groups, rules, seed)
    width = {"classes": theirs.shape[1], "top_k": rules.top_k}
    new = metrics.resampled(ours, truth, bootstrap, **width)
    old = metrics.resampled(theirs, truth, bootstrap, **width)
    return SideBySide(
        challenger=metrics.overall(ours, truth, rules.top_k),
        champion=metrics.overall(theirs, truth, rules.top_k),
        difference=metrics.difference_intervals(new, old, rules.confidence),
    )


def evidence_of(
    test: CalibratedAnswers, slices: dict[str, NDArray[np.bool_]], figures: Measured
) -> Evidence:
    """What the gate decides by."""
    snapshot = test.snapshot
    train = snapshot.labels()[snapshot.rows("train")]
    counts = np.bincount(train, minlength=len(snapshot.classes))
    return Evidence(
        labels=test.labels,
        right=test.right,
        classes=snapshot.classes,
        majority=int(counts.argmax()),
        groups=test.groups,
        champion=None if test.champion is None else _champion(test, test.champion),
        ece=figures.figures["ece"],
        ece_noise=figures.ece_noise,
        slices=slices,
        given=test.predicted,
    )


def _champion(test: CalibratedAnswers, champion: ChampionAnswers) -> Champion:
    snapshot, both = test.snapshot, champion.comparable
    ours, theirs = set(snapshot.classes), set(champion.classes)
    return Champion(
        version=champion.version,
        right=champion.predicted == test.labels,
        comparable=both,
        same_snapshot=bool(champion.snapshot_id) and champion.snapshot_id == snapshot.id,
        same_answers=bool((champion.predicted[both] == test.predicted[both]).all()),
        removed_classes=tuple(sorted(theirs - ours)),
        new_classes=tuple(sorted(ours - theirs)),
    )


def test_figures(figures: Measured) -> dict[str, Any]:
    """The figures with their intervals, as JSON holds them."""
    found: dict[str, Any] = dict(plain(figures.figures))
    found.update({f"{name}_ci": bounds for name, bounds in figures.intervals.items()})
    found["ece_before"] = figures.uncalibrated_ece
    return found


def plain(figures: dict[str, float]) -> dict[str, float | None]:
    """Figures as JSON holds them: what is not known is null."""
    return {name: None if math.isnan(value) else value for name, value in figures.items()}

"""The figures of the classifier, and the champion's beside them, from probabilities alone."""

import math

import numpy as np
from numpy.typing import NDArray

from graftline.data.snapshot import Snapshot
from graftline.stats.calibration import expected_noise, reliability, softmax
from graftline.stats.intervals import Bootstrap
from graftline.steps.evaluate import metrics
from graftline.steps.evaluate.champion import ChampionAnswers
from graftline.steps.evaluate.config import EvaluationSettings
from graftline.steps.evaluate.gate import Champion, Evidence
from graftline.steps.evaluate.inference import Answers
from graftline.steps.evaluate.out_of_distribution import coverage
from graftline.steps.evaluate.results import Measured, SideBySide
from graftline.steps.evaluate.slices import SliceFigures

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


def measured(
    answers: Answers,
    probabilities: Floats,
    labels: Ints,
    groups: Ints | None,
    names: tuple[str, ...],
    champion: ChampionAnswers | None,
    slices: list[SliceFigures],
    rules: EvaluationSettings,
    seed: int,
) -> Measured:
    """All figures on the test split.

    Args:
        answers: The classifier's, uncalibrated.
        probabilities: Calibrated, shape (n, classes).
        labels: Class index of each image, shape (n,).
        groups: Group number of each, or None where images stand alone.
        names: The classes.
        champion: The champion's answers, or None.
        slices: As measured before.
        rules: Settings.
        seed: For the bootstrap.
    """
    areas = metrics.areas_by_class(probabilities, labels)
    figures = metrics.overall(probabilities, labels, rules.top_k, areas)
    bootstrap = Bootstrap(np.zeros_like(labels), groups, replicates=rules.bootstrap, seed=seed)
    replicates = metrics.resampled(probabilities, labels, bootstrap, top_k=rules.top_k)
    before = reliability(softmax(answers.logits), labels)
    return Measured(
        figures=figures,
        intervals=metrics.intervals(replicates, figures, rules.confidence),
        uncalibrated_ece=before.ece,
        ece_noise=expected_noise(probabilities, seed=seed),
        classes=metrics.by_class(probabilities, labels, names, rules.confidence, areas),
        confusion=metrics.confusion(probabilities.argmax(axis=1), labels, len(names)),
        reliability=reliability(probabilities, labels),
        reliability_before=before,
        curves=metrics.curves(probabilities, labels),
        coverage=coverage(probabilities, labels),
        slices=slices,
        side_by_side=_side_by_side(probabilities, labels, groups, champion, rules, seed),
    )


def _side_by_side(
    probabilities: Floats,
    labels: Ints,
    groups: Ints | None,
    champion: ChampionAnswers | None,
    rules: EvaluationSettings,
    seed: int,
) -> SideBySide | None:
    if champion is None or not champion.comparable.any():
        return None
    both = champion.comparable
    truth = labels[both]
    bootstrap = Bootstrap(
        np.zeros_like(truth),
        None if groups is None else groups[both],
        replicates=rules.bootstrap,
        seed=seed,
    )
    width = {"classes": champion.probabilities.shape[1], "top_k": rules.top_k}
    new = metrics.resampled(probabilities[both], truth, bootstrap, **width)
    old = metrics.resampled(champion.probabilities[both], truth, bootstrap, **width)
    return SideBySide(
        challenger=metrics.overall(probabilities[both], truth, rules.top_k),
        champion=metrics.overall(champion.probabilities[both], truth, rules.top_k),
        difference=metrics.difference_intervals(new, old, rules.confidence),
    )


def group_numbers(snapshot: Snapshot, rows: Ints) -> Ints | None:
    """A number for each image's group; None where every image stands alone."""
    ids = snapshot.image_ids()
    names = [
        str(group) if group else ids[row]
        for row, group in zip(rows.tolist(), snapshot.column("group")[rows].tolist(), strict=True)
    ]
    _, numbers = np.unique(np.array(names, dtype=object).astype(str), return_inverse=True)
    return None if len(set(numbers.tolist())) == len(names) else numbers.astype(np.int64)


def evidence_of(
    snapshot: Snapshot,
    probabilities: Floats,
    labels: Ints,
    groups: Ints | None,
    champion: ChampionAnswers | None,
    slices: dict[str, NDArray[np.bool_]],
    figures: Measured,
) -> Evidence:
    """What the gate decides by."""
    predicted = probabilities.argmax(axis=1)
    compared = None
    if champion is not None:
        ours, theirs = set(snapshot.classes), set(champion.classes)
        both = champion.comparable
        compared = Champion(
            version=champion.version,
            right=champion.predicted == labels,
            comparable=both,
            same_snapshot=bool(champion.snapshot_id) and champion.snapshot_id == snapshot.id,
            same_answers=bool((champion.predicted[both] == predicted[both]).all()),
            removed_classes=tuple(sorted(theirs - ours)),
            new_classes=tuple(sorted(ours - theirs)),
        )
    train = snapshot.labels()[snapshot.rows("train")]
    counts = np.bincount(train, minlength=len(snapshot.classes))
    return Evidence(
        labels=labels,
        right=predicted == labels,
        classes=snapshot.classes,
        majority=int(counts.argmax()),
        groups=groups,
        champion=compared,
        ece=figures.figures["ece"],
        ece_noise=figures.ece_noise,
        slices=slices,
        given=predicted,
    )


def plain(figures: dict[str, float]) -> dict[str, float | None]:
    """Figures as JSON holds them: what is not known is null."""
    return {name: None if math.isnan(value) else value for name, value in figures.items()}

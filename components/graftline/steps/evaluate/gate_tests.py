"""Tests of the gate that need no champion: enough images, more than one answer, a first model."""

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from graftline.records.verdict import GateTest
from graftline.reports.html import percent
from graftline.stats.intervals import share_interval, worth
from graftline.stats.paired_tests import effective_images
from graftline.steps.evaluate.config import FEW_IMAGES, GateSettings
from graftline.steps.evaluate.evidence import Evidence, Paired

Ints = NDArray[np.int64]
Bools = NDArray[np.bool_]


def tells_apart(evidence: Evidence) -> list[GateTest]:
    """What no figure can make up for: nothing to tell apart, or the same answer to everything."""
    n, answer = len(evidence.labels), _constant_answer(evidence)
    present = np.unique(evidence.labels)
    if len(present) < 2 and len(evidence.classes) > 1:
        reason = (
            f"All {n:,} test images are of the class {evidence.classes[int(present[0])]!r}, so "
            "they cannot show that the model tells classes apart. Label images of other classes, "
            "or give data.split.test a larger share."
        )
        return [GateTest(name="test_classes", passed=False, reason=reason)]
    if answer is not None:
        reason = (
            f"The model gives the same answer, {answer!r}, to all {n:,} test images: it tells no "
            "classes apart."
        )
        return [GateTest(name="answers_differ", passed=False, reason=reason)]
    return []


def _constant_answer(evidence: Evidence) -> str | None:
    """The one answer given to all test images; None where answers differ."""
    given = evidence.given
    if given is not None:
        return evidence.classes[int(given[0])] if (given == given[0]).all() else None
    if len(evidence.classes) < 2 or evidence.champion is None:
        return None  # a first model's answers are compared with constant ones anyway
    # Without the answers: all images of one class are right, and no others.
    right = np.unique(evidence.labels[evidence.right])
    if len(right) == 1 and evidence.right[evidence.labels == right[0]].all():
        return evidence.classes[int(right[0])]
    return None


def majority(evidence: Evidence, rules: GateSettings) -> GateTest:
    """A first model against the best constant answer to these very test images."""
    new, n = evidence.right, len(evidence.labels)
    counts = np.bincount(evidence.labels, minlength=len(evidence.classes))
    best = int(counts.argmax())
    p = _against_constant(new, evidence.labels == best, evidence.groups)
    passed = p <= 1 - rules.confidence
    name, share, accuracy = evidence.classes[best], float(counts[best] / n), float(new.mean())
    verb = "is better than" if passed else "is not measurably better than"
    return GateTest(
        name="better_than_majority",
        passed=passed,
        reason=f"This first model {verb} always answering {name!r}: {percent(accuracy)} against "
        f"{percent(share)} ({p_value(p)}, {n:,} test images).",
        figures={"accuracy": accuracy, "majority": share, "p": p, "images": n},
    )


def _against_constant(new: Bools, guess: Bools, groups: Ints | None) -> float:
    """One-sided p-value: is the model no more often right than the constant answer?"""
    gained, lost = int((new & ~guess).sum()), int((guess & ~new).sum())
    if gained + lost == 0:
        return 1.0
    # Exact where images are independent; the score statistic where groups bind them together.
    if groups is None:
        return float(stats.binomtest(gained, gained + lost, alternative="greater").pvalue)
    effective = effective_images(new.astype(np.int64) - guess, groups)
    return float(stats.norm.sf(Paired(gained, lost, len(new), effective).z(0.0)))


def few_images(evidence: Evidence, rules: GateSettings) -> GateTest:
    """Few test images: refused below the floor, else said."""
    n = len(evidence.right)
    passed = n >= rules.min_test_images
    effective = worth(evidence.right, evidence.groups)
    low, high = share_interval(float(evidence.right.mean()) * effective, effective, 0.95)
    span = f"the true accuracy may be anything from {percent(low, 0)} to {percent(high, 0)}"
    if not passed:
        reason = (
            f"There are {n:,} test images; gate.min_test_images asks for "
            f"{rules.min_test_images:,}: {span}."
        )
    elif n < FEW_IMAGES:
        reason = (
            f"Warning: there are only {n:,} test images, so {span}. gate.min_test_images refuses "
            "models that were tested on few."
        )
    else:
        reason = (
            f"There are {n:,} test images; gate.min_test_images asks for {rules.min_test_images:,}."
        )
    return GateTest(
        name="min_test_images",
        passed=passed,
        reason=reason,
        figures={"images": n, "floor": rules.min_test_images, "interval": [low, high]},
    )


def p_value(value: float) -> str:
    """For a sentence."""
    return "p < 0.001" if value < 0.001 else f"p = {value:.3f}"

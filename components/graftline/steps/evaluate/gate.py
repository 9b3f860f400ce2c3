"""The gate: may the challenger replace the champion?

It sees labels and nothing else: which test images each model gets right, on images that the
champion never trained on. Every test yields a sentence with its figures, and all must pass.
docs/gate.md explains the tests; benchmarks/gate.py measures how often they err.
"""

import math
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from graftline.records.verdict import GateTest
from graftline.reports.html import percent, points
from graftline.stats.paired_tests import (
    effective_images,
    mcnemar,
    resampled_differences,
    score_bound,
    score_statistic,
)
from graftline.steps.evaluate.config import GateSettings

Ints = NDArray[np.int64]

REPLICATES = 2000  # of the paired bootstrap
Bools = NDArray[np.bool_]


@dataclass(frozen=True, kw_only=True)
class Champion:
    """The champion's answers to the same test images.

    Attributes:
        version: Registered version, for the sentences.
        right: Whether it gave the right label, shape (n,).
        comparable: Images that count: known classes, not in its training. Shape (n,).
        same_snapshot: Whether it was trained on the challenger's snapshot.
        removed_classes: Classes that it knows and the challenger does not.
        new_classes: Classes that only the challenger knows.
    """

    version: str
    right: Bools
    comparable: Bools
    same_snapshot: bool = False
    removed_classes: tuple[str, ...] = ()
    new_classes: tuple[str, ...] = ()
    same_answers: bool = False


@dataclass(frozen=True, kw_only=True)
class Evidence:
    """What the gate decides by; arrays are over all test images.

    Attributes:
        labels: Class index, shape (n,).
        right: Whether the challenger gave the right label, shape (n,).
        classes: Class names.
        majority: The most frequent class of the training split.
        groups: Group number, shape (n,), or None where images stand alone.
        champion: None for a first model.
        ece: The challenger's calibration error after scaling; None where it was not measured.
        ece_noise: What a perfectly calibrated model would stay below on these images.
        slices: Guarded slices: name to the images in it.
    """

    labels: Ints
    right: Bools
    classes: tuple[str, ...]
    majority: int
    groups: Ints | None = None
    champion: Champion | None = None
    ece: float | None = None
    ece_noise: float = 0.0
    slices: dict[str, Bools] = field(default_factory=dict)


@dataclass(frozen=True)
class Paired:
    """Challenger against champion on a set of images.

    Attributes:
        gained: Images that only the challenger gets right.
        lost: Images that only the champion gets right.
        n: Images.
        effective: What they are worth, where groups make them depend on one another.
    """

    gained: int
    lost: int
    n: int
    effective: float

    @property
    def difference(self) -> float:
        """Accuracy of the challenger minus that of the champion."""
        return (self.gained - self.lost) / self.n if self.n else 0.0

    def bound(self, confidence: float, side: str) -> float:
        """One-sided score bound of the difference."""
        scale = self.effective / self.n if self.n else 0.0
        return score_bound(self.gained * scale, self.lost * scale, self.effective, confidence, side)

    def z(self, difference: float) -> float:
        """Score statistic against an assumed true difference."""
        scale = self.effective / self.n if self.n else 0.0
        if not self.n:
            return 0.0
        return score_statistic(self.gained * scale, self.lost * scale, self.effective, difference)


def decide(evidence: Evidence, rules: GateSettings, seed: int = 0) -> list[GateTest]:
    """All tests of the gate. The model is promoted if every one passed.

    Args:
        evidence: What was measured.
        rules: The limits.
        seed: For the bootstrap.
    """
    tests = [_floor(evidence, rules)]
    if evidence.ece is not None:
        tests.append(_calibration(evidence, rules))
    if evidence.slices and rules.min_slice_accuracy > 0:
        tests.append(_slice_floor(evidence, rules))
    champion = evidence.champion
    if champion is None:
        return [*tests, _majority(evidence, rules)]
    tests.append(_classes_kept(champion, rules))
    compared = champion.comparable
    if not compared.any():
        reason = (
            f"No test image is left to compare with the champion (version {champion.version}): "
            "it was trained on all of them, or knows none of their classes."
        )
        return [*tests, GateTest(name="not_worse", passed=False, reason=reason)]
    pair = paired(evidence, compared)
    bound, by_bootstrap = _lower_bound(evidence, pair, compared, rules, seed)
    tests.append(_not_worse(champion, pair, bound, by_bootstrap, rules))
    tests.append(_worth_it(champion, pair, bound, rules))
    tests.append(_class_recall(evidence, compared, rules))
    if evidence.slices:
        tests.append(_slice_drop(evidence, compared, rules))
    return tests


def paired(evidence: Evidence, images: Bools) -> Paired:
    """Counts over some images."""
    assert evidence.champion is not None
    new, old = evidence.right[images], evidence.champion.right[images]
    groups = None if evidence.groups is None else evidence.groups[images]
    differences = new.astype(np.int64) - old
    return Paired(
        gained=int((new & ~old).sum()),
        lost=int((old & ~new).sum()),
        n=len(new),
        effective=effective_images(differences, groups),
    )


def _floor(evidence: Evidence, rules: GateSettings) -> GateTest:
    accuracy, n = float(evidence.right.mean()), len(evidence.right)
    passed = accuracy >= rules.min_accuracy
    found = f"Test accuracy {percent(accuracy)} on {n:,} images"
    relation = "meets" if passed else "is below"
    reason = f"{found} {relation} the floor of {percent(rules.min_accuracy)}."
    if rules.min_accuracy == 0:
        reason = f"{found}; gate.min_accuracy sets no floor."
    return GateTest(
        name="min_accuracy",
        passed=passed,
        reason=reason,
        figures={"accuracy": accuracy, "floor": rules.min_accuracy, "images": n},
    )


def _calibration(evidence: Evidence, rules: GateSettings) -> GateTest:
    assert evidence.ece is not None
    # What chance alone would explain is taken off: a small test split is not held against a model.
    excess = max(0.0, evidence.ece - evidence.ece_noise)
    passed = excess <= rules.max_ece
    relation = "is within" if passed else "exceeds"
    return GateTest(
        name="calibration",
        passed=passed,
        reason=f"Calibration error {percent(evidence.ece)} {relation} the limit of "
        f"{percent(rules.max_ece)} beyond the {percent(evidence.ece_noise)} that chance explains "
        "on these images.",
        figures={"ece": evidence.ece, "noise": evidence.ece_noise, "limit": rules.max_ece},
    )


def _majority(evidence: Evidence, rules: GateSettings) -> GateTest:
    guess = evidence.labels == evidence.majority
    new, n = evidence.right, len(guess)
    effective = effective_images(new.astype(np.int64) - guess, evidence.groups)
    gained, lost = int((new & ~guess).sum()), int((guess & ~new).sum())
    pair = Paired(gained, lost, n, effective)
    # Exact where images are independent; the score statistic where groups bind them together.
    if evidence.groups is None:
        p = float(stats.binomtest(gained, gained + lost, alternative="greater").pvalue) if (
            gained + lost
        ) else 1.0  # fmt: skip
    else:
        p = float(stats.norm.sf(pair.z(0.0)))
    passed = p <= 1 - rules.confidence
    name, share = evidence.classes[evidence.majority], float(guess.mean())
    verb = "is better than" if passed else "is not measurably better than"
    return GateTest(
        name="better_than_majority",
        passed=passed,
        reason=f"This first model {verb} always answering {name!r}: "
        f"{percent(float(new.mean()))} against {percent(share)} ({_p(p)}, "
        f"{n:,} test images).",
        figures={"accuracy": float(new.mean()), "majority": share, "p": p, "images": n},
    )


def _classes_kept(champion: Champion, rules: GateSettings) -> GateTest:
    removed = champion.removed_classes
    passed = not removed or rules.allow_removed_classes
    if not removed:
        reason = "It knows every class that the champion knows"
        reason += f", and {_names(champion.new_classes)} besides." if champion.new_classes else "."
    else:
        reason = f"It no longer knows {_names(removed)}, which the champion knows"
        reason += (
            "; gate.allow_removed_classes allows that."
            if passed
            else ": if that is meant, set gate.allow_removed_classes."
        )
    return GateTest(
        name="classes_kept",
        passed=passed,
        reason=reason,
        figures={"removed": list(removed), "new": list(champion.new_classes)},
    )


def _lower_bound(
    evidence: Evidence, pair: Paired, compared: Bools, rules: GateSettings, seed: int
) -> tuple[float, float]:
    """The more careful of the score and the bootstrap bound, and the latter."""
    assert evidence.champion is not None
    differences = evidence.right[compared].astype(np.int64) - evidence.champion.right[compared]
    groups = None if evidence.groups is None else evidence.groups[compared]
    replicates = resampled_differences(
        differences,
        evidence.labels[compared],
        groups,
        replicates=REPLICATES,
        rng=np.random.default_rng(seed),
    )
    by_bootstrap = float(np.quantile(replicates, 1 - rules.confidence))
    return min(pair.bound(rules.confidence, "lower"), by_bootstrap), by_bootstrap


def _not_worse(
    champion: Champion, pair: Paired, bound: float, by_bootstrap: float, rules: GateSettings
) -> GateTest:
    passed = bound > -rules.margin
    old = float(champion.right[champion.comparable].mean())
    new = old + pair.difference
    reason = (
        f"Accuracy {percent(new)} against the champion's {percent(old)} (version "
        f"{champion.version}) on the same {pair.n:,} test images: {points(pair.difference)} "
        f"points, and with {percent(rules.confidence, 0)} confidence at least "
        f"{points(bound, 2)}"
    )
    if passed:
        reason += f", within the margin of {points(-rules.margin)}."
    elif pair.difference > -rules.margin:
        reason += (
            f": so few images cannot rule out a loss beyond the margin of {points(-rules.margin)}; "
            f"about {_needed(pair, rules):,} could."
        )
    else:
        reason += f", beyond the margin of {points(-rules.margin)}."
    return GateTest(
        name="not_worse",
        passed=passed,
        reason=reason,
        figures={
            "challenger": new,
            "champion": old,
            "difference": pair.difference,
            "lower_bound": bound,
            "bootstrap_bound": by_bootstrap,
            "margin": rules.margin,
            "confidence": rules.confidence,
            "only_challenger_right": pair.gained,
            "only_champion_right": pair.lost,
            "mcnemar_p": mcnemar(pair.gained, pair.lost),
            "images": pair.n,
            "effective_images": pair.effective,
        },
    )


def _worth_it(champion: Champion, pair: Paired, bound: float, rules: GateSettings) -> GateTest:
    """With ``min_gain`` a real gain of that size; without, something new: data, or a real gain."""
    better = bound > 0
    figures: dict[str, Any] = {
        "difference": pair.difference,
        "lower_bound": bound,
        "min_gain": rules.min_gain,
        "same_snapshot": champion.same_snapshot,
    }
    gain = points(pair.difference)
    p = f"exact McNemar {_p(mcnemar(pair.gained, pair.lost))}"
    if rules.min_gain > 0:
        passed = better and pair.difference >= rules.min_gain
        needed = points(rules.min_gain)
        if passed:
            reason = f"It gains {gain} points, of the {needed} that gate.min_gain asks for ({p})."
        elif pair.difference >= rules.min_gain:
            reason = f"A gain of {gain} points on {pair.n:,} images may be chance ({p})."
        else:
            reason = f"It gains {gain} points; gate.min_gain asks for {needed} ({p})."
        return GateTest(name="gain", passed=passed, reason=reason, figures=figures)
    if not champion.same_snapshot:
        reason = "It is newer: it was trained on another snapshot of the data than the champion."
        return GateTest(name="newer", passed=True, reason=reason, figures=figures)
    if better:
        reason = f"Trained on the same snapshot as the champion, it is better: {gain} points ({p})."
    elif champion.same_answers:
        reason = (
            "It is not better than the champion: both were trained on the same snapshot and give "
            f"the same label to all {pair.n:,} test images."
        )
    else:
        reason = (
            "It is not better than the champion: both were trained on the same snapshot, and "
            f"{gain} points on {pair.n:,} images may be chance ({p})."
        )
    return GateTest(name="newer", passed=better, reason=reason, figures=figures)


def _class_recall(evidence: Evidence, compared: Bools, rules: GateSettings) -> GateTest:
    masks = {
        name: compared & (evidence.labels == index) for index, name in enumerate(evidence.classes)
    }
    return _no_drop(
        "class_recall", "class", "recall", evidence, masks, rules.max_class_drop, rules.confidence
    )


def _slice_drop(evidence: Evidence, compared: Bools, rules: GateSettings) -> GateTest:
    masks = {name: compared & mask for name, mask in evidence.slices.items()}
    return _no_drop(
        "slices", "slice", "accuracy", evidence, masks, rules.max_slice_drop, rules.confidence
    )


def _no_drop(
    test: str,
    noun: str,
    measure: str,
    evidence: Evidence,
    masks: dict[str, Bools],
    limit: float,
    confidence: float,
) -> GateTest:
    """No part may have lost more than the limit beyond noise (Bonferroni over the parts)."""
    pairs = {name: paired(evidence, mask) for name, mask in masks.items() if mask.any()}
    if not pairs:
        reason = f"No {noun} has test images to compare on."
        return GateTest(name=test, passed=False, reason=reason)
    z = float(stats.norm.ppf(1 - (1 - confidence) / len(pairs)))
    failed = {name: pair for name, pair in pairs.items() if pair.z(-limit) < -z}
    worst = min(pairs, key=lambda name: pairs[name].difference)
    if failed:
        told = [
            f"{name!r} ({points(pair.difference)} points on {pair.n:,} images)"
            for name, pair in sorted(failed.items(), key=lambda item: item[1].difference)
        ]
        more = f" and {len(told) - 5:,} more" if len(told) > 5 else ""
        reason = (
            f"Beyond noise, {measure} falls by more than {points(limit).lstrip('+')} points for "
            f"{', '.join(told[:5])}{more}."
        )
    elif pairs[worst].difference < 0:
        reason = (
            f"No {noun} loses more than {points(limit).lstrip('+')} points of {measure} beyond "
            f"noise; the largest fall is {points(pairs[worst].difference)} points on the "
            f"{pairs[worst].n:,} images of {worst!r}."
        )
    else:
        reason = f"No {noun} loses {measure}."
    return GateTest(
        name=test,
        passed=not failed,
        reason=reason,
        figures={
            "limit": limit,
            "parts": len(pairs),
            "worst": worst,
            "worst_difference": pairs[worst].difference,
            "failed": {name: pair.difference for name, pair in list(failed.items())[:100]},
        },
    )


def _slice_floor(evidence: Evidence, rules: GateSettings) -> GateTest:
    accuracy = {name: float(evidence.right[mask].mean()) for name, mask in evidence.slices.items()}
    failed = {name: value for name, value in accuracy.items() if value < rules.min_slice_accuracy}
    floor = percent(rules.min_slice_accuracy)
    if failed:
        told = [f"{name!r} ({percent(value)})" for name, value in failed.items()]
        reason = f"Accuracy is below the floor of {floor} on {_listed(told)}."
    else:
        worst = min(accuracy, key=lambda name: accuracy[name])
        reason = (
            f"Accuracy on every guarded slice meets the floor of {floor}; the lowest is "
            f"{percent(accuracy[worst])} on {worst!r}."
        )
    return GateTest(
        name="slice_floor",
        passed=not failed,
        reason=reason,
        figures={"floor": rules.min_slice_accuracy, "failed": failed},
    )


def _needed(pair: Paired, rules: GateSettings) -> int:
    """Test images at which the same result would show that it is not worse."""
    z = float(stats.norm.ppf(rules.confidence))
    room = pair.difference + rules.margin
    discordant = max((pair.gained + pair.lost) / pair.n, rules.margin)
    needed = z * z * discordant / (room * room) * pair.n / pair.effective
    return max(pair.n + 1, int(float(f"{math.ceil(needed):.2g}")))


def _names(names: tuple[str, ...]) -> str:
    return _listed([repr(name) for name in names])


def _listed(words: list[str]) -> str:
    more = f" and {len(words) - 5:,} more" if len(words) > 5 else ""
    return ", ".join(words[:5]) + more


def _p(value: float) -> str:
    return "p < 0.001" if value < 0.001 else f"p = {value:.3f}"

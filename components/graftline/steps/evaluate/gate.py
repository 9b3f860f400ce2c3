"""The gate: may the challenger replace the champion?

It sees labels and nothing else: which test images each model gets right, on images that the
champion never trained on. Every test yields a sentence with its figures, and all must pass.
docs/gate.md explains the tests; benchmarks/gate.py measures how often they err.
"""

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from graftline.records.verdict import GateTest
from graftline.reports.html import percent, points
from graftline.stats.paired_tests import mcnemar, resampled_differences
from graftline.steps.evaluate.config import FEW_IMAGES, GateSettings
from graftline.steps.evaluate.evidence import Champion, Evidence, Paired, paired
from graftline.steps.evaluate.gate_tests import few_images, majority, p_value, tells_apart

__all__ = ["Champion", "Evidence", "Paired", "decide", "paired"]

Ints = NDArray[np.int64]

REPLICATES = 2000  # of the paired bootstrap
Bools = NDArray[np.bool_]


def decide(evidence: Evidence, rules: GateSettings, seed: int = 0) -> list[GateTest]:
    """All tests of the gate. The model is promoted if every one passed.

    Args:
        evidence: What was measured.
        rules: The limits.
        seed: For the bootstrap.
    """
    tests = [_floor(evidence, rules)]
    if rules.min_test_images > 0 or len(evidence.right) < FEW_IMAGES:
        tests.append(few_images(evidence, rules))
    tests += tells_apart(evidence)
    if evidence.ece is not None:
        tests.append(_calibration(evidence, rules))
    if evidence.slices and rules.min_slice_accuracy > 0:
        tests.append(_slice_floor(evidence, rules))
    champion = evidence.champion
    if champion is None:
        return [*tests, majority(evidence, rules)]
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
    error, noise = percent(evidence.ece), percent(evidence.ece_noise)
    limit = percent(rules.max_ece)
    if not passed:
        reason = (
            f"Calibration error {error} exceeds the limit of {limit} beyond the {noise} that "
            "chance explains on these images."
        )
    elif excess == 0:
        reason = f"Calibration error {error}: chance alone explains up to {noise} on these images."
    else:
        reason = (
            f"Calibration error {error}, {percent(excess)} above the {noise} that chance explains "
            f"on these images; gate.max_ece allows {limit} above it."
        )
    return GateTest(
        name="calibration",
        passed=passed,
        reason=reason,
        figures={"ece": evidence.ece, "noise": evidence.ece_noise, "limit": rules.max_ece},
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
    p = f"exact McNemar {p_value(mcnemar(pair.gained, pair.lost))}"
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
        listed = [
            f"{name!r} ({points(pair.difference)} points on {pair.n:,} images)"
            for name, pair in sorted(failed.items(), key=lambda item: item[1].difference)
        ]
        more = f" and {len(listed) - 5:,} more" if len(listed) > 5 else ""
        reason = (
            f"Beyond noise, {measure} falls by more than {points(limit).lstrip('+')} points for "
            f"{', '.join(listed[:5])}{more}."
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
        listed = [f"{name!r} ({percent(value)})" for name, value in failed.items()]
        reason = f"Accuracy is below the floor of {floor} on {_listed(listed)}."
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

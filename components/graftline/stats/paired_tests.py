"""Paired comparisons of two classifiers on the same images."""

import math

import numpy as np
from numpy.typing import NDArray
from scipy import optimize, special

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


def resampled_differences(
    differences: Ints,
    classes: Ints,
    groups: Ints | None,
    *,
    replicates: int,
    rng: np.random.Generator,
) -> Floats:
    """Bootstrap of the mean of paired differences, each -1, 0 or 1.

    The same distribution as :class:`Bootstrap` gives, far faster: units that contribute equally
    are interchangeable, so drawing units is drawing how many of each kind (multinomial).

    Returns:
        Shape (replicates,).
    """
    if groups is None:
        total, size, strata = differences, np.ones(len(differences), dtype=np.int64), classes
    else:
        _, first, unit_of = np.unique(groups, return_index=True, return_inverse=True)
        total = np.bincount(unit_of, weights=differences).astype(np.int64)
        size = np.bincount(unit_of)
        strata = classes[first]
    span = int(size.max()) + 1
    kind = (strata.astype(np.int64) * span + size) * (2 * span) + (total + span)
    kinds, counts = np.unique(kind, return_counts=True)
    kind_total = kinds % (2 * span) - span
    kind_size = kinds // (2 * span) % span
    kind_stratum = kinds // (2 * span * span)
    sums = np.zeros(replicates)
    images = np.zeros(replicates)
    for stratum in np.unique(kind_stratum):
        within = kind_stratum == stratum
        units = int(counts[within].sum())
        if within.sum() == 1:
            drawn = np.full((replicates, 1), units)
        else:
            drawn = rng.multinomial(units, counts[within] / units, size=replicates)
        sums += drawn @ kind_total[within]
        images += drawn @ kind_size[within]
    return sums / images


def score_statistic(gained: float, lost: float, n: float, difference: float) -> float:
    """Tango's score statistic for paired shares; standard normal if ``difference`` is the truth.

    At 0 it is McNemar's statistic. It holds its level for small n and where the two models hardly
    ever differ, where a bootstrap sees no variation at all.

    Tango, T. (1998): Equivalence test and confidence interval for the difference in proportions
    for the paired-sample design. Statistics in Medicine 17, 891-908.

    Args:
        gained: Images that only the first model gets right.
        lost: Images that only the second model gets right.
        n: Images, right and wrong.
        difference: Assumed difference of the two accuracies, between -1 and 1.
    """
    a = 2 * n
    b = -gained - lost + (2 * n - gained + lost) * difference
    c = -lost * difference * (1 - difference)
    # The share of `lost` that makes the observed counts most likely under the difference.
    share = (math.sqrt(max(b * b - 4 * a * c, 0.0)) - b) / (2 * a)
    variance = n * (2 * share + difference * (1 - difference))
    numerator = gained - lost - n * difference
    if abs(numerator) < 1e-12:
        return 0.0
    return numerator / math.sqrt(variance) if variance > 0 else math.copysign(math.inf, numerator)


def score_bound(gained: float, lost: float, n: float, confidence: float, side: str) -> float:
    """One-sided bound of the difference of two paired accuracies, by the score statistic.

    Args:
        gained: Images that only the first model gets right.
        lost: Images that only the second model gets right.
        n: Images; may be an effective number, then the counts are scaled alike.
        confidence: One-sided, such as 0.95.
        side: ``lower`` or ``upper``.
    """
    if n <= 0:
        return -1.0 if side == "lower" else 1.0
    if side == "upper":
        return -score_bound(lost, gained, n, confidence, "lower")
    z = float(special.ndtri(confidence))

    def excess(delta: float) -> float:
        return score_statistic(gained, lost, n, delta) - z

    low, high = -1 + 1e-9, (gained - lost) / n
    if excess(low) <= 0:
        return -1.0
    return float(optimize.brentq(excess, low, max(high, low), xtol=1e-9))


def effective_images(differences: Ints, groups: Ints | None) -> float:
    """How many independent images the grouped ones are worth.

    n divided by the design effect: the variance of the mean difference over groups, divided by
    what it would be if images were independent. Without any difference to measure it by, each
    group counts as one (Korn and Graubard, 1998, treat exact intervals of surveys in this way).
    """
    n = len(differences)
    if groups is None or n == 0:
        return float(n)
    _, unit_of = np.unique(groups, return_inverse=True)
    units = int(unit_of.max()) + 1
    centred = differences - differences.mean()
    independent = float((centred**2).sum())
    if units < 2 or independent == 0:
        return float(units)
    totals = np.bincount(unit_of, weights=centred)
    clustered = float((totals**2).sum()) * units / (units - 1)
    return n / max(1.0, clustered / independent)


def mcnemar(gained: int, lost: int) -> float:
    """Two-sided p-value of the exact McNemar test: are both models equally often right?"""
    return min(1.0, 2 * float(special.bdtr(min(gained, lost), gained + lost, 0.5)))

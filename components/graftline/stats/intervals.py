"""Intervals: exact ones for shares and their differences, and a bootstrap over groups for the rest.

A bootstrap has no idea of what few images have not shown: of shares it is used nowhere but in the
gate, beside the score bound. What is resampled is the group, where images have one (one patient,
one video, near-duplicates), since images of one group are right or wrong together; else the image.
Groups are drawn within the strata that the caller names, such as classes, so that no replicate
loses a rare one.
"""

import math
from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import sparse, special, stats

from graftline.stats.paired_tests import score_bound

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

_CHUNK = 2_000_000  # weights held at once: 16 MB
_DRAWS = 400_000_000  # draws of a whole bootstrap; beyond it there are fewer replicates
_FEWEST = 200
_PRIOR_EVENTS = 3.0  # that images of a group go together, in rare answers


class Bootstrap:
    """One set of resamples, the same for each statistic: differences are therefore paired.

    Args:
        classes: Class of each image, shape (n,); the strata. Drawing within classes of one or two
            images hardly varies: give zeros to draw from all images.
        groups: Group number of each image, shape (n,), or None where images stand alone.
        replicates: How many resamples.
        seed: Equal seeds give equal resamples.
    """

    def __init__(
        self, classes: Ints, groups: Ints | None = None, *, replicates: int = 2000, seed: int = 0
    ) -> None:
        n = len(classes)
        self.images = n
        self.groups = groups
        if groups is None:
            unit_of, first = np.arange(n), np.arange(n)
        else:
            _, first, unit_of = np.unique(groups, return_index=True, return_inverse=True)
        self.units = len(first)
        self.replicates = max(_FEWEST, min(replicates, _DRAWS // max(1, self.units)))
        self._seed = seed
        # A group's class is that of its first image; groups of mixed classes are rare.
        strata = np.asarray(classes)[first]
        order = np.argsort(strata, kind="stable")
        self._sizes = np.unique(strata, return_counts=True)[1]
        # Row u of this matrix adds up the images of unit u, units sorted by stratum.
        row_of = np.empty(self.units, dtype=np.int64)
        row_of[order] = np.arange(self.units)
        ones = np.ones(n)
        self._totals = sparse.csr_array((ones, (row_of[unit_of], np.arange(n))), (self.units, n))

    def sums(self, values: Any) -> Floats:
        """Sums over each resample.

        Args:
            values: Shape (n, m), dense or sparse: m quantities of each image.

        Returns:
            Shape (replicates, m).
        """
        columns = values if sparse.issparse(values) else np.asarray(values, dtype=np.float64)
        totals = self._totals @ columns
        rows = [np.asarray(weights @ totals) for weights in self._weights()]
        return np.concatenate(rows)

    def _weights(self) -> Iterator[Floats]:
        """How often each unit is drawn, shape (some replicates, units), in pieces."""
        rng = np.random.default_rng(self._seed)
        step = max(1, _CHUNK // max(1, self.units))
        for start in range(0, self.replicates, step):
            count = min(step, self.replicates - start)
            pieces = []
            for size in self._sizes:
                drawn = rng.integers(0, size, (count, size))
                drawn += size * np.arange(count)[:, None]
                pieces.append(np.bincount(drawn.ravel(), minlength=count * size))
                pieces[-1] = pieces[-1].reshape(count, size)
            yield np.concatenate(pieces, axis=1).astype(np.float64)


def percentile_interval(replicates: Floats, confidence: float) -> tuple[float, float]:
    """The two-sided percentile interval of bootstrap replicates, NaN replicates left out."""
    tail = (1 - confidence) / 2
    low, high = np.nanquantile(replicates, [tail, 1 - tail])
    return float(low), float(high)


def share_interval(hits: float, n: float, confidence: float) -> tuple[float, float]:
    """Clopper and Pearson's exact interval of a share; (0, 1) without observations."""
    if n <= 0:
        return 0.0, 1.0
    tail = (1 - confidence) / 2
    low = float(stats.beta.ppf(tail, hits, n - hits + 1)) if hits > 0 else 0.0
    high = float(stats.beta.ppf(1 - tail, hits + 1, n - hits)) if hits < n else 1.0
    return low, high


def difference_interval(
    gained: float, lost: float, n: float, confidence: float
) -> tuple[float, float]:
    """Two-sided interval of the difference of two paired accuracies.

    Tango's score interval. Where only one model ever gains, the difference is a share of its own,
    of which the score interval covers too little near 0 and 1 (it is Wilson's there): the exact
    interval of that share is joined to it.

    Args:
        gained: Images that only the first model gets right.
        lost: Images that only the second model gets right.
        n: Images; may be an effective number, then the counts are scaled alike.
        confidence: Two-sided, such as 0.95.
    """
    one_sided = (1 + confidence) / 2
    low = score_bound(gained, lost, n, one_sided, "lower")
    high = score_bound(gained, lost, n, one_sided, "upper")
    if lost == 0:
        exact = share_interval(gained, n, confidence)
        low, high = min(low, exact[0]), max(high, exact[1])
    if gained == 0:
        exact = share_interval(lost, n, confidence)
        low, high = min(low, -exact[1]), max(high, -exact[0])
    return low, high


def correlation(residuals: Floats, values: Any, groups: Ints) -> float:
    """How far the images of a group go together, 0 to 1 (intraclass correlation, over all pairs).

    The rarer answer is what tells: with a handful of it the estimate is drawn to 1, where a group
    counts as one image; that is on the safe side.

    Args:
        residuals: Values less their mean, shape (n,).
        values: What each image scores, such as 0 or 1, shape (n,).
        groups: Group number of each image, shape (n,).
    """
    _, unit_of = np.unique(groups, return_inverse=True)
    sizes = np.bincount(unit_of)
    pairs = float((sizes * (sizes - 1.0)).sum())
    if pairs == 0:
        return 0.0
    square = float((residuals**2).sum())
    _, times = np.unique(np.asarray(values), return_counts=True)
    rare = float(len(residuals) - times.max())
    found = 1.0
    if rare > 0 and square > 0:
        totals = np.bincount(unit_of, weights=residuals)
        found = (float((totals**2).sum()) - square) / pairs / (square / len(residuals))
    return float(np.clip((rare * found + _PRIOR_EVENTS) / (rare + _PRIOR_EVENTS), 0.0, 1.0))


def worth(values: Any, groups: Ints | None, confidence: float = 0.95) -> float:
    """How many independent images grouped ones are worth to an interval of their mean.

    n divided by Kish's design effect for unequal groups, and made smaller by what a variance
    estimated from few groups is uncertain (Korn and Graubard, 1998, Confidence intervals for
    proportions with small expected number of positive counts estimated from survey data, Survey
    Methodology 24).

    Args:
        values: What each image scores, shape (n,).
        groups: Group number of each, or None.
        confidence: Two-sided, of the interval.
    """
    n = len(values)
    if groups is None or n == 0:
        return float(n)
    scores = np.asarray(values, dtype=np.float64)
    together = correlation(scores - scores.mean(), scores, groups)
    sizes = np.unique(groups, return_counts=True)[1].astype(np.float64)
    effective = n / (1 + together * (float((sizes**2).sum()) / n - 1))
    if len(sizes) < 2:
        return effective
    tail = (1 + confidence) / 2
    ratio = float(stats.t.ppf(tail, n - 1) / stats.t.ppf(tail, len(sizes) - 1))
    return effective * min(1.0, ratio) ** 2


def expanded_interval(replicates: Floats, units: int, confidence: float) -> tuple[float, float]:
    """The percentile interval, as wide as Student's t would make it for so few units.

    Hesterberg, T. (2015): What teachers should know about the bootstrap. The American Statistician
    69, 371-386, section 4.1.

    Args:
        replicates: Bootstrap replicates; NaN ones are left out.
        units: Images, or groups, that were resampled.
        confidence: Two-sided, such as 0.95.
    """
    if units < 2:
        return percentile_interval(replicates, confidence)  # nothing is known of the spread
    t = float(stats.t.ppf((1 - confidence) / 2, units - 1))
    tail = float(special.ndtr(t * math.sqrt(units / (units - 1))))
    return percentile_interval(replicates, 1 - 2 * tail)


def wilson(correct: float, count: float, z: float = 1.959964) -> tuple[float, float]:
    """Wilson's 95% interval of a share (Wilson 1927), such as an accuracy.

    Args:
        correct: The share itself, 0 to 1.
        count: Number of independent units behind it.
        z: Quantile of the normal distribution.
    """
    if count <= 0:
        return 0.0, 1.0
    centre = (correct + z**2 / (2 * count)) / (1 + z**2 / count)
    half = z * np.sqrt(correct * (1 - correct) / count + z**2 / (4 * count**2)) / (1 + z**2 / count)
    return max(0.0, float(centre - half)), min(1.0, float(centre + half))

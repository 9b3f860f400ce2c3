"""Intervals: a paired, stratified bootstrap over groups, and exact ones for single shares.

What is resampled is the group, where images have one (one patient, one video, near-duplicates),
since images of one group are right or wrong together; else the image. Groups are drawn within
their class, so that no replicate loses a rare class.
"""

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import sparse, stats

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

_CHUNK = 2_000_000  # weights held at once: 16 MB
_DRAWS = 400_000_000  # draws of a whole bootstrap; beyond it there are fewer replicates
_FEWEST = 200


class Bootstrap:
    """One set of resamples, the same for each statistic: differences are therefore paired.

    Args:
        classes: Class of each image, shape (n,); the strata.
        groups: Group number of each image, shape (n,), or None where images stand alone.
        replicates: How many resamples.
        seed: Equal seeds give equal resamples.
    """

    def __init__(
        self, classes: Ints, groups: Ints | None = None, *, replicates: int = 2000, seed: int = 0
    ) -> None:
        n = len(classes)
        self.images = n
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
        place = np.empty(self.units, dtype=np.int64)
        place[order] = np.arange(self.units)
        ones = np.ones(n)
        self._totals = sparse.csr_array((ones, (place[unit_of], np.arange(n))), (self.units, n))

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

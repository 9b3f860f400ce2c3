"""Whether new images look like those that the champion learned from: a two-sample test.

Both samples are seen through the champion's own network. Their features are turned onto the
principal components of the two together (so that neither is favoured), each component is compared
by the Kolmogorov-Smirnov test, and the p-values are corrected for their number by the procedure of
Benjamini and Hochberg (1995, J. R. Statist. Soc. B 57, 289-300), which keeps the false discovery
rate. Samples are of bounded size: with enough images, any difference becomes significant.
"""

import dataclasses
from typing import Any

import numpy as np
import numpy.typing as npt

SAMPLE = 400  # images on either side
COMPONENTS = 32
FEWEST = 20  # images, below which the test says nothing
LEAST_SHARE = 1e-4  # of the variance; a component with less is rounding error

Matrix = npt.NDArray[np.float32]


@dataclasses.dataclass(frozen=True)
class Drift:
    """What the test found.

    Attributes:
        level: False discovery rate at which it was asked.
        p_values: For each component, corrected.
        statistics: For each component, the largest distance of the two distributions, 0 to 1.
        explained: For each component, its share of the variance.
        reference: Images of the champion's data.
        new: New images.
    """

    level: float
    p_values: tuple[float, ...]
    statistics: tuple[float, ...]
    explained: tuple[float, ...]
    reference: int
    new: int

    @property
    def found(self) -> bool:
        """Whether any component differs."""
        return min(self.p_values) <= self.level

    @property
    def differing(self) -> int:
        """How many components differ."""
        return sum(p <= self.level for p in self.p_values)

    @property
    def share(self) -> float:
        """The differing components' share of the variance of all that were compared."""
        total = sum(self.explained)
        found = (e for e, p in zip(self.explained, self.p_values, strict=True) if p <= self.level)
        return sum(found) / total if total else 0.0

    def sentence(self) -> str:
        """What was found, with its figures."""
        compared = f"{self.new} new images against {self.reference} of the champion's"
        if not self.found:
            return (
                f"The new images look like the champion's: no feature component of "
                f"{len(self.p_values)} differs ({compared}; smallest corrected p-value "
                f"{min(self.p_values):.2g}, level {self.level:g})."
            )
        return (
            f"The new images differ from the champion's: {self.differing} of {len(self.p_values)} "
            f"feature components, with {self.share:.0%} of the variance ({compared}; smallest "
            f"corrected p-value {min(self.p_values):.2g}, level {self.level:g}; largest distance "
            f"{max(self.statistics):.2f} of 1)."
        )

    def as_dict(self) -> dict[str, Any]:
        """Plain values, for a record."""
        return {
            **dataclasses.asdict(self),
            "found": self.found,
            "differing": self.differing,
            "share": self.share,
        }


def compare_features(reference: Matrix, new: Matrix, level: float, *, seed: int = 0) -> Drift:
    """Test whether two sets of features come from one distribution.

    Args:
        reference: (N, D) features of the champion's images.
        new: (M, D) features of new images.
        level: False discovery rate.
        seed: Of the search for the principal components.
    """
    from scipy.stats import false_discovery_control, ks_2samp
    from sklearn.decomposition import PCA

    both = np.concatenate([reference, new]).astype(np.float64)
    count = min(COMPONENTS, both.shape[1], len(both) - 1)
    varying = both[:, both.std(axis=0) > 0]
    if varying.shape[1] == 0:  # every image has the same features: nothing to tell apart
        return Drift(level, (1.0,), (0.0,), (0.0,), len(reference), len(new))
    model = PCA(
        n_components=min(count, varying.shape[1]), svd_solver="randomized", random_state=seed
    )
    turned = model.fit_transform(varying)
    shares = model.explained_variance_ratio_
    turned, shares = turned[:, shares >= LEAST_SHARE], shares[shares >= LEAST_SHARE]
    tests = [
        ks_2samp(turned[: len(reference), i], turned[len(reference) :, i])
        for i in range(turned.shape[1])
    ]
    corrected = false_discovery_control([test.pvalue for test in tests], method="bh")
    return Drift(
        level,
        tuple(float(p) for p in corrected),
        tuple(float(test.statistic) for test in tests),
        tuple(float(share) for share in shares),
        len(reference),
        len(new),
    )

"""Linear regression over measurements of several groups, for a group that was not measured.

What a group has in common beyond its figures cannot be known of a new one: a random effect. How
large it is, how far measurements of one group scatter, and how much the figures say is estimated
from the same data; where few groups leave that open, every answer counts by how likely it is. So
intervals for a new group are wide where little is known (Gelman & Hill 2007, chapters 11 to 13).
"""

from dataclasses import dataclass
from itertools import product

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Spreads:
    """Deviations, before anything is measured.

    Attributes:
        level: Of the constant.
        weight: Of each figure's weight.
        between: Of a group's own effect, in units of each measurement's scale.
        within: Of one measurement about its group, in the same units.
    """

    level: float
    weight: float
    between: float
    within: float


@dataclass(frozen=True)
class Regression:
    """What is known of a new group.

    Attributes:
        weights: Of the constant and each figure, shape (1 + F,).
        covariance: Of these, shape (1 + F, 1 + F).
        own: Deviation of a measurement of a new group about the line, in units of its scale.
    """

    weights: Floats
    covariance: Floats
    own: float

    def predict(self, figures: Floats, scale: float) -> tuple[float, float]:
        """Mean and deviation of a measurement of a new group, without chance."""
        x = np.append(1.0, figures)
        variance = float(x @ self.covariance @ x) + (self.own * scale) ** 2
        return float(x @ self.weights), variance**0.5


def grid(
    level: float,
    weights: tuple[float, ...],
    betweens: tuple[float, ...],
    withins: tuple[float, ...],
) -> list[Spreads]:
    """Every combination."""
    return [Spreads(level, *rest) for rest in product(weights, betweens, withins)]


def fit(
    figures: Floats,
    measured: Floats,
    groups: NDArray[np.str_],
    scale: Floats,
    chance: Floats,
    spreads: list[Spreads],
) -> Regression:
    """Average the regressions for all spreads, each counting by how likely it makes the data.

    Args:
        figures: Standardised, shape (N, F).
        measured: Shape (N,).
        groups: Of each measurement.
        scale: What both deviations of a measurement are proportional to, shape (N,).
        chance: Variance of each measurement by chance, shape (N,).
        spreads: All equally likely beforehand.
    """
    x = np.column_stack([np.ones(len(measured)), figures])
    together = (groups[:, None] == groups[None, :]) * np.outer(scale, scale)
    fits = [_given(one, x, measured, together, scale, chance) for one in spreads]
    evidence = np.array([found[0] for found in fits])
    share = np.exp(evidence - evidence.max())
    share /= share.sum()
    means = np.array([mean for _, mean, _ in fits])
    weights = share @ means
    inner = np.tensordot(share, np.array([within for _, _, within in fits]), axes=1)
    outer = (means - weights).T @ ((means - weights) * share[:, None])
    own = float(share @ [one.between**2 + one.within**2 for one in spreads])
    return Regression(weights, inner + outer, own**0.5)


def _given(
    spread: Spreads,
    x: Floats,
    measured: Floats,
    together: Floats,
    scale: Floats,
    chance: Floats,
) -> tuple[float, Floats, Floats]:
    """Log-likelihood, and mean and covariance of the weights, for these deviations."""
    prior = np.diag([spread.level**2] + [spread.weight**2] * (x.shape[1] - 1))
    noise = spread.between**2 * together + np.diag((spread.within * scale) ** 2 + chance)
    lower = np.linalg.cholesky(x @ prior @ x.T + noise)
    z, a = np.linalg.solve(lower, measured), np.linalg.solve(lower, x @ prior)
    log_likelihood = -0.5 * float(z @ z) - float(np.log(np.diag(lower)).sum())
    return log_likelihood, a.T @ z, prior - a.T @ a

"""Random effects: scikit-learn's ridge on group columns fits the same, and intervals hold."""

from statistics import NormalDist

import numpy as np
import pytest
from sklearn.linear_model import Ridge

from graftline.stats.random_effects import Regression, Spreads, fit, grid


def drawn(random: np.random.Generator, sets: int, between: float, within: float) -> Regression:
    """Fitted on three measurements of each of some sets, whose figures say nothing."""
    x, scale = random.normal(size=(3 * sets, 2)), random.uniform(0.5, 1.5, 3 * sets)
    groups = np.repeat([f"set{i}" for i in range(sets)], 3)
    effects = np.repeat(random.normal(0, between, sets), 3) + random.normal(0, within, 3 * sets)
    spreads = grid(0.2, (0.03, 0.1), (0.0, 0.1, 0.2, 0.4), (0.05, 0.1, 0.2, 0.4))
    return fit(x, effects * scale, groups, scale, np.full(3 * sets, 1e-4), spreads)


def test_a_random_effect_is_a_ridge_on_a_column_for_each_group() -> None:
    random = np.random.default_rng(0)
    groups = np.array([f"set{i}" for i in (0, 0, 1, 1, 1, 2, 3, 3, 4, 5)])
    x, y = random.normal(size=(10, 2)), random.normal(0, 0.2, 10)
    scale, chance = random.uniform(0.5, 2, 10), random.uniform(0.01, 0.05, 10)
    spread = Spreads(level=0.2, weight=0.1, between=0.3, within=0.15)
    columns = (groups[:, None] == np.unique(groups)) * scale[:, None]
    deviations = np.array([0.2, 0.1, 0.1] + [0.3] * columns.shape[1])
    whole = np.column_stack([np.ones(10), x, columns]) * deviations
    exact = 1 / ((0.15 * scale) ** 2 + chance)
    reference = Ridge(alpha=1.0, fit_intercept=False).fit(whole, y, sample_weight=exact)
    found = fit(x, y, groups, scale, chance, [spread])
    assert found.weights == pytest.approx(reference.coef_[:3] * deviations[:3], abs=1e-9)
    # Their covariance is the inverse of what the ridge solves.
    inverse = np.linalg.inv(whole.T @ (whole * exact[:, None]) + np.eye(len(deviations)))
    covariance = (inverse * np.outer(deviations, deviations))[:3, :3]
    assert found.covariance == pytest.approx(covariance, abs=1e-9)
    mean, deviation = found.predict(np.array([0.5, -1.0]), 2.0)
    at = np.array([1, 0.5, -1.0])
    assert mean == pytest.approx(at @ found.weights)
    assert deviation**2 == pytest.approx(at @ covariance @ at + 4 * (0.3**2 + 0.15**2))


def test_of_few_sets_that_differ_the_interval_holds_for_another_one() -> None:
    """Six sets of three sizes each; the seventh's effect is drawn as theirs were."""
    random, inside = np.random.default_rng(1), []
    z = NormalDist().inv_cdf(0.8)
    for _ in range(30):
        between = random.uniform(0.05, 0.4)
        mean, deviation = drawn(random, 6, between, 0.1).predict(random.normal(size=2), 1.0)
        new = random.normal(0, np.hypot(between, 0.1), 20)
        inside.append(np.mean(np.abs(new - mean) < z * deviation))
    assert 0.53 < np.mean(inside) < 0.72


def test_measurements_of_one_set_count_as_little_as_they_say_of_others() -> None:
    """A hundred measurements of one set do not outweigh five sets that say otherwise."""
    groups = np.array(["odd"] * 100 + [f"set{i}" for i in range(5)])
    y = np.where(groups == "odd", 0.5, 0.0)
    spreads = grid(0.2, (0.03,), (0.0, 0.1, 0.2, 0.4), (0.05, 0.1, 0.2))
    found = fit(np.zeros((105, 1)), y, groups, np.ones(105), np.full(105, 1e-3), spreads)
    assert found.weights[0] < 0.2 < found.own

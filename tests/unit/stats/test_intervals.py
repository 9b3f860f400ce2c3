"""The statistics against scipy, against brute force, and against simulation."""

import math

import numpy as np
import pytest
from scipy import optimize, stats

from graftline.stats.intervals import Bootstrap, percentile_interval, share_interval
from graftline.stats.paired_tests import (
    effective_images,
    mcnemar,
    resampled_differences,
    score_bound,
    score_statistic,
)


@pytest.mark.parametrize(("hits", "n"), [(0, 10), (10, 10), (3, 10), (950, 1000)])
def test_share_interval_is_scipys_exact_one(hits: int, n: int) -> None:
    exact = stats.binomtest(hits, n).proportion_ci(0.9, "exact")
    assert share_interval(hits, n, 0.9) == pytest.approx((exact.low, exact.high))


def test_share_interval_without_observations() -> None:
    assert share_interval(0, 0, 0.95) == (0.0, 1.0)


@pytest.mark.parametrize(("gained", "lost"), [(10, 2), (2, 10), (5, 5), (0, 6), (0, 0), (40, 21)])
def test_mcnemar_is_the_sum_over_the_tail(gained: int, lost: int) -> None:
    n, few = gained + lost, min(gained, lost)
    tail = sum(math.comb(n, k) for k in range(few + 1)) / 2**n
    assert mcnemar(gained, lost) == pytest.approx(min(1.0, 2 * tail))


def brute_score(gained: int, lost: int, n: int, delta: float) -> float:
    """The score statistic with the constrained likelihood maximised by search."""

    def loss(share: float) -> float:
        cells = [(gained, share + delta), (lost, share), (n - gained - lost, 1 - 2 * share - delta)]
        return -sum(count * math.log(p) for count, p in cells if count)

    low, high = max(0.0, -delta) + 1e-12, (1 - delta) / 2 - 1e-12
    share = optimize.minimize_scalar(
        loss, bounds=(low, high), method="bounded", options={"xatol": 1e-12}
    ).x
    variance = 2 * share + delta - delta**2
    return float((gained - lost - n * delta) / math.sqrt(n * variance))


@pytest.mark.parametrize(("gained", "lost", "n"), [(12, 5, 100), (5, 12, 100), (30, 30, 2000)])
@pytest.mark.parametrize("delta", [-0.05, -0.01, 0.02, 0.1])
def test_score_statistic_is_tangos(gained: int, lost: int, n: int, delta: float) -> None:
    expected = brute_score(gained, lost, n, delta)
    assert float(score_statistic(gained, lost, n, delta)) == pytest.approx(expected, rel=1e-4)


def test_score_statistic_at_zero_is_mcnemars() -> None:
    assert float(score_statistic(12, 5, 100, 0.0)) == pytest.approx(7 / math.sqrt(17))
    assert float(score_statistic(0, 0, 100, 0.0)) == 0.0


def test_score_bound_is_where_the_statistic_reaches_the_quantile() -> None:
    z = stats.norm.ppf(0.95)
    low = score_bound(12, 5, 100, 0.95, "lower")
    high = score_bound(12, 5, 100, 0.95, "upper")
    assert low < 0.07 < high
    assert float(score_statistic(12, 5, 100, low)) == pytest.approx(z, abs=1e-5)
    assert float(score_statistic(12, 5, 100, high)) == pytest.approx(-z, abs=1e-5)
    # Equal answers to 268 images just rule out a loss of one point, to 267 not quite.
    assert score_bound(0, 0, 268, 0.95, "lower") == pytest.approx(-(z**2) / (268 + z**2), abs=1e-6)
    assert score_bound(0, 0, 0, 0.95, "lower") == -1.0
    assert score_bound(0, 0, 0, 0.95, "upper") == 1.0


def test_bootstrap_draws_within_classes_and_whole_groups() -> None:
    labels = np.repeat([0, 1, 2], [30, 10, 4])
    groups = np.arange(44) // 2
    times = Bootstrap(labels, groups, replicates=300, seed=1).sums(np.eye(44))
    assert times.shape == (300, 44)
    assert (times[:, ::2] == times[:, 1::2]).all()
    for label, count in ((0, 30), (1, 10), (2, 4)):
        assert (times[:, labels == label].sum(axis=1) == count).all()
    assert times.std() > 0.5
    assert times.mean() == pytest.approx(1.0)


def test_equal_seeds_pair_the_resamples_of_two_models() -> None:
    labels = np.arange(60) % 3
    values = np.arange(60.0)[:, None]
    first, second = Bootstrap(labels, seed=5), Bootstrap(labels, seed=5)
    assert (first.sums(values) == second.sums(values)).all()
    assert (first.sums(values) != Bootstrap(labels, seed=6).sums(values)).any()


def test_groups_widen_the_interval_as_far_as_their_images_go_together() -> None:
    rng = np.random.default_rng(0)
    right = np.repeat(rng.random(100) < 0.8, 5).astype(float)
    labels, groups = np.zeros(500, dtype=int), np.arange(500) // 5
    widths = []
    for of in (None, groups):
        shares = Bootstrap(labels, of, replicates=2000).sums(right[:, None])[:, 0] / 500
        low, high = percentile_interval(shares, 0.95)
        widths.append(high - low)
    assert widths[1] / widths[0] == pytest.approx(math.sqrt(5), rel=0.1)


def test_intervals_cover_the_truth_as_often_as_they_say() -> None:
    rng = np.random.default_rng(0)
    covered = 0
    for _ in range(400):
        right = rng.random((150, 1)) < 0.85
        labels = np.arange(150) % 3
        shares = Bootstrap(labels, replicates=200, seed=1).sums(right)[:, 0] / 150
        low, high = percentile_interval(shares, 0.9)
        covered += low <= 0.85 <= high
    assert 0.84 <= covered / 400 <= 0.95


@pytest.mark.parametrize("grouped", [False, True])
def test_resampled_differences_have_the_distribution_of_the_bootstrap(grouped: bool) -> None:
    rng = np.random.default_rng(2)
    labels = np.repeat(rng.integers(0, 3, 100), 4)
    groups = np.arange(400) // 4 if grouped else None
    per_group = rng.choice([-1, 0, 1], 100, p=[0.1, 0.7, 0.2])
    differences = np.repeat(per_group, 4) * (rng.random(400) < 0.8)
    fast = resampled_differences(differences, labels, groups, replicates=8000, rng=rng)
    slow = Bootstrap(labels, groups, replicates=8000).sums(differences[:, None])[:, 0] / 400
    assert fast.mean() == pytest.approx(slow.mean(), abs=2e-3)
    assert fast.std() == pytest.approx(slow.std(), rel=0.05)
    for tail in (0.05, 0.5, 0.95):
        assert np.quantile(fast, tail) == pytest.approx(np.quantile(slow, tail), abs=5e-3)


def test_effective_images() -> None:
    rng = np.random.default_rng(0)
    alone = rng.choice([-1, 0, 1], 5000)
    assert effective_images(alone, None) == 5000
    copies = np.repeat(alone[:1000], 5)
    assert effective_images(copies, np.arange(5000) // 5) == pytest.approx(1000, rel=0.01)
    assert effective_images(alone, np.arange(5000) // 5) == pytest.approx(5000, rel=0.1)
    assert effective_images(np.zeros(50, dtype=int), np.arange(50) // 5) == 10
    assert effective_images(np.zeros(0, dtype=int), None) == 0

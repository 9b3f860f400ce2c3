"""The expected gain after validation, and which network it makes us use: against brute force."""

from itertools import product

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import stats

from graftline.stats.intervals import difference_interval
from graftline.stats.posterior_gain import (
    OPTIMISM,
    Expected,
    Validation,
    noise_of,
    posterior,
)

Floats = NDArray[np.float64]


def integrated(prior: Expected, won: int, lost: int, images: int) -> float:
    """The posterior mean on a grid of gains and of shares that tell the models apart.

    The likelihood is the trinomial one of what was counted, whose lead is too high by the
    optimism; of the share nothing is known before.
    """
    shift = OPTIMISM * noise_of(won, lost, images)
    gains = np.linspace(-0.8, 0.8, 1601)[:, None]
    apart = np.linspace(0.001, 0.999, 400)[None, :]
    lead = gains + shift
    better, worse = (apart + lead) / 2, (apart - lead) / 2
    with np.errstate(divide="ignore", invalid="ignore"):
        logs = stats.norm.logpdf(gains, prior.mean, prior.deviation)
        logs = logs + won * np.log(better) + lost * np.log(worse)
        logs = logs + (images - won - lost) * np.log(1 - apart)
        logs = np.where((better > 0) & (worse > 0), logs, -np.inf)
    weights = np.exp(logs - logs.max())
    return float((gains * weights).sum() / weights.sum())


@pytest.mark.parametrize(
    ("prior", "won", "lost", "images"),
    [
        (Expected(mean, deviation), *counts)
        for (mean, deviation), counts in product(
            [(0.0, 0.05), (0.03, 0.02), (-0.02, 0.08)],
            [(7, 2, 36), (12, 6, 64), (5, 9, 64), (12, 5, 261), (60, 30, 1000)],
        )
    ],
)
def test_the_posterior_is_that_of_a_numerical_integration(
    prior: Expected, won: int, lost: int, images: int
) -> None:
    found = posterior(prior, won, lost, images)
    exact = integrated(prior, won, lost, images)
    # A quarter of what the data leaves open: the counts are not normal where they are few.
    assert found.mean == pytest.approx(exact, abs=0.25 * found.deviation)


def test_without_a_forecast_the_lead_stands_alone() -> None:
    alone, vague = posterior(None, 30, 10, 400), posterior(Expected(0.0, 100.0), 30, 10, 400)
    assert alone.mean == pytest.approx(vague.mean) and alone.mean < 20 / 400
    assert alone.deviation == pytest.approx(vague.deviation)


def test_a_lead_that_no_chance_explains_stands_against_the_surest_forecast() -> None:
    """17 of 18 images, where next to no gain was forecast."""
    sure = Expected(0.0, 0.001)
    found = posterior(sure, 17, 0, 18)
    assert found == posterior(None, 17, 0, 18) and found.mean > 0.5
    assert posterior(sure, 9, 3, 64).mean == pytest.approx(0.0, abs=1e-3)  # chance explains this


def test_a_sure_forecast_is_hardly_moved_and_few_images_move_it_less() -> None:
    sure = Expected(-0.05, 0.001)
    assert posterior(sure, 12, 4, 64).mean == pytest.approx(-0.05, abs=1e-3)
    unsure = Expected(-0.05, 0.05)
    few, many = posterior(unsure, 4, 1, 20).mean, posterior(unsure, 80, 20, 400).mean
    assert -0.05 < few < many < 0.15


@pytest.mark.parametrize("mean", [-0.2, 0.0, 0.2])
@pytest.mark.parametrize(
    ("images", "apart"), [(36, 0.25), (64, 0.15), (64, 0.3), (261, 0.05), (261, 0.15), (1000, 0.1)]
)
def test_the_rule_loses_less_than_proof_and_than_belief(
    mean: float, images: int, apart: float
) -> None:
    """Regret over simulated trainings and validations, against the rules it stands between.

    Gains are a third of what tells the models apart, and their mean a fifth of it.
    """
    mean, deviation = mean * apart, apart / 3
    random = np.random.default_rng(0)
    gains = np.clip(random.normal(mean, deviation, 1500), -apart, apart)
    shift = OPTIMISM * np.sqrt(apart / images)
    better = np.clip((apart + gains + shift) / 2, 0, apart)
    draws = [random.multinomial(images, [b, apart - b, 1 - apart]) for b in better]
    rules = {
        "proof": lambda won, lost: difference_interval(won, lost, images, 0.95)[0] > 0,
        "belief": lambda won, lost: won > lost,
        "posterior": lambda won, lost: (
            won > lost and posterior(Expected(mean, deviation), won, lost, images).mean > 0
        ),
    }
    regret = dict.fromkeys(rules, 0.0)
    for name, rule in rules.items():
        used = {
            (won, lost): rule(won, lost) for won, lost in {(int(w), int(o)) for w, o, _ in draws}
        }
        for gain, (won, lost, _) in zip(gains, draws, strict=True):
            regret[name] += max(gain, 0.0) - (gain if used[int(won), int(lost)] else 0.0)
    slack = 0.0002 * len(gains)  # a fiftieth of a point
    assert regret["posterior"] <= regret["proof"] + slack
    assert regret["posterior"] <= regret["belief"] + slack


@pytest.mark.parametrize("apart", [0.05, 0.4])
@pytest.mark.parametrize("images", [20, 200, 2000])
@pytest.mark.parametrize(("mean", "deviation"), [(0.0, 0.05), (0.06, 0.02), (-0.05, 0.1)])
def test_the_used_gain_is_that_of_simulated_trainings(
    apart: float, images: int, mean: float, deviation: float
) -> None:
    random, validation = np.random.default_rng(0), Validation(apart, images)
    gain = random.normal(mean, deviation, 400_000)
    noise = np.sqrt(apart / images)
    lead = gain + noise * (OPTIMISM + random.normal(size=gain.shape))
    share = deviation**2 / (deviation**2 + noise**2)
    expected = (1 - share) * mean + share * (lead - OPTIMISM * noise)
    used = np.where((lead > 0) & (expected > 0), gain, 0.0)
    error = 4 * used.std() / np.sqrt(len(used))
    assert validation.used_gain(Expected(mean, deviation)) == pytest.approx(
        used.mean(), abs=error + 1e-6
    )


@pytest.mark.parametrize("mean", [-0.02, 0.0, 0.02])
def test_a_forecast_without_doubt_is_its_own_used_gain(mean: float) -> None:
    sure = Validation(0.1, 10**9).used_gain(Expected(mean, 0.0))
    assert sure == pytest.approx(max(mean, 0.0), abs=1e-6)


@pytest.mark.parametrize("deviation", [1e-6, 0.02, 0.2])
@pytest.mark.parametrize("images", [50, 5000])
def test_from_the_needed_gain_on_the_used_gain_is_enough(deviation: float, images: int) -> None:
    validation = Validation(0.3, images)
    needed = validation.needed(0.01, deviation)
    assert validation.used_gain(Expected(needed + 1e-3, deviation)) >= 0.01
    assert validation.used_gain(Expected(needed - 1e-3, deviation)) < 0.01

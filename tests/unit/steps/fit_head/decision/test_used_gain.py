"""The used gain against a simulation of trainings and their validation."""

import numpy as np
import pytest

from graftline.stats.intervals import difference_interval
from graftline.steps.fit_head.decision.used_gain import Validation


@pytest.mark.parametrize("apart", [0.05, 0.4])
@pytest.mark.parametrize("images", [20, 200, 2000])
@pytest.mark.parametrize(("mean", "deviation"), [(0.0, 0.05), (0.06, 0.02), (-0.05, 0.1)])
def test_the_used_gain_is_that_of_simulated_trainings(
    apart: float, images: int, mean: float, deviation: float
) -> None:
    random, validation = np.random.default_rng(0), Validation(apart, images)
    gain = random.normal(mean, deviation, 400_000)
    measured = gain + random.normal(0, np.sqrt(apart / images), gain.shape)
    used = np.where(measured > validation.lead, gain, 0.0)
    error = 4 * used.std() / np.sqrt(len(used))
    assert validation.used_gain(mean, deviation) == pytest.approx(used.mean(), abs=error + 1e-6)


@pytest.mark.parametrize(("share", "images"), [(0.3, 100), (0.1, 1000), (0.5, 40)])
def test_the_lead_is_where_the_interval_of_the_difference_leaves_zero(
    share: float, images: int
) -> None:
    apart = round(share * images)
    leads = [
        lead / images
        for lead in range(apart + 1)
        if difference_interval((apart + lead) / 2, (apart - lead) / 2, images, 0.95)[0] > 0
    ]
    assert min(leads) == pytest.approx(Validation(share, images).lead, abs=1.5 / images)


@pytest.mark.parametrize("deviation", [1e-6, 0.02, 0.2])
@pytest.mark.parametrize("images", [50, 5000])
def test_from_the_needed_gain_on_the_used_gain_is_enough(deviation: float, images: int) -> None:
    validation = Validation(0.3, images)
    needed = validation.needed(0.01, deviation)
    assert validation.used_gain(needed + 1e-3, deviation) >= 0.01
    assert validation.used_gain(needed - 1e-3, deviation) < 0.01
    assert validation.needed(-1.0, deviation) == -1.0

"""What a training and its pilot are worth, against simulated ones."""

import numpy as np
import pytest

from graftline.stats.posterior_gain import OPTIMISM, Expected, Validation
from graftline.steps.fit_head.decision.worth import PilotPlan, worth_of_pilot, worth_of_training

DRAWS = 200_000


@pytest.mark.parametrize(("share", "repeated"), [(0.3, False), (0.1, True)])
@pytest.mark.parametrize("mean", [-0.02, 0.01, 0.03])
@pytest.mark.parametrize("images", [64, 2000])
def test_the_worth_of_a_pilot_is_that_of_simulated_ones(
    share: float, repeated: bool, mean: float, images: int
) -> None:
    """Draw the gain and what the pilot shows; train on where that pays; keep what leads."""
    random, deviation, pilot_noise, price = np.random.default_rng(0), 0.04, 0.03, 0.01
    validation = Validation(0.2, images)
    gain = random.normal(mean, deviation, DRAWS)
    shown = gain + random.normal(0, pilot_noise, DRAWS)
    slope = deviation**2 / (deviation**2 + pilot_noise**2)
    expected = mean + slope * (shown - mean)
    pilot = PilotPlan(slope, share, repeated)
    rest, left = pilot.rest(price), deviation * np.sqrt(1 - slope)
    assert pilot.left(deviation) == pytest.approx(left)
    goes_on = expected >= validation.needed(rest, left)
    noise = np.sqrt(0.2 / images)
    lead = gain + noise * random.normal(size=DRAWS)
    weight = left**2 / (left**2 + noise**2)
    used = (expected + weight * (lead - expected) > 0) & (lead > -OPTIMISM * noise)
    simulated = np.where(goes_on, np.where(used, gain, 0.0) - rest, 0.0) - share * price
    error = 4 * simulated.std() / np.sqrt(DRAWS) + 1e-4
    found = worth_of_pilot(Expected(mean, deviation), validation, price, pilot)
    assert found == pytest.approx(simulated.mean(), abs=error)


def test_a_pilot_that_shows_nothing_is_worth_less_than_the_training() -> None:
    validation, gain = Validation(0.2, 200), Expected(0.03, 0.02)
    trained = worth_of_training(gain, validation, 0.01)
    begun = worth_of_pilot(gain, validation, 0.01, PilotPlan(0.0, 0.3, repeated=False))
    again = worth_of_pilot(gain, validation, 0.01, PilotPlan(0.0, 0.3, repeated=True))
    assert begun == pytest.approx(trained) and again == pytest.approx(trained - 0.003)
    assert trained == pytest.approx(validation.used_gain(gain) - 0.01)

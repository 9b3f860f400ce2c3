"""What a training brings on average, less what it costs: the same scale for training and pilot.

``auto.min_gain`` is the price: what a whole training must bring on average. A pilot costs its share
of that, always; the rest only if it goes on. Whichever brings most is done.
"""

from dataclasses import dataclass
from math import sqrt
from statistics import NormalDist

from graftline.stats.posterior_gain import Expected, Validation

POINTS = 101  # of equal probability, for the average over what a pilot may show


@dataclass(frozen=True)
class PilotPlan:
    """A pilot as the decision sees it.

    Attributes:
        slope: Share of the forecast's variance that the pilot takes.
        share: Of the whole training's images that pass the network in the pilot.
        repeated: Whether the whole training starts again after it.
    """

    slope: float
    share: float
    repeated: bool

    def rest(self, min_gain: float) -> float:
        """The price of what follows the pilot."""
        return min_gain * (1.0 if self.repeated else 1 - self.share)

    def left(self, deviation: float) -> float:
        """Deviation of the gain after it."""
        return deviation * sqrt(max(0.0, 1 - self.slope))


def worth_of_training(gain: Expected, validation: Validation, min_gain: float) -> float:
    """Of the whole training, without a pilot."""
    return validation.used_gain(gain) - min_gain


def worth_of_pilot(
    gain: Expected, validation: Validation, min_gain: float, pilot: PilotPlan
) -> float:
    """Of a pilot, after which the training goes on only where that is worth its rest.

    The gain expected after it is normal about the one expected now; its variance is what the
    pilot takes of the forecast's.
    """
    rest, left = pilot.rest(min_gain), pilot.left(gain.deviation)
    shown = NormalDist(gain.mean, max(1e-9, gain.deviation * sqrt(max(0.0, pilot.slope))))
    worths = [
        max(0.0, validation.used_gain(Expected(mean, left)) - rest)
        for mean in (shown.inv_cdf((number + 0.5) / POINTS) for number in range(POINTS))
    ]
    return sum(worths) / POINTS - pilot.share * min_gain

"""What fine-tuning gains in the end: its network is used only where validation shows that it leads.

A training that validation could not tell from the probe is spent for nothing. With few validation
images that is nearly all of them, whatever the forecast says.
"""

from dataclasses import dataclass
from math import sqrt
from statistics import NormalDist

NORMAL = NormalDist()
SURE = NORMAL.inv_cdf(0.975)  # fine_tune keeps what leads with 95% confidence


@dataclass(frozen=True)
class Validation:
    """The comparison after a training.

    Attributes:
        apart: Share of the images that one of the two models gets right and the other one wrong.
        images: How many there are.
    """

    apart: float
    images: int

    @property
    def lead(self) -> float:
        """The lead from which the network is used.

        The score interval of a difference leaves zero where the lead exceeds :data:`SURE` times
        the root of the number of images that tell the models apart, which is at least the lead.
        """
        return max(SURE * sqrt(self.apart / self.images), SURE**2 / self.images)

    def used_gain(self, mean: float, deviation: float) -> float:
        """Expected gain where a network that does not lead counts as none.

        The gain is normal with this mean and deviation, and what validation measures lies around
        it by chance: a truncated moment of two correlated normal numbers.
        """
        spread = sqrt(deviation**2 + self.apart / self.images)
        if spread <= 0:
            return mean if mean >= self.lead else 0.0
        z = (self.lead - mean) / spread
        return mean * NORMAL.cdf(-z) + deviation**2 / spread * NORMAL.pdf(z)

    def needed(self, min_gain: float, deviation: float) -> float:
        """The expected gain from which the used gain is ``min_gain``.

        Whoever asks for no gain, or for a loss, is not kept from it.
        """
        if min_gain <= 0:
            return min_gain
        low, high = -1.0, 1.0
        if self.used_gain(high, deviation) < min_gain:
            return high
        for _ in range(40):
            middle = (low + high) / 2
            if self.used_gain(middle, deviation) < min_gain:
                low = middle
            else:
                high = middle
        return high

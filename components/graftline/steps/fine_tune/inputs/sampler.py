"""Which images are in which step."""

import numpy as np
from numpy.typing import NDArray


class Sampler:
    """One endless shuffled stream of the training rows, cut into batches of one size.

    Each pass over the data is shuffled by the seed and its number alone, so any step's batch can
    be computed without the ones before it. A batch at the end of a pass is filled up from the
    next one: no image is left out, and no small last batch breaks BatchNorm.

    Args:
        rows: Manifest rows of the training images.
        batch_size: Images in a step.
        epochs: Passes over the data.
        seed: Of the run.
    """

    def __init__(self, rows: NDArray[np.int64], batch_size: int, epochs: int, seed: int) -> None:
        self.rows, self.seed, self.epochs = rows, seed, epochs
        self.batch_size = min(batch_size, len(rows))

    @property
    def steps(self) -> int:
        """Steps in all epochs."""
        return self.end_of(self.epochs - 1)

    def end_of(self, epoch: int) -> int:
        """Steps done when this epoch ends, counted from the start of the training."""
        return (epoch + 1) * len(self.rows) // self.batch_size

    def batch(self, step: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """The rows of a step, and the pass over the data that each belongs to; (B,) both."""
        places = np.arange(step * self.batch_size, (step + 1) * self.batch_size)
        passes = places // len(self.rows)
        rows = np.empty(len(places), np.int64)
        for number in np.unique(passes):
            inside = passes == number
            rows[inside] = self._order(int(number))[places[inside] % len(self.rows)]
        return rows, passes

    def _order(self, number: int) -> NDArray[np.int64]:
        return np.random.default_rng([self.seed, number]).permutation(self.rows)

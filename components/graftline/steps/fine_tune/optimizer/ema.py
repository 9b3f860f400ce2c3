"""An exponential moving average of the trained weights, which is what is measured and kept."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor


class Average:
    """Follows some tensors; a decay of 0 follows nothing and costs nothing.

    The decay starts low and rises to its value as ``(1 + t) / (10 + t)``, as in TensorFlow's
    ExponentialMovingAverage: short trainings would otherwise keep the start for ever.

    Args:
        tensors: What is followed, by name; changed in place by the training.
        decay: Weight of the past in each step.
    """

    def __init__(self, tensors: Mapping[str, Tensor], decay: float) -> None:
        self._tensors, self._decay = tensors, decay
        self.average: dict[str, Tensor] = {}
        if decay > 0:
            self.restart()

    def restart(self) -> None:
        """Begin at the present values."""
        if self._decay > 0:
            self.average = {name: t.detach().clone() for name, t in self._tensors.items()}

    @torch.no_grad()
    def update(self, step: int) -> None:
        """Take one step of the training into account, the ``step``-th."""
        decay = min(self._decay, (1 + step) / (10 + step))
        for name, average in self.average.items():
            new = self._tensors[name].detach()
            if average.is_floating_point():
                average.lerp_(new, 1 - decay)
            else:
                average.copy_(new)

    @contextmanager
    def applied(self) -> Iterator[None]:
        """The averages are in the network; afterwards the training's own values again."""
        if not self.average:
            yield
            return
        own = {name: tensor.detach().clone() for name, tensor in self._tensors.items()}
        self._put(self.average)
        try:
            yield
        finally:
            self._put(own)

    @torch.no_grad()
    def load(self, tensors: Mapping[str, Tensor]) -> None:
        """Go on from saved averages."""
        for name, average in self.average.items():
            average.copy_(tensors[name])

    @torch.no_grad()
    def _put(self, values: Mapping[str, Tensor]) -> None:
        for name, tensor in self._tensors.items():
            tensor.copy_(values[name])

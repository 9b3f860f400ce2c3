"""The processes that share one training, each with its part of every batch.

Gradients are added up as in DistributedDataParallel, but after the last micro-batch and in one
piece: the loss is divided by the whole batch's weight beforehand, so the sum over the processes is
the gradient of one process with the whole batch.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, distributed

Ints = NDArray[np.int64]


@dataclass
class Ranks:
    """This process among all.

    Attributes:
        rank: Its number, from 0.
        count: How many there are.
    """

    rank: int = 0
    count: int = 1
    _before: int = 0  # images in front of the own part, only there to be mixed in

    @property
    def first(self) -> bool:
        """Whether this process writes what is written once."""
        return self.rank == 0

    def part(self, rows: Ints, passes: Ints, mix: str) -> tuple[Ints, Ints]:
        """The own part of a batch; with mixing, led by the image that its first is mixed with."""
        if self.count == 1:
            return rows, passes
        own = np.array_split(np.arange(len(rows)), self.count)[self.rank]
        if mix != "none" and len(rows) > 1:
            self._before = 1
            own = np.concatenate([[(own[0] - 1) % len(rows)], own])
        return rows[own], passes[own]

    def own(self, x: Tensor) -> Tensor:
        """Without the image that was only there to be mixed in."""
        return x[self._before :]

    def sum(self, value: Tensor) -> Tensor:
        """The sum over all processes."""
        if self.count > 1:
            distributed.all_reduce(value)
        return value

    def from_first(self, compute: Callable[[], tuple[float, ...]], count: int) -> list[float]:
        """Figures that the first process computes, in all of them.

        Args:
            compute: Called by the first alone, so that all decide alike.
            count: How many figures it gives.
        """
        if self.count == 1:
            return list(compute())
        values = compute() if self.first else (0.0,) * count
        device = "cuda" if torch.cuda.is_available() else "cpu"
        shared = torch.tensor(values, dtype=torch.float64, device=device)
        distributed.broadcast(shared, 0)
        return [float(value) for value in shared]

    def add_gradients(self, optimizer: torch.optim.Optimizer) -> None:
        """Replace each gradient by its sum over all processes."""
        if self.count == 1:
            return
        gradients = [
            p.grad
            for group in optimizer.param_groups
            for p in group["params"]
            if p.grad is not None
        ]
        flat = torch.cat([gradient.reshape(-1) for gradient in gradients])
        distributed.all_reduce(flat)
        end = 0
        for gradient in gradients:
            start, end = end, end + gradient.numel()
            gradient.copy_(flat[start:end].view_as(gradient))

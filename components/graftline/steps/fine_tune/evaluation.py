"""Logits and accuracy of validation images while a network is trained."""

from collections.abc import Callable, Sequence
from itertools import islice

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from graftline.classifier.bundle import Classifier
from graftline.steps.fine_tune.failures import halved
from graftline.steps.fine_tune.inputs.batches import Batches, Item

BATCH = 64

Forward = Callable[[Tensor], Tensor]


class Evaluation:
    """Evaluates one classifier, in fp32 and with the evaluation's preprocessing.

    Args:
        classifier: Put into eval mode for it.
        forward: Logits of what ``batches`` stacks for evaluation.
        batches: Where images come from.
    """

    def __init__(self, classifier: Classifier, forward: Forward, batches: Batches) -> None:
        self._classifier, self._forward, self._batches = classifier, forward, batches
        self._at_once = BATCH

    def logits(self, rows: NDArray[np.int64]) -> NDArray[np.float32]:
        """Uncalibrated float32 logits, (rows, classes).

        Raises:
            TrainingError: One image does not fit into memory.
        """
        self._classifier.eval()
        parts: list[NDArray[np.float32]] = []
        loaded = self._batches.load_held_out(rows)
        while items := list(islice(loaded, BATCH)):
            parts.append(self._of(items).float().cpu().numpy())
        return np.concatenate(parts)

    def measure(self, rows: NDArray[np.int64], truth: NDArray[np.int64]) -> tuple[float, float]:
        """Accuracy and mean cross-entropy."""
        logits, targets = torch.from_numpy(self.logits(rows)).double(), torch.from_numpy(truth)
        accuracy = (logits.argmax(dim=1) == targets).double().mean()
        return float(accuracy), float(F.cross_entropy(logits, targets))

    def _of(self, items: Sequence[Item]) -> Tensor:
        while True:
            try:
                x = self._batches.stacked(items, training=False)
                with torch.no_grad():
                    return torch.cat(
                        [self._forward(part) for part in torch.split(x, self._at_once)]
                    )
            except (RuntimeError, MemoryError) as error:
                self._at_once = halved(self._at_once, error)

"""Logits of a batch: by the network as a whole, or by its upper half alone."""

from torch import Tensor

from graftline.classifier.bundle import Classifier
from graftline.steps.fine_tune.network.frozen_engine import FrozenEngine
from graftline.steps.fine_tune.network.split import Split


class Forward:
    """The ways of one classifier.

    Args:
        classifier: The network.
        halves: The same, cut below its trained blocks; None where it is run as a whole.
        engine: Runs the lower half of it; None for PyTorch.
    """

    def __init__(
        self, classifier: Classifier, halves: Split | None, engine: FrozenEngine | None
    ) -> None:
        self._classifier, self._halves, self._engine = classifier, halves, engine

    def images(self, images: Tensor) -> Tensor:
        """Logits of training images."""
        if self._engine is not None:
            return self.lower(self._engine(images))
        logits: Tensor = self._classifier(images)
        return logits

    def lower(self, lower: Tensor) -> Tensor:
        """Logits of what the lower half gave."""
        assert self._halves is not None
        logits: Tensor = self._classifier.head(self._halves.upper(lower))
        return logits

"""Logits of a batch: by the network as a whole, or by its upper half alone.

Not through torch.compile: on a CPU it does not pay. Forward and backward of the upper third in
bf16, 32 images of 224 pixels, PyTorch 2.14 on the two cores of an AMD EPYC with AVX-512 BF16: 9.0
ms an image in eager mode and 32 compiled for EfficientNet-Lite0, 26.4 and 26.7 for ResNet-50, after
31 to 70 s of compiling; ten epochs on 1,000 images take 90 and 260 s.
"""

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

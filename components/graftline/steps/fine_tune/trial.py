"""One short training of a search."""

from dataclasses import dataclass

from graftline.steps.fine_tune.recipe import Unfreeze


@dataclass(frozen=True, kw_only=True)
class Trial:
    """One short training.

    Attributes:
        learning_rate: Peak, of the head.
        unfreeze: The blocks that it trained.
        epochs: It was given.
        val_accuracy: Of its best epoch; below 0 where it diverged.
        val_loss: Of the same.
        seconds: It trained.
    """

    learning_rate: float
    unfreeze: Unfreeze
    epochs: int
    val_accuracy: float
    val_loss: float
    seconds: float

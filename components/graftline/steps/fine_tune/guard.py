"""Notices a training that only does harm: validation that stays below the probe's."""

from graftline.progress import message
from graftline.steps.fine_tune.checkpoints.state import Progressed
from graftline.steps.fine_tune.recipe import Settings
from graftline.steps.fine_tune.reports import epochs_of

EPOCHS = 3  # in a row below the probe
CUT = 0.1  # of the learning rate


def cut_rate(at: Progressed, accuracy: float, floor: float | None, settings: Settings) -> bool:
    """Count an epoch, and cut the learning rate once, after several in a row below the probe.

    Args:
        at: Counts the epochs and holds the rate's factor; changed in place.
        accuracy: Of the epoch on val.
        floor: The probe's; None for nothing to compare with.
        settings: ``guard`` and ``patience``: training must not have stopped before.

    Returns:
        Whether the best weights are to be restored.
    """
    at.below = at.below + 1 if floor is not None and accuracy < floor else 0
    enough = max(1, min(EPOCHS, settings.patience - 1))
    if not settings.guard or at.guarded_epoch or at.below < enough:
        return False
    at.rate *= CUT
    at.guarded_epoch, at.below = at.epoch, 0
    message(
        "Validation stayed below the probe's %.4f for %s: the learning rate is cut to %g "
        "of itself, and training goes on from the best weights so far.",
        floor,
        epochs_of(enough),
        CUT,
    )
    return True

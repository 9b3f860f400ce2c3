"""What is said of an epoch while it trains."""

from graftline.progress import message
from graftline.steps.fine_tune.checkpoints.state import Progressed
from graftline.steps.fine_tune.inputs.sampler import Sampler


def say_epoch(figures: dict[str, float], epochs: int, at: Progressed, sampler: Sampler) -> float:
    """One line for the log and the terminal.

    Args:
        figures: Losses and accuracy.
        epochs: In all.
        at: Where training stands; it may stop earlier than the time left says.
        sampler: Of the training.

    Returns:
        Images a second so far.
    """
    seconds = max(at.seconds, 1e-9)
    rate = at.steps_done * sampler.batch_size / seconds
    left = (sampler.steps - at.steps_done) * seconds / max(1, at.steps_done)
    message(
        "epoch %d of %d: train loss %.4f, val loss %.4f, val accuracy %.4f, "
        "%.0f images a second, %s left at most",
        figures["epoch"],
        epochs,
        figures["train_loss"],
        figures["val_loss"],
        figures["val_accuracy"],
        rate,
        duration(left),
    )
    return rate


def duration(seconds: float) -> str:
    """Seconds for a reader: ``40 s``, ``12 min``, ``3.5 h``."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"

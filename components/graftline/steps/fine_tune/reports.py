"""What is said of an epoch while it trains."""

from graftline.progress import message
from graftline.steps.fine_tune.checkpoints.state import Progressed
from graftline.steps.fine_tune.inputs.sampler import Sampler
from graftline.steps.fine_tune.recipe import Settings


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


def say_early_end(at: Progressed, settings: Settings, strategy: str, *, in_time: bool) -> None:
    """Why training ended before its last epoch, where no pilot ended it: that says so itself.

    Args:
        at: Where training ended.
        settings: Of the training.
        strategy: Whose section of the run file has these settings.
        in_time: Whether the time limit is not what ended it.
    """
    if at.epoch >= settings.epochs:
        return
    kept = f"epoch {at.best_epoch}, the best on validation, is kept"
    if in_time:
        message(
            "Training ends in epoch %d of %d: %s without improvement (%s.patience); %s.",
            at.epoch,
            settings.epochs,
            epochs_of(settings.patience),
            strategy,
            kept,
        )
    else:
        message(
            "Training ends in epoch %d of %d: its %g minutes are over (%s.max_minutes); %s.",
            at.epoch,
            settings.epochs,
            settings.max_minutes,
            strategy,
            kept,
        )


def epochs_of(count: int) -> str:
    """``1 epoch``, ``3 epochs``."""
    return f"{count} epoch" + "s" * (count != 1)


def duration(seconds: float) -> str:
    """Seconds for a reader: ``40 s``, ``12 min``, ``3.5 h``."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"

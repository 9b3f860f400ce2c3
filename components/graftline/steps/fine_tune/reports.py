"""What is said of an epoch while it trains."""

from graftline.progress import message


def say_epoch(figures: dict[str, float], epochs: int, *, rate: float, left: float) -> None:
    """One line for the log and the terminal.

    Args:
        figures: Losses and accuracy.
        epochs: In all.
        rate: Images a second so far.
        left: Seconds until the last epoch ends, if training does not stop earlier.
    """
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


def duration(seconds: float) -> str:
    """Seconds for a reader: ``40 s``, ``12 min``, ``3.5 h``."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"

"""How a training went, epoch by epoch, beside the probe that it started from."""

from collections.abc import Mapping, Sequence

from markupsafe import Markup

from graftline.reports.charts import Series, line_chart, nice_floor
from graftline.reports.html import percent

History = Sequence[Mapping[str, float]]


def accuracy_chart(history: History, probe_accuracy: float) -> Markup:
    """The accuracy on validation by epoch, with the probe's as a level line.

    Args:
        history: Of each epoch ``epoch`` and ``val_accuracy``; one at least.
        probe_accuracy: On the same images.
    """
    points = [(each["epoch"], each["val_accuracy"]) for each in history]
    last = max(epoch for epoch, _ in points)
    lowest = min(probe_accuracy, *(accuracy for _, accuracy in points))
    return line_chart(
        "Accuracy on the validation images by epoch",
        [
            Series("in training", points, markers=True),
            Series("the probe", [(0.0, probe_accuracy), (last, probe_accuracy)], "dash"),
        ],
        x=(0.0, last),
        y=(nice_floor(lowest), 1.0),
        x_title="epoch",
        y_title="accuracy on validation",
        counts=True,
    )


def epoch_rows(history: History, best_epoch: int) -> list[tuple[str, str, str, str]]:
    """Epoch, loss, loss on validation and accuracy on validation.

    Args:
        history: Of each epoch ``epoch``, ``train_loss``, ``val_loss`` and ``val_accuracy``.
        best_epoch: Whose weights were kept; 0 for none.
    """
    return [
        (
            f"{each['epoch']:.0f}" + (" (kept)" if each["epoch"] == best_epoch else ""),
            f"{each['train_loss']:.4f}",
            f"{each['val_loss']:.4f}",
            percent(each["val_accuracy"]),
        )
        for each in history
    ]

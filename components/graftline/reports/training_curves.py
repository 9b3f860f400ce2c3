"""How a training went, epoch by epoch, beside the probe that it started from."""

from collections.abc import Mapping, Sequence

from markupsafe import Markup

from graftline.reports import html
from graftline.reports.charts import Series, line_chart, nice_floor
from graftline.reports.html import Column, join, percent

History = Sequence[Mapping[str, float]]


def training_curves(history: History, probe_accuracy: float, best_epoch: int) -> Markup:
    """A chart of the accuracy on validation, and all figures in a table.

    Args:
        history: Of each epoch ``epoch``, ``train_loss``, ``val_loss`` and ``val_accuracy``.
        probe_accuracy: The probe's on the same images, drawn as a line.
        best_epoch: Whose weights were kept; 0 for none.
    """
    if not history:
        return Markup("")
    points = [(each["epoch"], each["val_accuracy"]) for each in history]
    last = max(epoch for epoch, _ in points)
    lowest = min(probe_accuracy, *(accuracy for _, accuracy in points))
    chart = line_chart(
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
    rows = [
        (
            f"{each['epoch']:.0f}" + (" (kept)" if each["epoch"] == best_epoch else ""),
            f"{each['train_loss']:.4f}",
            f"{each['val_loss']:.4f}",
            percent(each["val_accuracy"]),
        )
        for each in history
    ]
    columns = [Column(name, number=True) for name in ("loss", "loss on validation", "accuracy")]
    table = html.table(["epoch", *columns], rows)
    return join([chart, html.folded("Every epoch", table)])

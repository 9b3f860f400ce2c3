"""What the page shows of figures: the overview, the comparison, and what may lie behind a mean."""

import math
from typing import Any

from graftline.reports import charts
from graftline.reports.html import NOT_KNOWN, Cell, Column, interval, percent, points
from graftline.stats.intervals import share_interval
from graftline.steps.evaluate.results import Findings
from graftline.steps.evaluate.robustness import STRENGTHS

NAMES = {
    "accuracy": "accuracy",
    "balanced_accuracy": "balanced accuracy",
    "macro_f1": "macro F1",
    "top_k_accuracy": "top-k accuracy",
    "log_loss": "log-loss",
    "brier": "Brier score",
    "ece": "calibration error (ECE)",
}
LOWER_IS_BETTER = ("log_loss", "brier", "ece")
LOSSES = ("log_loss", "brier")  # no shares
CHART_CLASSES = 25
FEW_IN_BIN = 10  # images; the accuracy of fewer says little
MISSING_NAMES = 10


def values(findings: Findings) -> dict[str, Any]:
    """The values that the templates show, by name."""
    missing = [row.name for row in findings.measured.classes if not row.support]
    more = f" and {len(missing) - MISSING_NAMES:,} more" * (len(missing) > MISSING_NAMES)
    named = ", ".join(missing[:MISSING_NAMES])
    return {
        "overview": _overview(findings),
        "gate": [
            (
                Cell("passed", chip="good") if test.passed else Cell("failed", chip="bad"),
                Cell(test.name, code=True),
                test.reason,
            )
            for test in findings.verdict.tests
        ],
        "champion": _champion(findings),
        "calibration": _calibration(findings),
        "classes": _classes(findings),
        "untested": f"Without test images: {named}{more}." if missing else "",
        "slices": _slices(findings),
        "robustness": _robustness(findings),
        "abstaining": _abstaining(findings),
    }


def _overview(findings: Findings) -> dict[str, Any]:
    figures, bounds = findings.measured.figures, findings.measured.intervals
    before = f"before calibration {percent(findings.measured.uncalibrated_ece)}"
    cards = [
        ("Test accuracy", percent(figures["accuracy"]), interval(bounds["accuracy"])),
        ("Macro F1", percent(figures["macro_f1"]), interval(bounds["macro_f1"])),
        (
            "Balanced accuracy",
            percent(figures["balanced_accuracy"]),
            interval(bounds["balanced_accuracy"]),
        ),
        ("Calibration error", percent(figures["ece"]), before),
    ]
    if figures["top_k"] > 1:
        top = (percent(figures["top_k_accuracy"]), interval(bounds["top_k_accuracy"]))
        cards.append((f"Top-{int(figures['top_k'])} accuracy", *top))
    low, high = bounds["log_loss"]
    cards += [
        ("Log-loss", f"{figures['log_loss']:.3f}", f"{low:.3f} – {high:.3f}"),
        ("Area under ROC", _number(figures["macro_roc_auc"]), "mean over classes"),
        ("Average precision", _number(figures["macro_average_precision"]), "mean over classes"),
    ]
    classes = findings.test.snapshot.classes
    return {
        "images": len(findings.test.labels),
        "level": percent(findings.settings.evaluation.confidence, 0),
        "cards": cards,
        "charts": _curves(findings),
        "curves": f"Curves for {classes[1]!r}."
        if len(classes) == 2
        else "Curves over all decisions, each class of each image against the rest.",
    }


def _curves(findings: Findings) -> list[Any]:
    """ROC and precision against recall; none where they are not defined."""
    curves = findings.measured.curves
    if not curves["roc"]:
        return []
    common = curves["precision_recall"][-1][1]  # at the lowest threshold everything is given
    drawn = (
        ("Receiver operating characteristic", "false positive rate", "true positive rate"),
        ("Precision against recall", "recall", "precision"),
    )
    lines: tuple[tuple[charts.Pairs, charts.Pairs], ...] = (
        ([(0, 0), (1, 1)], curves["roc"]),
        ([(0, common), (1, common)], curves["precision_recall"]),
    )
    return [
        charts.line_chart(
            title,
            [charts.Series("chance", chance, "dash"), charts.Series("this model", line)],
            x_title=across,
            y_title=up,
        )
        for (title, across, up), (chance, line) in zip(drawn, lines, strict=True)
    ]


def _champion(findings: Findings) -> dict[str, Any] | None:
    """Challenger and champion, metric by metric."""
    beside, champion = findings.measured.side_by_side, findings.test.champion
    if beside is None or champion is None:
        return None
    both = champion.comparable
    same = bool((champion.predicted[both] == findings.test.predicted[both]).all())
    rows = []
    for name, title in NAMES.items():
        new, old, bounds = (
            beside.challenger[name],
            beside.champion[name],
            beside.difference.get(name),
        )
        show = _signed if name in LOSSES else points
        ends = NOT_KNOWN if bounds is None else f"{show(bounds[0])} to {show(bounds[1])}"
        text = _number if name in LOSSES else percent
        change = show(new - old)
        chip = _chip(bounds, name) if change != show(0.0) else ""  # "+0.000" is no gain to mark
        rows.append((title, text(new), text(old), Cell(change, chip=chip), ends))
    found: dict[str, Any] = {"same": same, "rows": rows, "recall": None}
    bars = [
        charts.Bar(row.name, row.recall, row.recall_interval, _champion_recall(findings, index))
        for index, row in enumerate(findings.measured.classes)
        if row.support
    ]
    if not same and len(bars) <= CHART_CLASSES:
        others = [bar.other for bar in bars if bar.other is not None]
        low = charts.nice_floor(min([bar.value for bar in bars] + others))
        found["recall"] = charts.bar_chart("Recall by class", bars, x=(low, 1.0), marks="champion")
        found["scale"] = f"The scale goes from {percent(low, 0)} to 100%. Bands: exact intervals."
    return found


def _calibration(findings: Findings) -> dict[str, Any]:
    """The reliability diagram, and what the temperature did."""
    measured = findings.measured
    after, before = measured.reliability, measured.reliability_before
    total = sum(after.count) or 1
    few = [count < FEW_IN_BIN for count in after.count]
    diagram = charts.reliability_diagram(
        "Reliability diagram: how often the model is right, by how sure it is",
        after.confidence,
        after.accuracy,
        [count / total for count in after.count],
        intervals=[
            share_interval(round(accuracy * count), count, findings.settings.evaluation.confidence)
            for accuracy, count in zip(after.accuracy, after.count, strict=True)
        ],
        before=[
            (confidence, accuracy)
            for confidence, accuracy, count in zip(
                before.confidence, before.accuracy, before.count, strict=True
            )
            if count >= FEW_IN_BIN
        ],
        sparse=few,
    )
    temperature = findings.classifier.temperature
    sparse = f"Hollow: fewer than {FEW_IN_BIN} images in the bin, which say little. "
    sparse += "The line before calibration leaves such bins out."
    return {
        "diagram": diagram,
        "sentence": f"Temperature {temperature:.3f}, fitted on the validation images: the model's "
        f"probabilities were made {'less sure' if temperature > 1 else 'surer'}. Labels do not "
        "change by it.",
        "rows": [
            ("before", percent(measured.uncalibrated_ece)),
            ("after", percent(measured.figures["ece"])),
            ("a perfect model stays below", percent(measured.ece_noise)),
        ],
        "sparse": sparse if any(few) else "",
    }


def _classes(findings: Findings) -> list[tuple[int, str, list[Cell]]]:
    """One row a class: its number, its name and its figures."""
    return [
        (
            index,
            row.name,
            [
                Cell(f"{row.support:,}", row.support),
                Cell(f"{row.predicted:,}", row.predicted),
                Cell(percent(row.precision), row.precision),
                Cell(percent(row.recall), row.recall),
                Cell(interval(row.recall_interval) if row.support else NOT_KNOWN),
                Cell(percent(row.f1), row.f1),
                Cell(_number(row.roc_auc), row.roc_auc),
                Cell(_number(row.average_precision), row.average_precision),
            ],
        )
        for index, row in enumerate(findings.measured.classes)
    ]


def _slices(findings: Findings) -> dict[str, Any] | None:
    """Parts of the test split that a mean may hide."""
    if not findings.measured.slices:
        return None
    beside = findings.test.champion is not None
    accuracy = findings.measured.figures["accuracy"]
    rows = []
    for row in findings.measured.slices:
        low = "warn" if row.interval[1] < accuracy else ""
        cells: list[Cell | str] = [row.column, row.value, Cell(f"{row.images:,}", row.images)]
        cells += [Cell(percent(row.accuracy), row.accuracy, chip=low), interval(row.interval)]
        if beside:
            cells.append(Cell(percent(row.champion), row.champion))
        rows.append(cells)
    heads = ["images", "accuracy", "interval"] + ["champion"] * beside
    columns = ["cut by", "part", *(Column(head, number=True) for head in heads)]
    return {"accuracy": accuracy, "columns": columns, "rows": rows}


def _robustness(findings: Findings) -> dict[str, Any] | None:
    """Accuracy on corrupted images."""
    found = findings.robustness
    if found is None:
        return None
    rows = []
    for name, levels, accuracy, bounds in found.rows:
        cells: list[Cell | str] = [name]
        for value, (_, high) in zip(accuracy, bounds, strict=True):
            chip = "bad" if high < found.clean - 0.1 else "warn" if high < found.clean else ""
            cells.append(Cell(percent(value, 0), value, chip=chip))
        rows.append([*cells, points(sum(accuracy) / len(accuracy) - found.clean, 0), levels])
    heads = [*STRENGTHS, "mean change"]
    columns = ["corruption", *(Column(head, number=True) for head in heads), "levels"]
    figures = {"images": found.images, "clean": found.clean, "mean": found.mean}
    return {"columns": columns, "rows": rows, **figures}


def _abstaining(findings: Findings) -> dict[str, Any]:
    """Not answering: the unsure, and images of no class."""
    coverage, unlike = findings.measured.coverage, findings.ood
    low = charts.nice_floor(min((y for _, y in coverage.curve), default=0.0))
    sentences = []
    if unlike is not None:
        sentences.append(
            f"An image farther than {unlike.distance:.3f} from every class mean ("
            f"{percent(1 - unlike.quantile, 0)} of the validation images, "
            f"{percent(unlike.refused)} of the test images) is of no class that the model knows."
        )
    if unlike is not None and not math.isnan(unlike.unseen_auc):
        sentences.append(
            "If each class in turn were unknown, this distance would separate its images from the "
            f"others with an area under the ROC curve of {unlike.unseen_auc:.3f}, and the "
            f"threshold would refuse {percent(unlike.unseen_refused, 0)} of them."
        )
    return {
        "chart": charts.line_chart(
            "Accuracy on the images that are answered, by the share that is answered",
            [charts.Series("this model", coverage.curve)],
            y=(low, 1.0),
            x_title="share of the images answered, the surest first",
            y_title="accuracy on those",
        ),
        "targets": [
            (percent(target), f"{threshold:.4f}", percent(share))
            for target, threshold, share in coverage.at
        ],
        "unlike": sentences,
    }


def _champion_recall(findings: Findings, index: int) -> float | None:
    champion = findings.test.champion
    if champion is None:
        return None
    mask = champion.comparable & (findings.test.labels == index)
    return float((champion.predicted[mask] == index).mean()) if mask.any() else None


def _chip(bounds: list[float] | None, name: str) -> str:
    """How a change is marked: not at all within chance."""
    if bounds is None or bounds[0] <= 0 <= bounds[1]:
        return ""
    return "good" if (bounds[0] > 0) != (name in LOWER_IS_BETTER) else "bad"


def _signed(value: float) -> str:
    return f"{value:+z.3f}".replace("-", "−")


def _number(value: float) -> str:
    return NOT_KNOWN if math.isnan(value) else f"{value:.3f}"

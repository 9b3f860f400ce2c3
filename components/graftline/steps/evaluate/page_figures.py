"""Sections with figures: the overview, the gate, the comparison, and what may lie behind a mean."""

import math

from markupsafe import Markup

from graftline.reports import charts, html
from graftline.reports.html import Cell, Column, Section, interval, percent, points
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
CHART_CLASSES = 25


def overview(findings: Findings) -> Section:
    """Key figures with their intervals."""
    figures, bounds = findings.measured.figures, findings.measured.intervals
    level = percent(findings.settings.evaluation.confidence, 0)
    cards = [
        ("Test accuracy", percent(figures["accuracy"]), interval(bounds["accuracy"])),
        ("Macro F1", percent(figures["macro_f1"]), interval(bounds["macro_f1"])),
        (
            "Balanced accuracy",
            percent(figures["balanced_accuracy"]),
            interval(bounds["balanced_accuracy"]),
        ),
        (
            "Calibration error",
            percent(figures["ece"]),
            f"before calibration {percent(findings.measured.uncalibrated_ece)}",
        ),
    ]
    if figures["top_k"] > 1:
        k = int(figures["top_k"])
        cards.append(
            (
                f"Top-{k} accuracy",
                percent(figures["top_k_accuracy"]),
                interval(bounds["top_k_accuracy"]),
            )
        )
    cards += [
        ("Log-loss", f"{figures['log_loss']:.3f}", _bounds(bounds["log_loss"])),
        ("Area under ROC", _number(figures["macro_roc_auc"]), "mean over classes"),
        ("Average precision", _number(figures["macro_average_precision"]), "mean over classes"),
    ]
    curves = findings.measured.curves
    parts = [html.cards(cards)]
    if curves["roc"]:
        common = curves["precision_recall"][-1][1]  # at the lowest threshold everything is given
        parts.append(
            html.columns(
                charts.line_chart(
                    "Receiver operating characteristic",
                    [
                        charts.Series("chance", [(0, 0), (1, 1)], "dash"),
                        charts.Series("this model", curves["roc"]),
                    ],
                    x_title="false positive rate",
                    y_title="true positive rate",
                ),
                charts.line_chart(
                    "Precision against recall",
                    [
                        charts.Series("chance", [(0, common), (1, common)], "dash"),
                        charts.Series("this model", curves["precision_recall"]),
                    ],
                    x_title="recall",
                    y_title="precision",
                ),
            )
        )
        two = len(findings.test.snapshot.classes) == 2
        told = (
            f"Curves for {findings.test.snapshot.classes[1]!r}."
            if two
            else "Curves over all decisions, each class of each image against the rest."
        )
        parts.append(html.paragraph(told, "quiet"))
    intro = (
        f"On {len(findings.test.labels):,} test images that neither training nor any choice has "
        f"seen. Ranges are {level} intervals that hold for few images too; images of one group "
        "count as far as they are right or wrong together."
    )
    return Section("Overview", html.join(parts), "overview", intro)


def gate(findings: Findings) -> Section:
    """Every test with its sentence."""
    verdict = findings.verdict
    rows = [
        (
            html.chip("passed", "good") if test.passed else html.chip("failed", "bad"),
            Markup('<code class="name">{}</code>').format(test.name),
            test.reason,
        )
        for test in verdict.tests
    ]
    parts = [html.table(["", "test", "what was found"], rows)]
    for reason, count in verdict.left_out.items():
        parts.append(
            html.paragraph(f"{count:,} test images were left out of the comparison: {reason}.")
        )
    parts += [html.paragraph(note, "note warn") for note in verdict.notes]
    against = (
        f"Against version {verdict.champion_version} of {verdict.champion_name}, on the same "
        f"{verdict.compared_images:,} test images."
        if not verdict.first_model
        else "There is no champion yet: a first model has to meet the floors, and to beat the best "
        "constant answer to the test images."
    )
    return Section("The gate", html.join(parts), "gate", against, short="Gate")


def side_by_side(findings: Findings) -> Section | None:
    """Challenger and champion, metric by metric."""
    beside = findings.measured.side_by_side
    if beside is None:
        return None
    rows = []
    for name, title in NAMES.items():
        new, old = beside.challenger[name], beside.champion[name]
        bounds = beside.difference.get(name)
        shares = name not in ("log_loss", "brier")
        change = points(new - old) if shares else f"{new - old:+.3f}".replace("-", "−")
        told = html.NOT_KNOWN
        if bounds is not None:
            low, high = bounds
            told = (
                f"{points(low)} to {points(high)}"
                if shares
                else f"{low:+.3f} to {high:+.3f}".replace("-", "−")
            )
        show = percent if shares else _number
        rows.append((title, show(new), show(old), _judged(change, bounds, name), told))
    table = html.table(
        [
            "",
            Column("this model", number=True),
            Column("champion", number=True),
            Column("change", number=True),
            Column("interval of the change", number=True),
        ],
        rows,
    )
    bars = [
        charts.Bar(row.name, row.recall, row.recall_interval, _champion_recall(findings, position))
        for position, row in enumerate(findings.measured.classes)
        if row.support
    ]
    parts = [table]
    if len(bars) <= CHART_CLASSES:
        low = charts.nice_floor(
            min([b.value for b in bars] + [b.other for b in bars if b.other is not None])
        )
        chart = charts.bar_chart("Recall by class", bars, x=(low, 1.0), marks="champion")
        parts += [html.heading("Recall by class"), chart]
    intro = (
        "Both on the same images; intervals are of the paired difference. A coloured change is "
        "beyond chance. Changes of shares are in percentage points."
    )
    return Section(
        "This model and the champion", html.join(parts), "champion", intro, short="Champion"
    )


def calibration(findings: Findings) -> Section:
    """The reliability diagram, and what the temperature did."""
    measured = findings.measured
    after, before = measured.reliability, measured.reliability_before
    total = sum(after.count) or 1
    diagram = charts.reliability_diagram(
        "Reliability diagram: how often the model is right, by how sure it is",
        after.confidence,
        after.accuracy,
        [count / total for count in after.count],
        intervals=[
            share_interval(round(accuracy * count), count, findings.settings.evaluation.confidence)
            for accuracy, count in zip(after.accuracy, after.count, strict=True)
        ],
        before=list(zip(before.confidence, before.accuracy, strict=True)),
    )
    temperature = findings.classifier.temperature
    told = "less sure" if temperature > 1 else "surer"
    rows = [
        ("before", percent(measured.uncalibrated_ece)),
        ("after", percent(measured.figures["ece"])),
        ("a perfect model stays below", percent(measured.ece_noise)),
    ]
    text = html.join(
        [
            html.paragraph(
                f"Temperature {temperature:.3f}, fitted on the validation images: the model's "
                f"probabilities were made {told}. Labels do not change by it."
            ),
            html.table(["calibration error (ECE)", Column("test images", number=True)], rows),
            html.paragraph(
                "A dot on the dotted line is right as often as the model says. Larger dots: "
                "more images. Strokes: exact intervals. Even a perfect model errs "
                "a little on a finite number of images.",
                "quiet",
            ),
        ]
    )
    return Section("Calibration", html.columns(diagram, text), "calibration")


def classes(findings: Findings) -> Section:
    """One row a class."""
    rows = [
        (
            row.name,
            Cell(f"{row.support:,}", row.support),
            Cell(f"{row.predicted:,}", row.predicted),
            Cell(percent(row.precision), row.precision),
            Cell(percent(row.recall), row.recall),
            Cell(interval(row.recall_interval) if row.support else html.NOT_KNOWN),
            Cell(percent(row.f1), row.f1),
            Cell(_number(row.roc_auc), row.roc_auc),
            Cell(_number(row.average_precision), row.average_precision),
        )
        for row in findings.measured.classes
    ]
    heads = [
        "images",
        "given",
        "precision",
        "recall",
        "interval of the recall",
        "F1",
        "ROC area",
        "average precision",
    ]
    table = html.table(
        ["class", *(Column(head, number=True) for head in heads)], rows, sortable=True
    )
    missing = [row.name for row in findings.measured.classes if not row.support]
    parts = [table]
    if missing:
        told = ", ".join(missing[:10]) + (f" and {len(missing) - 10:,} more" * (len(missing) > 10))
        parts.append(html.paragraph(f"Without test images: {told}.", "note warn"))
    intro = "Click a heading to sort. Intervals are exact (Clopper and Pearson)."
    return Section("Classes", html.join(parts), "classes", intro)


def slices(findings: Findings) -> Section | None:
    """Parts of the test split that a mean may hide."""
    rows = findings.measured.slices
    warnings = [html.paragraph(note, "note warn") for note in findings.notes]
    if not rows:
        return Section("Slices", html.join(warnings), "slices") if warnings else None
    beside = findings.test.champion is not None
    heads: list[Column | str] = ["cut by", "part"]
    heads += [Column(name, number=True) for name in ("images", "accuracy", "interval")]
    if beside:
        heads.append(Column("champion", number=True))
    accuracy = findings.measured.figures["accuracy"]
    body = []
    for row in rows:
        low = row.interval[1] < accuracy
        shown = html.chip(percent(row.accuracy), "warn") if low else percent(row.accuracy)
        cells: list[Cell | html.Text] = [row.column, row.value]
        cells += [Cell(f"{row.images:,}", row.images), Cell(shown, row.accuracy)]
        cells.append(interval(row.interval))
        if beside:
            cells.append(Cell(percent(row.champion), row.champion))
        body.append(cells)
    intro = (
        f"Accuracy on parts of the test split; overall it is {percent(accuracy)}. A marked part is "
        "below that beyond chance. Sizes and brightness are cut in thirds."
    )
    table = html.table(heads, body, sortable=True)
    return Section("Slices", html.join([*warnings, table]), "slices", intro)


def robustness(findings: Findings) -> Section | None:
    """Accuracy on corrupted images."""
    found = findings.robustness
    if found is None:
        return None
    body = []
    for name, levels, accuracy, bounds in found.rows:
        cells: list[Cell | html.Text] = [name]
        for value, (_, high) in zip(accuracy, bounds, strict=True):
            kind = "bad" if high < found.clean - 0.1 else "warn" if high < found.clean else ""
            shown = html.chip(percent(value, 0), kind) if kind else percent(value, 0)
            cells.append(Cell(shown, value))
        cells += [Cell(points(sum(accuracy) / 3 - found.clean, 0))]
        cells.append(Markup('<span class="name">{}</span>').format(levels))
        body.append(cells)
    table = html.table(
        [
            "corruption",
            *(Column(name, number=True) for name in STRENGTHS),
            Column("mean loss", number=True),
            "levels",
        ],
        body,
        sortable=True,
    )
    intro = (
        f"The same {found.images:,} test images ({percent(found.clean, 0)} right as they are), "
        f"corrupted at three strengths; on average {percent(found.mean, 0)} are still right. "
        "Marked: a loss beyond chance, red beyond 10 points."
    )
    return Section("Robustness", table, "robustness", intro)


def abstaining(findings: Findings) -> Section:
    """Not answering: the unsure, and images of no class."""
    measured, none = findings.measured, findings.ood
    curve = measured.coverage.curve
    low = charts.nice_floor(min((y for _, y in curve), default=0.0))
    chart = charts.line_chart(
        "Accuracy on the images that are answered, by the share that is answered",
        [charts.Series("this model", curve)],
        y=(low, 1.0),
        x_title="share of the images answered, the surest first",
        y_title="accuracy on those",
    )
    parts = [html.heading("Only when sure")]
    if measured.coverage.at:
        rows = [
            (percent(target), f"{threshold:.4f}", percent(share))
            for target, threshold, share in measured.coverage.at
        ]
        parts.append(
            html.table(
                [
                    Column("for an accuracy of", number=True),
                    Column("confidence from", number=True),
                    Column("share answered", number=True),
                ],
                rows,
            )
        )
        parts.append(
            html.paragraph(
                "These thresholds come from these test images: check one on new images before "
                "relying on it.",
                "quiet",
            )
        )
    else:
        parts.append(html.paragraph("Abstaining reaches none of the usual targets.", "quiet"))
    if none is not None:
        parts += [
            html.heading("Unlike the training images"),
            html.paragraph(
                f"An image farther than {none.distance:.3f} from every class mean ("
                f"{percent(1 - none.quantile, 0)} of the validation images, "
                f"{percent(none.refused)} of the test images) is of no class that the model "
                "knows."
            ),
        ]
        if not math.isnan(none.unseen_auc):
            parts.append(
                html.paragraph(
                    "Had each class in turn been unknown, this distance would tell its images "
                    f"from the others with an area under the ROC curve of {none.unseen_auc:.3f}, "
                    f"and the threshold would refuse {percent(none.unseen_refused, 0)} of them."
                )
            )
    return Section(
        "When not to answer",
        html.columns(chart, html.join(parts)),
        "abstaining",
        short="Abstaining",
    )


def _champion_recall(findings: Findings, index: int) -> float | None:
    champion = findings.test.champion
    if champion is None:
        return None
    mask = champion.comparable & (findings.test.labels == index)
    return float((champion.predicted[mask] == index).mean()) if mask.any() else None


def _judged(text: str, bounds: list[float] | None, name: str) -> html.Text:
    if bounds is None or bounds[0] <= 0 <= bounds[1]:
        return text
    better = (bounds[0] > 0) != (name in LOWER_IS_BETTER)
    return html.chip(text, "good" if better else "bad")


def _number(value: float) -> str:
    return html.NOT_KNOWN if math.isnan(value) else f"{value:.3f}"


def _bounds(bounds: list[float]) -> str:
    return f"{bounds[0]:.3f} – {bounds[1]:.3f}"

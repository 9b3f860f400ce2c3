"""The evaluation's page: the verdict first, then what it rests on."""

from markupsafe import Markup

from graftline.records.decision import Decision
from graftline.reports import html
from graftline.reports.html import Cell, Column, Section, percent
from graftline.steps.evaluate import page_errors, page_figures
from graftline.steps.evaluate.results import Findings

SET_ASIDE_ROWS = 50


def render(findings: Findings) -> str:
    """The page as one HTML document."""
    snapshot, classifier = findings.test.snapshot, findings.classifier
    sections = [
        page_figures.overview(findings),
        page_figures.gate(findings),
        page_figures.side_by_side(findings),
        page_errors.confusion(findings),
        page_errors.mistakes(findings),
        page_errors.changes(findings),
        page_figures.calibration(findings),
        page_figures.classes(findings),
        page_figures.slices(findings),
        page_figures.robustness(findings),
        page_figures.abstaining(findings),
        decision(findings.decision),
        data(findings),
        model(findings),
    ]
    lead = (
        f"{classifier.backbone.spec.architecture}, {classifier.strategy.replace('_', '-')}, on "
        f"{len(findings.test.labels):,} test images of {len(snapshot.classes):,} classes."
    )
    return html.html_page(
        f"Evaluation of {findings.name}",
        [section for section in sections if section is not None],
        kicker="Graftline evaluation",
        lead=lead,
        banner=banner(findings),
        footer=f"snapshot {snapshot.id}",
        styles=[html.asset("confusion.css", "graftline.steps.evaluate")],
        scripts=[html.asset("confusion.js", "graftline.steps.evaluate")],
        data=[page_errors.confusion_data(findings)],
    )


def banner(findings: Findings) -> Markup:
    """The verdict and its reasons."""
    verdict = findings.verdict
    if not verdict.promote:
        failed = sum(not test.passed for test in verdict.tests)
        headline = f"Not promoted: {failed} of {len(verdict.tests)} tests failed"
        return html.banner("bad", headline, verdict.reasons)
    if verdict.first_model:
        headline = f"Promoted as the first champion: all {len(verdict.tests)} tests passed"
    else:
        headline = f"Promoted over version {verdict.champion_version}: all tests passed"
    return html.banner("good", headline, verdict.reasons)


def decision(record: Decision | None) -> Section | None:
    """Why this strategy."""
    if record is None:
        return None
    asked = "as the run file asks" if record.strategy != "auto" else "chosen by measuring"
    cards = html.cards(
        [
            ("Strategy", record.choice.replace("_", "-"), asked),
            ("The data are", record.cell, "by images per class and by the frozen features"),
            ("The usual guide says", record.advice or html.NOT_KNOWN, ""),
        ]
    )
    parts = [cards, html.bullets(record.reasons), html.bullets(record.notes)]
    if record.outcome is not None:
        kind = "good" if record.outcome.agreed else "warn"
        label = "the measurement agreed" if record.outcome.agreed else "the measurement disagreed"
        parts.append(Markup("<p>{} {}</p>").format(html.chip(label, kind), record.outcome.sentence))
    figures = [
        (name.replace("_", " "), _plain(value))
        for name, value in record.figures.items()
        if isinstance(value, int | float | str)
    ]
    if figures:
        table = html.table(["what was measured", Column("figure", number=True)], figures)
        parts.append(html.folded("All figures of the decision", table))
    return Section("How the strategy was chosen", html.join(parts), "decision", short="Strategy")


def data(findings: Findings) -> Section:
    """The snapshot, and what is not in it."""
    snapshot = findings.test.snapshot
    counts = {split: len(snapshot.rows(split)) for split in ("train", "val", "test")}
    cards = html.cards(
        [
            (f"{split} images", f"{count:,}", percent(count / max(1, len(snapshot))))
            for split, count in counts.items()
        ]
        + [("classes", f"{len(snapshot.classes):,}", "")]
    )
    parts = [cards]
    aside = snapshot.set_aside.to_pylist()
    if aside:
        by_reason: dict[str, int] = {}
        for row in aside:
            by_reason[str(row["reason"])] = by_reason.get(str(row["reason"]), 0) + 1
        ordered = sorted(by_reason.items(), key=lambda item: -item[1])
        parts += [
            html.heading(f"Rejected at ingest: {len(aside):,}"),
            html.table(
                ["reason", Column("files", number=True)],
                [(reason, Cell(f"{count:,}", count)) for reason, count in ordered],
            ),
            html.folded(
                f"The first {min(len(aside), SET_ASIDE_ROWS)} of them",
                html.table(
                    ["file", "label", "reason", "detail"],
                    [
                        [_text(row[key]) for key in ("source", "label", "reason", "detail")]
                        for row in aside[:SET_ASIDE_ROWS]
                    ],
                ),
            ),
        ]
    else:
        parts.append(html.paragraph("Nothing was rejected at ingest.", "quiet"))
    parts.append(
        html.table(
            ["the snapshot", ""],
            [
                ("id", html.code(snapshot.id)),
                ("source", html.code(snapshot.source)),
                ("store", html.code(snapshot.store)),
                ("taken", snapshot.created),
            ],
        )
    )
    return Section("The data", html.join(parts), "data", short="Data")


def model(findings: Findings) -> Section:
    """What the classifier is made of."""
    classifier = findings.classifier
    spec, preparation = classifier.backbone.spec, classifier.preprocessing
    rows = [
        ("backbone", html.code(spec.name)),
        ("parameters", f"{spec.parameters:,}, and {spec.feature_dim:,} features"),
        ("strategy", classifier.strategy.replace("_", "-")),
        ("temperature", f"{classifier.temperature:.4f}"),
        (
            "preprocessing",
            f"shorter side to {preparation.resize_size} pixels ({preparation.interpolation}), "
            f"{preparation.crop_mode} to {preparation.input_size} x {preparation.input_size}",
        ),
        ("mean, standard deviation", f"{_tuple(preparation.mean)}; {_tuple(preparation.std)}"),
        ("backbone fingerprint", html.code(classifier.backbone_fingerprint)),
    ]
    return Section("The model", html.table(["", ""], rows), "model", short="Model")


def _plain(value: float | str) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    return f"{value:,.4g}" if isinstance(value, float) else str(value)


def _text(value: object) -> str:
    return "" if value is None else str(value)


def _tuple(values: tuple[float, float, float]) -> str:
    return ", ".join(f"{value:.4g}" for value in values)

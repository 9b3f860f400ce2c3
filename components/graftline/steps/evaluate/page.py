"""The evaluation's page: the verdict first, then what it rests on."""

from collections import Counter
from typing import Any

from graftline.records.decision import Decision
from graftline.reports.html import NOT_KNOWN, Cell, percent, render_page
from graftline.reports.training_curves import accuracy_chart, epoch_rows
from graftline.steps.evaluate import page_errors, page_figures
from graftline.steps.evaluate.results import Findings
from graftline.steps.run_page import run_page

REJECTED_ROWS = 50


def render(findings: Findings) -> str:
    """The page as one HTML document."""
    snapshot, classifier, run = findings.test.snapshot, findings.classifier, run_page()
    return render_page(
        "evaluation.html",
        f"Evaluation of {findings.name}",
        package="graftline.steps.evaluate",
        facts=run.facts,
        run=run,
        styles=["confusion.css"],
        scripts=["confusion.js"],
        data=[page_errors.confusion_data(findings)],
        kicker="Graftline evaluation",
        lead=f"{classifier.backbone.spec.architecture}, {classifier.strategy.replace('_', '-')}, "
        f"on {len(findings.test.labels):,} test images of {len(snapshot.classes):,} classes.",
        footer=f"snapshot {snapshot.id}",
        verdict=findings.verdict,
        failed=sum(not test.passed for test in findings.verdict.tests),
        notes=findings.notes,
        decision=_decision(findings.decision),
        rejected=_rejected(findings),
        snapshot=snapshot,
        splits=_splits(findings),
        model=_model(findings),
        **page_figures.values(findings),
        **page_errors.values(findings),
    )


def _decision(record: Decision | None) -> dict[str, Any] | None:
    """Why this strategy."""
    if record is None:
        return None
    asked = "as the run file asks" if record.strategy != "auto" else "chosen by measuring"
    if record.outcome is not None and record.outcome.used != record.choice:
        asked += f"; in the end the {record.outcome.used.replace('_', '-')} is used"
    return {
        "record": record,
        "cards": [
            ("Strategy", record.choice.replace("_", "-"), asked),
            ("The data are", record.cell, "by images per class and by the frozen features"),
            ("The usual guide says", record.advice or NOT_KNOWN, ""),
        ],
        "figures": [
            (name.replace("_", " "), _plain(value))
            for name, value in record.figures.items()
            if isinstance(value, int | float | str)
        ],
        **_training(record),
    }


def _training(record: Decision) -> dict[str, Any]:
    """The curves of the training that followed, if there was one."""
    outcome = record.outcome
    if outcome is None or not outcome.history:
        return {}
    return {
        "curves": accuracy_chart(outcome.history, outcome.probe_accuracy),
        "epochs": epoch_rows(outcome.history, outcome.best_epoch),
    }


def _splits(findings: Findings) -> list[tuple[str, str, str]]:
    snapshot = findings.test.snapshot
    counts = {split: len(snapshot.rows(split)) for split in ("train", "val", "test")}
    return [
        *(
            (f"{split} images", f"{count:,}", percent(count / max(1, len(snapshot))))
            for split, count in counts.items()
        ),
        ("classes", f"{len(snapshot.classes):,}", ""),
    ]


def _rejected(findings: Findings) -> dict[str, Any]:
    """What is not in the snapshot: counts by reason, and the first files."""
    rows = findings.test.snapshot.set_aside.to_pylist()
    reasons = Counter(str(row["reason"]) for row in rows).most_common()
    keys = ("source", "label", "reason", "detail")
    return {
        "total": len(rows),
        "reasons": [(reason, Cell(f"{count:,}", count)) for reason, count in reasons],
        "files": [
            ["" if row[key] is None else str(row[key]) for key in keys]
            for row in rows[:REJECTED_ROWS]
        ],
    }


def _model(findings: Findings) -> list[tuple[str, Cell | str]]:
    """What the classifier is made of."""
    classifier = findings.classifier
    spec, preparation = classifier.backbone.spec, classifier.preprocessing
    return [
        ("backbone", Cell(spec.name, code=True)),
        ("parameters", f"{spec.parameters:,}, and {spec.feature_dim:,} features"),
        ("strategy", classifier.strategy.replace("_", "-")),
        ("temperature", f"{classifier.temperature:.4f}"),
        (
            "preprocessing",
            f"shorter side to {preparation.resize_size} pixels ({preparation.interpolation}), "
            f"{preparation.crop_mode} to {preparation.input_size} x {preparation.input_size}",
        ),
        ("mean, standard deviation", f"{_tuple(preparation.mean)}; {_tuple(preparation.std)}"),
        ("backbone fingerprint", Cell(classifier.backbone_fingerprint, code=True)),
    ]


def _plain(value: float | str) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    return f"{value:,.4g}" if isinstance(value, float) else str(value)


def _tuple(values: tuple[float, float, float]) -> str:
    return ", ".join(f"{value:.4g}" for value in values)

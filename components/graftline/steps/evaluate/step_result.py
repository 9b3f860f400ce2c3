"""What the step hands on: to the tracking run, to KFP's page and to the command line."""

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from graftline.steps.evaluate.figures import plain, test_figures
from graftline.steps.evaluate.metrics import ClassFigures, roc_with_thresholds
from graftline.steps.evaluate.results import Findings
from graftline.steps.runtime import StepResult

KFP_CLASSES = 50  # the most that KFP's confusion matrix is given


@dataclass(frozen=True, kw_only=True)
class EvaluateResult(StepResult):
    """What the evaluation found.

    Attributes:
        test: Figures on the test split, each with its interval where it has one.
        verdict: Whether to promote, and why.
        temperature: What the logits are divided by.
        compared: Challenger and champion on the same images; empty without a champion.
        class_figures: Precision, recall, F1 and number of test images by class; null where one is
            not defined.
        robustness: Mean accuracy on corrupted images; None where it was not measured.
        confusion: Classes and counts for KFP's page; empty beyond :data:`KFP_CLASSES` classes.
        roc: False positive rate, true positive rate and threshold, of all classes together.
        report_file: The page.
        verdict_file: The verdict.
    """

    test: dict[str, Any]
    verdict: dict[str, Any]
    temperature: float
    compared: dict[str, Any]
    class_figures: dict[str, dict[str, float | None]]
    robustness: float | None
    confusion: dict[str, Any]
    roc: list[tuple[float, float, float]]
    report_file: Path
    verdict_file: Path

    def metrics(self) -> dict[str, float]:
        """Figures for the tracking run."""
        single = {k: float(v) for k, v in self.test.items() if isinstance(v, int | float)}
        single["temperature"] = self.temperature
        single["promote"] = float(self.verdict["promote"])
        if self.robustness is not None:
            single["robustness"] = self.robustness
        if self.compared:
            single["champion_accuracy"] = float(self.compared["champion"]["accuracy"])
        return single

    def files(self) -> dict[str, Path]:
        """The page and the verdict."""
        return {
            "evaluation/report.html": self.report_file,
            "evaluation/verdict.json": self.verdict_file,
        }


def step_result(findings: Findings, report_file: Path, verdict_file: Path) -> EvaluateResult:
    """The result of the step from all that was found."""
    figures, verdict, test = findings.measured, findings.verdict, findings.test
    classes = test.snapshot.classes
    confusion = {"classes": list(classes), "counts": figures.confusion.tolist()}
    return EvaluateResult(
        test=test_figures(figures),
        verdict={
            "promote": verdict.promote,
            "reasons": verdict.reasons,
            "tests": [dataclasses.asdict(test) for test in verdict.tests],
            "champion": verdict.champion_version,
        },
        temperature=test.temperature,
        compared=_compared(findings),
        class_figures={row.name: _class_figures(row) for row in figures.classes},
        robustness=findings.robustness.mean if findings.robustness else None,
        confusion=confusion if len(classes) <= KFP_CLASSES else {},
        roc=roc_with_thresholds(test.probabilities, test.labels),
        report_file=report_file,
        verdict_file=verdict_file,
    )


def _compared(findings: Findings) -> dict[str, Any]:
    beside = findings.measured.side_by_side
    if beside is None:
        return {}
    return {
        "challenger": plain(beside.challenger),
        "champion": plain(beside.champion),
        "images": findings.verdict.compared_images,
        "left_out": findings.verdict.left_out,
    }


def _class_figures(row: ClassFigures) -> dict[str, float | None]:
    return plain(
        {
            "precision": row.precision,
            "recall": row.recall,
            "f1": row.f1,
            "images": float(row.support),
        }
    )

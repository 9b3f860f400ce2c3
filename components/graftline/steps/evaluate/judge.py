"""From the answers to the figures, and from the figures to the verdict."""

from collections.abc import Mapping
from typing import Any

from numpy.typing import NDArray

from graftline.progress import explain, message
from graftline.records.verdict import GateTest, Verdict
from graftline.steps.evaluate import gate, pictures, slices
from graftline.steps.evaluate.answers import CalibratedAnswers
from graftline.steps.evaluate.config import EvaluateConfig
from graftline.steps.evaluate.figures import evidence_of, measured, plain, test_figures
from graftline.steps.evaluate.results import Measured

BRIGHTNESS_IMAGES = 2000  # test images that are decoded to know how bright they are

Columns = Mapping[str, NDArray[Any]]


def judge(test: CalibratedAnswers, settings: EvaluateConfig) -> tuple[Measured, Verdict, list[str]]:
    """The figures, the verdict, and the warnings about wide and upright images."""
    brightness = pictures.brightness(test.inference, test.rows, BRIGHTNESS_IMAGES)
    columns = slices.columns_of(test.snapshot, test.rows, brightness)
    guarded, empty = slices.guarded(settings.gate.slices, columns)
    found = _slices(test, columns, settings.evaluation.confidence)
    notes = _shape_warnings(test, columns, settings.evaluation.confidence)
    figures = measured(test, found, settings.evaluation, settings.seed)
    tests = gate.decide(evidence_of(test, guarded, figures), settings.gate, settings.seed)
    if empty:
        named = ", ".join(repr(name) for name in empty[:5])
        reason = f"gate.slices guards {named}, of which there are no test images."
        tests.append(GateTest(name="slices_present", passed=False, reason=reason))
    verdict = _verdict(tests, test, figures, notes)
    explain("%s: %s", "promote" if verdict.promote else "do not promote", verdict.reasons[0])
    return figures, verdict, notes


def _slices(
    test: CalibratedAnswers, columns: Columns, confidence: float
) -> list[slices.SliceFigures]:
    """Accuracy of each slice that says something, the champion's beside it."""
    champion = test.champion
    return slices.figures(
        slices.interesting(columns, test.labels),
        test.right,
        confidence,
        None if champion is None else champion.predicted == test.labels,
        None if champion is None else champion.comparable,
    )


def _shape_warnings(test: CalibratedAnswers, columns: Columns, confidence: float) -> list[str]:
    """What is said of wide and upright images, in the log, the verdict and the page."""
    preprocessing, rows = test.inference.classifier.preprocessing, test.rows
    heights, widths = test.snapshot.column("height")[rows], test.snapshot.column("width")[rows]
    seen = preprocessing.share_seen(heights, widths)
    shapes = columns[slices.SHAPE]
    warnings = slices.shape_warnings(shapes, test.right, seen, preprocessing.fit, confidence)
    for sentence in warnings:
        message("Warning: %s", sentence)
    return warnings


def _verdict(
    tests: list[GateTest], test: CalibratedAnswers, figures: Measured, notes: list[str]
) -> Verdict:
    champion = test.champion
    failed = [each for each in tests if not each.passed]
    beside = figures.side_by_side
    return Verdict(
        promote=not failed,
        reasons=[each.reason for each in failed or tests],
        tests=tests,
        snapshot_id=test.snapshot.id,
        champion_name=champion.name if champion else None,
        champion_version=champion.version if champion else None,
        champion_digest=champion.digest if champion else None,
        champion_snapshot_id=champion.snapshot_id if champion else None,
        compared_images=int(champion.comparable.sum()) if champion else len(test.rows),
        left_out=champion.left_out if champion else {},
        notes=[*(champion.notes if champion else []), *notes],
        figures={
            "test": test_figures(figures),
            "challenger": plain(beside.challenger) if beside else {},
            "champion": plain(beside.champion) if beside else {},
            "difference_intervals": beside.difference if beside else {},
        },
    )

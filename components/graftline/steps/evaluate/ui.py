"""Fills KFP's own artifact types, so that its pages draw the figures."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from graftline.steps.evaluate.step_result import EvaluateResult


def fill_metrics(metrics: Any, result: "EvaluateResult") -> None:
    """Key figures into a ``dsl.Metrics``."""
    for name, value in result.metrics().items():
        metrics.log_metric(name, value)


def fill_classification(classification: Any, result: "EvaluateResult") -> None:
    """The confusion matrix and the ROC curve into ``dsl.ClassificationMetrics``.

    KFP keeps both in the artifact's metadata, so large matrices are left to the report.
    """
    if result.confusion:
        classification.log_confusion_matrix(result.confusion["classes"], result.confusion["counts"])
    if result.roc:
        false_rate, true_rate, thresholds = zip(*result.roc, strict=True)
        classification.log_roc_curve(list(false_rate), list(true_rate), list(thresholds))

"""KFP signature of the step ``evaluate``."""

from typing import NamedTuple

from kfp.dsl import HTML, Artifact, ClassificationMetrics, Dataset, Input, Metrics, Model, Output


def evaluate(
    snapshot: Input[Dataset],
    features: Input[Dataset],
    classifier: Input[Model],
    decision: Input[Artifact],
    store: str,
    config: str,
    tracking: str,
    tracking_run: str,
    calibrated: Output[Model],
    verdict: Output[Artifact],
    report: Output[HTML],
    metrics: Output[Metrics],
    classification: Output[ClassificationMetrics],
    pipeline_run: str = "",
) -> NamedTuple("Outputs", [("promote", bool)]):  # type: ignore[valid-type]
    """Measure the classifier on the test split, compare it with the champion, give the verdict."""
    import json
    from pathlib import Path
    from typing import NamedTuple

    from graftline.steps.evaluate.step import run
    from graftline.steps.evaluate.ui import fill_classification, fill_metrics
    from graftline.steps.runtime import step
    from graftline.tracking.mlflow_run import log_result

    where = json.loads(tracking)
    with step("evaluate", store, pipeline_run) as recorder:
        result = run(
            snapshot_folder=Path(snapshot.path),
            features_folder=Path(features.path),
            classifier_folder=Path(classifier.path),
            decision_file=Path(decision.path),
            store=store,
            tracking_uri=where.get("uri") or "",
            registered_model=where.get("registered_model") or "",
            calibrated_folder=Path(calibrated.path),
            verdict_file=Path(verdict.path),
            report_file=Path(report.path),
            **json.loads(config),
        )
        recorder.record(result)
        fill_metrics(metrics, result)
        fill_classification(classification, result)
        log_result(where.get("uri") or "", tracking_run, "evaluate", result)
    Outputs = NamedTuple("Outputs", [("promote", bool)])
    return Outputs(promote=result.verdict["promote"])

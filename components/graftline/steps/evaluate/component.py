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
    from typing import NamedTuple

    from graftline.steps.evaluate.same_model import as_champion, champion_state, current_champion
    from graftline.steps.evaluate.ui import fill_classification, fill_metrics
    from graftline.steps.reuse import paths, reuse_or_run
    from graftline.steps.runtime import step
    from graftline.tracking.mlflow_run import log_result

    where = json.loads(tracking)
    registry, name = where.get("uri") or "", where.get("registered_model") or ""
    with step("evaluate", store, pipeline_run, tracking, tracking_run) as recorder:
        champion = current_champion(registry, name)
        result = reuse_or_run(
            "evaluate",
            store,
            pipeline_run,
            inputs=paths(
                snapshot_folder=snapshot,
                features_folder=features,
                classifier_folder=classifier,
                decision_file=decision,
            ),
            outputs=paths(calibrated_folder=calibrated, verdict_file=verdict, report_file=report),
            settings={**json.loads(config), "registered_model": name},
            given={"store": store, "tracking_uri": registry},
            state=champion_state(champion),
            adapt=as_champion(champion),
        )
        recorder.record(result)
        fill_metrics(metrics, result)
        fill_classification(classification, result)
        log_result(registry, tracking_run, "evaluate", result)
    Outputs = NamedTuple("Outputs", [("promote", bool)])
    return Outputs(promote=result.verdict["promote"])

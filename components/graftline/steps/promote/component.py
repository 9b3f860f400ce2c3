"""KFP signature of the step ``promote``."""

from kfp.dsl import HTML, Artifact, Dataset, Input, Model


def promote(
    snapshot: Input[Dataset],
    classifier: Input[Model],
    model: Input[Model],
    verdict: Input[Artifact],
    report: Input[HTML],
    store: str,
    config: str,
    tracking: str,
    tracking_run: str,
    pipeline_run: str = "",
) -> None:
    """Register the model with its evidence; move the champion's alias on a passed verdict."""
    import json
    from pathlib import Path

    from graftline.steps.promote.step import run
    from graftline.steps.runtime import step
    from graftline.tracking.mlflow_run import log_result, open_tracking

    with step("promote", store, pipeline_run) as recorder:
        mlflow = json.loads(tracking)
        result = run(
            snapshot_folder=Path(snapshot.path),
            classifier_folder=Path(classifier.path),
            onnx_folder=Path(model.path),
            verdict_file=Path(verdict.path),
            report_file=Path(report.path),
            store=store,
            tracking_uri=mlflow["uri"],
            tracking_run_id=tracking_run,
            registered_model=mlflow["registered_model"],
            **json.loads(config),
        )
        recorder.record(result)
        log_result(mlflow["uri"], tracking_run, "promote", result)
        open_tracking(mlflow["uri"], tracking_run, best_effort=True).finish()

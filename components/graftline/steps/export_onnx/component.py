"""KFP signature of the step ``export_onnx``."""

from kfp.dsl import Dataset, Input, Model, Output


def export_onnx(
    snapshot: Input[Dataset],
    classifier: Input[Model],
    store: str,
    config: str,
    tracking: str,
    tracking_run: str,
    model: Output[Model],
    pipeline_run: str = "",
) -> None:
    """Write the classifier as one ONNX file, and prove it equal on every test image.

    Args:
        snapshot: The dataset snapshot.
        classifier: The calibrated classifier.
        store: URI of the store.
        config: Settings of the export, as JSON.
        tracking: Where MLflow is, as JSON.
        tracking_run: The run that all steps join.
        model: The folder of the ONNX file.
        pipeline_run: Id of the pipeline run.
    """
    import json

    from graftline.steps.reuse import paths, reuse_or_run
    from graftline.steps.runtime import step
    from graftline.tracking.mlflow_run import log_result

    with step("export_onnx", store, pipeline_run) as recorder:
        result = reuse_or_run(
            "export_onnx",
            store,
            pipeline_run,
            inputs=paths(classifier_folder=classifier, snapshot_folder=snapshot),
            outputs=paths(onnx_folder=model),
            settings=json.loads(config),
            given={"store": store, "run_id": tracking_run},
        )
        model.metadata["sha256"] = result.sha256
        model.metadata["opset"] = str(result.opset)
        model.metadata["framework"] = "onnx"
        recorder.record(result)
        log_result(json.loads(tracking)["uri"], tracking_run, "export_onnx", result)

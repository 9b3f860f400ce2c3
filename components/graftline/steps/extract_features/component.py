"""The KFP interface of extract_features, where one task does it all."""

from typing import NamedTuple

from kfp.dsl import Dataset, Input, Output


def extract_features(
    store: str,
    config: str,
    tracking: str,
    tracking_run: str,
    snapshot: Input[Dataset],
    features: Output[Dataset],
    pipeline_run: str = "",
) -> NamedTuple("Outputs", [("fingerprint", str), ("extracted", int)]):  # type: ignore[valid-type]
    """Compute the features that the store lacks and write them in manifest order.

    Args:
        store: URI of the store.
        config: Keyword arguments of the step, as JSON.
        tracking: Where MLflow is, as JSON.
        tracking_run: The MLflow run that all steps join.
        snapshot: The dataset snapshot.
        features: The matrix, one row an image.
        pipeline_run: Id of the pipeline run.

    Returns:
        The features' fingerprint, and how many images met the network.
    """
    import json
    from pathlib import Path
    from typing import NamedTuple

    from graftline.steps.extract_features.step import run
    from graftline.steps.runtime import step
    from graftline.tracking.mlflow_run import log_result

    with step("extract_features", store, pipeline_run) as recorder:
        result = run(
            snapshot_folder=Path(snapshot.path),
            features_folder=Path(features.path),
            store=store,
            **json.loads(config),
        )
        recorder.record(result)
        log_result(json.loads(tracking)["uri"], tracking_run, "extract_features", result)
    Outputs = NamedTuple("Outputs", [("fingerprint", str), ("extracted", int)])
    return Outputs(fingerprint=result.fingerprint, extracted=result.extracted)

"""The KFP interface of assemble_features: from the store to the artifact, after a fan-out."""

from typing import NamedTuple

from kfp.dsl import Dataset, Input, Output


def assemble_features(
    store: str,
    config: str,
    tracking: str,
    tracking_run: str,
    extracted: list,  # type: ignore[type-arg]
    snapshot: Input[Dataset],
    features: Output[Dataset],
    pipeline_run: str = "",
) -> NamedTuple("Outputs", [("fingerprint", str), ("extracted", int)]):  # type: ignore[valid-type]
    """Write the stored features in manifest order; what a worker left out is computed here.

    Args:
        store: URI of the store.
        config: Keyword arguments of extract_features, as JSON.
        tracking: Where MLflow is, as JSON.
        tracking_run: The MLflow run that all steps join.
        extracted: How many images each worker computed.
        snapshot: The dataset snapshot.
        features: The matrix, one row an image.
        pipeline_run: Id of the pipeline run.

    Returns:
        The features' fingerprint, and how many images met the network in all tasks.
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
            extracted_by_workers=sum(int(count) for count in extracted),
            **json.loads(config),
        )
        recorder.record(result)
        log_result(json.loads(tracking)["uri"], tracking_run, "extract_features", result)
    Outputs = NamedTuple("Outputs", [("fingerprint", str), ("extracted", int)])
    return Outputs(fingerprint=result.fingerprint, extracted=result.extracted)

"""The KFP interface of fit_head."""

from typing import NamedTuple

from kfp.dsl import HTML, Artifact, Dataset, Input, Model, Output


def fit_head(
    store: str,
    config: str,
    tracking: str,
    tracking_run: str,
    snapshot: Input[Dataset],
    features: Input[Dataset],
    classifier: Output[Model],
    decision: Output[Artifact],
    page: Output[HTML],
    pipeline_run: str = "",
) -> NamedTuple("Outputs", [("fine_tune", bool), ("strategy", str)]):  # type: ignore[valid-type]
    """Fit classifiers on frozen features and decide whether fine-tuning is worth a GPU.

    Args:
        store: URI of the store.
        config: Keyword arguments of the step, as JSON.
        tracking: Where MLflow is, as JSON.
        tracking_run: The MLflow run that all steps join.
        snapshot: The dataset snapshot.
        features: Features in manifest order.
        classifier: The fitted probe or head.
        decision: The decision record.
        page: What it says, for a person.
        pipeline_run: Id of the pipeline run.

    Returns:
        Whether to fine-tune, and the strategy chosen.
    """
    import json
    from typing import NamedTuple

    from graftline.steps.reuse import paths, reuse_or_run
    from graftline.steps.runtime import step
    from graftline.tracking.mlflow_run import log_result

    with step("fit_head", store, pipeline_run, tracking, tracking_run) as recorder:
        result = reuse_or_run(
            "fit_head",
            store,
            pipeline_run,
            inputs=paths(snapshot_folder=snapshot, features_folder=features),
            outputs=paths(classifier_folder=classifier, decision_file=decision, page_file=page),
            settings=json.loads(config),
            given={"store": store},
        )
        recorder.record(result)
        log_result(json.loads(tracking)["uri"], tracking_run, "fit_head", result)
    Outputs = NamedTuple("Outputs", [("fine_tune", bool), ("strategy", str)])
    return Outputs(fine_tune=result.fine_tune, strategy=result.strategy)

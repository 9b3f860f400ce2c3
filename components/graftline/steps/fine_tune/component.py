"""The KFP interface of fine_tune."""

from typing import NamedTuple

from kfp.dsl import HTML, Artifact, Dataset, Input, Model, Output


def fine_tune(
    store: str,
    config: str,
    tracking: str,
    tracking_run: str,
    snapshot: Input[Dataset],
    probe: Input[Model],
    probe_decision: Input[Artifact],
    probe_page: Input[HTML],
    classifier: Output[Model],
    decision: Output[Artifact],
    page: Output[HTML],
    pipeline_run: str = "",
) -> NamedTuple("Outputs", [("strategy", str)]):  # type: ignore[valid-type]
    """Train the upper blocks and the head; keep them only if they beat the probe.

    Args:
        store: URI of the store; checkpoints go straight to it.
        config: Keyword arguments of the step, as JSON.
        tracking: Where MLflow is, as JSON.
        tracking_run: The MLflow run that all steps join.
        snapshot: The dataset snapshot.
        probe: The classifier that fit_head wrote.
        probe_decision: The decision record that fit_head wrote.
        probe_page: What it says, for a person.
        classifier: The trained classifier, or the probe where it was not better.
        decision: The decision record with its outcome.
        page: The page with the outcome.
    """
    import json

    from graftline.steps.reuse import paths, reuse_or_run
    from graftline.steps.runtime import step
    from graftline.tracking.mlflow_run import log_result
    from graftline.tracking.system_metrics import watched

    uri, name = json.loads(tracking)["uri"], "fine_tune"
    with step(name, store, pipeline_run) as recorder, watched(uri, tracking_run, name) as curves:
        inputs = paths(snapshot_folder=snapshot, probe_folder=probe, decision_file=probe_decision)
        result = reuse_or_run(
            name,
            store,
            pipeline_run,
            inputs=inputs,
            outputs=paths(classifier_folder=classifier, decision_out=decision, page_file=page),
            settings=json.loads(config),
            given={"store": store, "on_epoch": curves, **paths(probe_page=probe_page)},
        )
        for figures in result.history if result.reused_from is not None else ():
            curves(figures)
        recorder.record(result)
        log_result(uri, tracking_run, name, result)
    return (result.strategy,)

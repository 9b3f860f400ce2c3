"""KFP signature of the step ``watch``."""

from kfp.dsl import HTML, Output


def watch(
    source: str,
    store: str,
    config: str,
    tracking: str,
    page: Output[HTML],
    pipeline_run: str = "",
    run_name: str = "",
    run_resource: str = "",
) -> bool:
    """Compare the source with the champion's data; decide whether training starts.

    It has one output parameter only: a condition on one of several, beside their task, is taken
    for false by KFP's local runner.
    """
    import json
    from pathlib import Path

    from graftline.records.retrain_notice import write_notice
    from graftline.records.run_records import shown_name
    from graftline.steps.runtime import step
    from graftline.steps.watch.step import run
    from graftline.tracking.dead_runs import close_lost
    from graftline.tracking.mlflow_run import log_result, open_tracking, start_run

    with step("watch", store, pipeline_run, tracking) as recorder:
        mlflow = json.loads(tracking)
        result = run(
            source=source,
            store=store,
            tracking_uri=mlflow["uri"],
            registered_model=mlflow["registered_model"],
            page_file=Path(page.path),
            **json.loads(config),
        )
        recorder.record(result)
        write_notice(store, mlflow["registered_model"], result.start, result.reasons, pipeline_run)
        close_lost(mlflow["uri"], mlflow["experiment"], store, pipeline_run)
        tags = {"graftline.kind": "watch", "graftline.start": str(result.start).lower()}
        name = f"{shown_name(run_name, run_resource)}-watch"
        watch_run = start_run(mlflow["uri"], f"{mlflow['experiment']}-watch", name, tags)
        log_result(mlflow["uri"], watch_run, "watch", result)
        open_tracking(mlflow["uri"], watch_run, best_effort=True).finish()
    page.metadata["reasons"] = " ".join(result.reasons)
    return result.start

"""KFP signature of the step ``notify``, the exit handler of the retraining pipeline."""

from kfp.dsl import PipelineTaskFinalStatus


def notify(
    store: str,
    config: str,
    tracking: str,
    status: PipelineTaskFinalStatus,
    pipeline_run: str = "",
    run_name: str = "",
    run_resource: str = "",
) -> None:
    """Tell a webhook how the retraining ended. Ends cleanly whatever happens."""
    import json
    import traceback

    from graftline.records.run_records import shown_name
    from graftline.steps.notify.step import Run, run
    from graftline.steps.runtime import step

    with step("notify") as recorder:
        try:
            mlflow, given = json.loads(tracking), json.loads(config)
            resource = run_resource or status.pipeline_job_resource_name or ""
            result = run(
                name=shown_name(run_name, resource),
                state=status.state,
                error=status.error_message or "",
                store=store,
                tracking_uri=mlflow["uri"],
                registered_model=mlflow["registered_model"],
                run=Run(pipeline_run, mlflow["experiment"], given.pop("ui", None)),
                **given,
            )
            recorder.record(result)
        except Exception:  # the run is over; a message that fails must not make it fail
            traceback.print_exc()

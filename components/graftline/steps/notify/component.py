"""KFP signature of the step ``notify``, the exit handler of the retraining pipeline."""

from kfp.dsl import PipelineTaskFinalStatus


def notify(store: str, config: str, tracking: str, status: PipelineTaskFinalStatus) -> None:
    """Tell a webhook how the retraining ended. Ends cleanly whatever happens."""
    import json
    import traceback

    from graftline.steps.notify.step import run
    from graftline.steps.runtime import step

    with step("notify") as recorder:
        try:
            mlflow = json.loads(tracking)
            result = run(
                name=mlflow["run_name"],
                state=status.state,
                error=status.error_message or "",
                store=store,
                tracking_uri=mlflow["uri"],
                registered_model=mlflow["registered_model"],
                **json.loads(config),
            )
            recorder.record(result)
        except Exception:  # the run is over; a message that fails must not make it fail
            traceback.print_exc()

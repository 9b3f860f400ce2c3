"""KFP signature of the step ``predict``."""

from kfp.dsl import Artifact, Output


def predict(
    source: str,
    output: str,
    version: str,
    store: str,
    config: str,
    tracking: str,
    answers: Output[Artifact],
    pipeline_run: str = "",
) -> None:
    """Classify the images of a bucket with a registered model; the table goes back to a bucket."""
    import json
    from pathlib import Path

    from graftline.errors import ConfigurationError
    from graftline.steps.predict.config import PredictConfig
    from graftline.steps.predict.step import run_registered
    from graftline.steps.runtime import step

    with step("predict", store, pipeline_run) as recorder:
        for name, given in (("source", source), ("output", output)):
            if not given:
                raise ConfigurationError(
                    f"predict.{name} is not set.",
                    fix=f"Set it in the run file, or submit with --param {name}=...",
                )
        mlflow = json.loads(tracking)
        result = run_registered(
            tracking_uri=mlflow["uri"],
            registered_model=mlflow["registered_model"],
            version=version,
            source=source,
            output=output,
            config=PredictConfig.model_validate_json(config),
        )
        recorder.record(result)
        # The table is where the user wants it; the artifact only says what came of it.
        summary = {"images": result.images, "failed": result.failed, "output": result.output}
        Path(answers.path).write_text(json.dumps(summary), encoding="utf-8")
        answers.metadata.update(summary)

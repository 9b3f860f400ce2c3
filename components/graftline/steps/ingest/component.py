"""The KFP signature of the step `ingest`."""

from typing import NamedTuple

from kfp.dsl import Dataset, Output


def ingest(
    source: str, store: str, config: str, tracking: str, snapshot: Output[Dataset]
) -> NamedTuple("Outputs", [("snapshot_id", str), ("tracking_run", str)]):  # type: ignore[valid-type]
    """Take a snapshot of the source and start the tracking run that all steps join.

    Args:
        source: Where the images are; a pipeline parameter.
        store: URI of the store.
        config: JSON of the arguments of `graftline.steps.ingest.step.run`.
        tracking: JSON with uri, experiment and run_name.
        snapshot: The snapshot's folder.

    Returns:
        The snapshot's id and the tracking run's.
    """
    import json
    from pathlib import Path

    from graftline.steps.ingest.step import run
    from graftline.steps.runtime import step
    from graftline.tracking.mlflow_run import log_result, start_run

    with step("ingest") as recorder:
        options = json.loads(tracking)
        tracking_run = start_run(
            options["uri"], options["experiment"], options["run_name"], options.get("tags", {})
        )
        result = run(
            source=source,
            store=store,
            snapshot_folder=Path(snapshot.path),
            **json.loads(config),
        )
        recorder.record(result)
        log_result(options["uri"], tracking_run, "ingest", result)
        snapshot.metadata["snapshot_id"] = result.snapshot_id
        snapshot.metadata["images"] = sum(result.images.values())
        return (result.snapshot_id, tracking_run)

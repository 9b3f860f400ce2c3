"""The KFP signature of the step `ingest`."""

from typing import NamedTuple

from kfp.dsl import HTML, Dataset, Output


def ingest(
    source: str,
    store: str,
    config: str,
    tracking: str,
    snapshot: Output[Dataset],
    page: Output[HTML],
    pipeline_run: str = "",
    run_name: str = "",
    run_resource: str = "",
) -> NamedTuple("Outputs", [("snapshot_id", str), ("tracking_run", str)]):  # type: ignore[valid-type]
    """Take a snapshot of the source and start the tracking run that all steps join.

    Args:
        source: Where the images are; a pipeline parameter.
        store: URI of the store.
        config: JSON of the arguments of `graftline.steps.ingest.step.run`.
        tracking: JSON with uri and experiment.
        snapshot: The snapshot's folder.
        page: What the snapshot holds, for a person.
        pipeline_run: Id of the pipeline run.
        run_name: The pipeline run's name; empty in a scheduled run.
        run_resource: Its name in Kubernetes.

    Returns:
        The snapshot's id and the tracking run's.
    """
    import json
    from pathlib import Path

    from graftline.records.run_records import shown_name
    from graftline.steps.ingest.step import run
    from graftline.steps.runtime import step
    from graftline.tracking.dead_runs import close_lost
    from graftline.tracking.mlflow_run import log_result, start_run
    from graftline.tracking.run_record import record_dataset, record_settings

    with step("ingest", store, pipeline_run, tracking) as recorder:
        options = json.loads(tracking)
        name = shown_name(run_name, run_resource)
        where = (options["uri"], options["experiment"])
        tracking_run = start_run(*where, name, options.get("tags", {}), pipeline_run=pipeline_run)
        recorder.tracking_run = tracking_run
        record_settings(options, tracking_run)
        close_lost(*where, store, pipeline_run)
        paths = {"snapshot_folder": Path(snapshot.path), "data_page": Path(page.path)}
        result = run(source=source, store=store, **paths, **json.loads(config))
        recorder.record(result)
        log_result(options["uri"], tracking_run, "ingest", result)
        record_dataset(options, tracking_run, source, result)
        snapshot.metadata["snapshot_id"] = result.snapshot_id
        snapshot.metadata["images"] = sum(result.images.values())
        return (result.snapshot_id, tracking_run)

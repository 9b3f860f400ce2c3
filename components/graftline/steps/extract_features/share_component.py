"""The KFP interface of extract_share: one worker of a fan-out."""

from kfp.dsl import Dataset, Input


def extract_share(
    store: str, config: str, share: str, snapshot: Input[Dataset], pipeline_run: str = ""
) -> int:
    """Compute one share of the features that the store lacks, into the store.

    Args:
        store: URI of the store.
        config: Keyword arguments of extract_features, as JSON.
        share: From plan_extraction.
        snapshot: The dataset snapshot.
        pipeline_run: Id of the pipeline run.

    Returns:
        How many images met the network.
    """
    import json
    from pathlib import Path

    from graftline.steps.extract_features.step import run
    from graftline.steps.runtime import step

    worker, _, workers = share.partition("/")
    with step(f"extract_share_{worker}", store, pipeline_run) as recorder:
        result = run(
            snapshot_folder=Path(snapshot.path),
            features_folder=None,
            store=store,
            worker=int(worker),
            workers=int(workers),
            **json.loads(config),
        )
        recorder.record(result)
    return result.extracted

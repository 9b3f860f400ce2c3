"""The KFP interface of plan_extraction: how many tasks the missing images are worth."""

from kfp.dsl import Dataset, Input


def plan_extraction(
    store: str, config: str, workers: int, snapshot: Input[Dataset], pipeline_run: str = ""
) -> list:  # type: ignore[type-arg]
    """Split the missing images over workers.

    Args:
        store: URI of the store.
        config: Keyword arguments of extract_features, as JSON.
        workers: The most shares there may be.
        snapshot: The dataset snapshot.
        pipeline_run: Id of the pipeline run.

    Returns:
        Shares for extract_share, never an empty list.
    """
    import json
    from pathlib import Path

    from graftline.steps.extract_features.step import plan
    from graftline.steps.runtime import step

    with step("plan_extraction", store, pipeline_run):
        asked = json.loads(config)
        kept = ("backbone", "weights", "image_size", "engine", "precision", "fit")
        return plan(
            snapshot_folder=Path(snapshot.path),
            store=store,
            workers=workers,
            **{name: asked[name] for name in kept if name in asked},
        )

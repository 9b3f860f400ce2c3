"""The prediction graph: the images of a bucket through a registered model, into one table."""

from typing import Any

from kfp import dsl

from graftline.steps.predict.component import predict
from graftline_pipelines.graphs.training import Graph
from graftline_pipelines.runfile.settings import RunSettings


def prediction_pipeline(
    settings: RunSettings, run_name: str | None = None, *, on_cluster: bool = True
) -> Any:
    """The prediction graph of a run file, as a KFP pipeline.

    Args:
        settings: The run file.
        run_name: The run's name; the KFP run's own name where absent.
        on_cluster: False for a run on this machine, which has no node pools.
    """
    graph = Graph(settings, run_name, on_cluster)
    wanted = settings.predict

    @dsl.pipeline(
        name=f"{settings.name}-predict",
        description="Classifies the images of a bucket with a registered model.",
    )
    def batch_prediction(
        source: str = wanted.source or "",
        output: str = wanted.output or "",
        version: str = wanted.version,
    ) -> None:
        graph.task(
            predict,
            source=source,
            output=output,
            version=version,
            store=settings.store,
            tracking=graph.tracking,
            config=graph.config(
                image_column=wanted.image_column,
                top=wanted.top,
                probabilities=wanted.probabilities,
            ),
        )

    return batch_prediction

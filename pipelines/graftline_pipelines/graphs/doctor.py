"""The doctor's graph: one task for each pool that a run would use, all at once."""

from typing import Any

from kfp import dsl

from graftline.steps.doctor.component import doctor
from graftline_pipelines.graphs.training import Graph
from graftline_pipelines.runfile.pools import pool_name, pool_of
from graftline_pipelines.runfile.settings import RunSettings

STEPS = (
    *("ingest", "extract_features", "fit_head", "fine_tune"),
    *("evaluate", "export_onnx", "promote", "watch", "notify"),
)


def doctor_config(settings: RunSettings) -> dict[str, Any]:
    """What the step ``doctor`` is called with; nothing secret."""
    return {
        "store": settings.store,
        "source": settings.data.source,
        "tracking_uri": settings.tracking.uri,
        "experiment": settings.experiment,
        "registered_model": settings.registered_model,
    }


def doctor_pipeline(settings: RunSettings, *, on_cluster: bool = True) -> Any:
    """A pipeline that runs the doctor once in each pool."""
    graph = Graph(settings, None if on_cluster else "doctor", on_cluster)
    steps = {pool_name(step, settings.assign): step for step in STEPS}

    @dsl.pipeline(name=f"{settings.name}-doctor", description="What a pod of each pool sees.")
    def examine() -> None:
        for pool, step in sorted(steps.items()):
            wants = pool_of(step, settings.pools, settings.assign).accelerator is not None
            config = graph.config(**doctor_config(settings), wants_gpu=wants)
            graph.task(doctor, pool_of_step=step, config=config, pool=pool)

    return examine

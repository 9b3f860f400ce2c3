"""The retraining graph: check first, train only if something changed, and notify people.

    exit handler: notify
        watch -> if something changed: the training graph, its extraction in one task

KFP cannot run a loop inside an exit handler (kubeflow/pipelines issue 12390), and none is needed:
only what is new is computed.
"""

from typing import Any

from kfp import dsl

from graftline.data.source_settings import SourceSettings
from graftline.steps.notify.component import notify
from graftline.steps.notify.step import URL_VARIABLE
from graftline.steps.watch.component import watch
from graftline_pipelines.graphs.training import Graph, add_training_tasks
from graftline_pipelines.runfile.settings import RunSettings, arguments


def retraining_pipeline(
    settings: RunSettings, run_name: str | None = None, *, on_cluster: bool = True
) -> Any:
    """The retraining graph of a run file, as a KFP pipeline.

    Args:
        settings: The run file.
        run_name: The tracking run's name; the KFP run's own name where absent.
        on_cluster: False for a run on this machine, which has no node pools.
    """
    graph = Graph(settings, run_name, on_cluster)

    @dsl.pipeline(
        name=f"{settings.name}-retrain",
        description="Checks for changes since the champion was trained; trains if there are any.",
    )
    def retrain(source: str = settings.data.source) -> None:
        with dsl.ExitHandler(_notification(graph), name="tell"):
            checked = graph.task(
                watch,
                source=source,
                store=settings.store,
                tracking=graph.tracking,
                config=graph.config(
                    **settings.data.model_dump(
                        mode="json", include=set(SourceSettings.model_fields)
                    ),
                    when=arguments(settings.retrain.when),
                    backbone=settings.backbone,
                    seed=settings.seed,
                ),
                **graph.names,
            )
            with dsl.If(checked.outputs["Output"] == True, name="something-changed"):  # noqa: E712
                add_training_tasks(graph, source, fan_out=False)

    return retrain


def _notification(graph: Graph) -> Any:
    settings = graph.settings
    ui = settings.cluster.ui if graph.on_cluster else ""  # a run here has no page
    task = graph.task(
        notify,
        store=settings.store,
        tracking=graph.tracking,
        config=graph.config(quiet=settings.retrain.quiet, **({} if ui is None else {"ui": ui})),
        **graph.names,
    )
    if graph.on_cluster and settings.retrain.webhook_secret is not None:
        from kfp import kubernetes

        kubernetes.use_secret_as_env(task, settings.retrain.webhook_secret, {"url": URL_VARIABLE})
    return task

"""The training graph: images to a promoted ONNX model.

    ingest -> extract_features -> fit_head -> [fine_tune ->] evaluate -> export_onnx -> promote

KFP's own cache is off everywhere. It keys on parameters, one of which is the tracking run and so
is always new; what is worth keeping (images, features, checkpoints) is kept in the store, under
the digest of what it was computed from, and is found again from any graph.
"""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from kfp import dsl

from graftline.steps.evaluate.component import evaluate
from graftline.steps.export_onnx.component import export_onnx
from graftline.steps.extract_features.assemble_component import assemble_features
from graftline.steps.extract_features.component import extract_features
from graftline.steps.extract_features.plan_component import plan_extraction
from graftline.steps.extract_features.share_component import extract_share
from graftline.steps.fine_tune.component import fine_tune
from graftline.steps.fit_head.component import fit_head
from graftline.steps.ingest.component import ingest
from graftline.steps.promote.component import promote
from graftline_pipelines.graphs.node_pod import node_pod, waiting_pools
from graftline_pipelines.graphs.placement import place
from graftline_pipelines.runfile.devices import devices_of
from graftline_pipelines.runfile.pools import PoolSettings, pool_name, pool_of
from graftline_pipelines.runfile.quantities import to_cores
from graftline_pipelines.runfile.settings import RunSettings, arguments


@dataclass(frozen=True)
class Graph:
    """Adds tasks to the pipeline that is being traced: images, pools and settings in one place.

    Attributes:
        settings: The run file.
        run_name: The run's name and id on this machine; None on a cluster, where KFP knows them.
        on_cluster: Whether node pools and cluster settings are written into the tasks.
    """

    settings: RunSettings
    run_name: str | None
    on_cluster: bool

    @property
    def run_id(self) -> str:
        """The pipeline run's id.

        KFP replaces a placeholder only where it is a parameter's whole value, so it is one of its
        own and no part of a JSON.
        """
        return self.run_name or dsl.PIPELINE_JOB_ID_PLACEHOLDER

    @property
    def names(self) -> dict[str, Any]:
        """The run's name, which is empty in a scheduled run, and its name in Kubernetes."""
        return {
            "run_name": self.run_name or dsl.PIPELINE_JOB_NAME_PLACEHOLDER,
            "run_resource": self.run_name or dsl.PIPELINE_JOB_RESOURCE_NAME_PLACEHOLDER,
        }

    def task(
        self,
        function: Callable[..., Any],
        pool_of_step: str = "",
        pools: Mapping[str, PoolSettings] | None = None,
        **inputs: Any,
    ) -> Any:
        """Add one step as a task; it runs in its own pool, or in that of ``pool_of_step``.

        Args:
            function: The component's.
            pool_of_step: Another step, whose pool it runs in.
            pools: In place of the run file's.
            inputs: Of the component.
        """
        settings = self.settings
        step, known = pool_of_step or function.__name__, pools or settings.pools
        pool = pool_of(step, known, settings.assign)
        target: Literal["cpu", "gpu"] = "gpu" if pool.accelerator is not None else "cpu"
        component = dsl.component(
            func=function,
            base_image=settings.images.reference(target),
            install_kfp_package=False,
        )
        task = component(**inputs, pipeline_run=self.run_id)
        task.set_caching_options(False)
        if self.on_cluster:
            place(
                task,
                step,
                pools=known,
                assign=settings.assign,
                cluster=settings.cluster,
            )
        return task

    @property
    def tracking(self) -> str:
        """What steps need to know of MLflow and of the page of KFP; nothing secret."""
        settings = self.settings
        known = {
            "uri": settings.tracking.uri,
            "experiment": settings.experiment,
            "registered_model": settings.registered_model,
        }
        ui = settings.cluster.ui if self.on_cluster else None
        return json.dumps(known if ui is None else {**known, "ui": ui})

    @property
    def tracking_of_first(self) -> str:
        """The same for the step that starts the tracking run and records the run file there.

        A schedule or another cluster makes no other pipeline, so they are left out.
        """
        from graftline.tracking.run_record import shortened

        known: dict[str, Any] = json.loads(self.tracking)
        where = "cluster" if self.on_cluster else "local"
        settings = self.settings.model_dump(mode="json", exclude={"schedule", "cluster"})
        return json.dumps({**known, "where": where, "settings": shortened(settings)})

    def config(self, **values: Any) -> str:
        """Keyword arguments of a step as JSON: a dict parameter would turn numbers to floats."""
        return json.dumps(values)


def training_pipeline(
    settings: RunSettings, run_name: str | None = None, *, on_cluster: bool = True
) -> Any:
    """The training graph of a run file, as a KFP pipeline.

    Args:
        settings: The run file.
        run_name: The tracking run's name; the KFP run's own name where absent.
        on_cluster: False for a run on this machine, which has no node pools.
    """
    graph = Graph(settings, run_name, on_cluster)

    @dsl.pipeline(name=settings.name, description="Labelled images to a promoted ONNX model.")
    def train(source: str = settings.data.source) -> None:
        add_training_tasks(graph, source)

    return train


def add_training_tasks(graph: Graph, source: Any, *, fan_out: bool = True) -> None:
    """Add the whole training graph to the pipeline that is being traced.

    Args:
        graph: Where tasks are added.
        source: The images' address: a string or a pipeline parameter.
        fan_out: False inside an exit handler, where KFP cannot run a loop.
    """
    settings = graph.settings
    ingested = graph.task(
        ingest,
        source=source,
        store=settings.store,
        tracking=graph.tracking_of_first,
        config=graph.config(
            **{key: v for key, v in arguments(settings.data).items() if key != "source"},
            seed=settings.seed,
        ),
        **graph.names,
    )
    shared = {
        "store": settings.store,
        "tracking": graph.tracking,
        "tracking_run": ingested.outputs["tracking_run"],
    }
    snapshot = ingested.outputs["snapshot"]
    features = add_extraction(graph, snapshot, shared, fan_out=fan_out)
    fitted = graph.task(
        fit_head,
        snapshot=snapshot,
        features=features,
        config=graph.config(
            **_backbone(settings),
            strategy=settings.strategy,
            probe=arguments(settings.probe),
            head=arguments(settings.head),
            auto=arguments(settings.auto),
            training=_training_plan(settings, on_cluster=graph.on_cluster),
            seed=settings.seed,
        ),
        **shared,
    )

    def finish(classifier: Any, decision: Any) -> None:
        add_promotion(graph, snapshot, features, classifier, decision, shared)

    def train_network() -> None:
        trained = add_fine_tuning(graph, snapshot, fitted, shared)
        finish(trained.outputs["classifier"], trained.outputs["decision"])

    if settings.strategy in ("fine_tune", "scratch"):
        train_network()
    elif settings.strategy in ("probe", "head"):
        finish(fitted.outputs["classifier"], fitted.outputs["decision"])
    else:
        with dsl.If(fitted.outputs["fine_tune"] == True, name="worth-fine-tuning"):  # noqa: E712
            train_network()
        with dsl.Else(name="features-are-enough"):
            finish(fitted.outputs["classifier"], fitted.outputs["decision"])


def add_extraction(graph: Graph, snapshot: Any, shared: dict[str, Any], *, fan_out: bool) -> Any:
    """Add the extraction: one task, or a plan, a loop and an assembly. Returns the features."""
    settings = graph.settings
    values = {**_backbone(settings), **arguments(settings.extract)}
    workers = values.pop("workers")
    config = graph.config(**values)
    if workers == 1 or not fan_out:
        task = graph.task(extract_features, snapshot=snapshot, config=config, **shared)
        return task.outputs["features"]
    alike = {"snapshot": snapshot, "store": settings.store, "config": config}
    plan = graph.task(plan_extraction, workers=workers, **alike)
    with dsl.ParallelFor(items=plan.output, name="extraction") as share:
        done = graph.task(extract_share, pool_of_step="extract_features", share=share, **alike)
    task = graph.task(
        assemble_features,
        snapshot=snapshot,
        config=config,
        extracted=dsl.Collected(done.output),
        **shared,
    )
    return task.outputs["features"]


def add_fine_tuning(graph: Graph, snapshot: Any, fitted: Any, shared: dict[str, Any]) -> Any:
    """Add the training of the network, which starts from the fitted probe."""
    settings = graph.settings
    scratch = settings.strategy == "scratch"
    config = arguments(settings.scratch if scratch else settings.fine_tune)
    pools = None
    if graph.on_cluster and config["nodes"] > 1:
        config["node_pod"], pools = node_pod(settings), waiting_pools(settings)
    else:
        del config["nodes"]
    return graph.task(
        fine_tune,
        pools=pools,
        snapshot=snapshot,
        probe=fitted.outputs["classifier"],
        probe_decision=fitted.outputs["decision"],
        probe_page=fitted.outputs["page"],
        config=graph.config(
            **config, strategy="scratch" if scratch else "fine_tune", seed=settings.seed
        ),
        **shared,
    )


def add_promotion(
    graph: Graph,
    snapshot: Any,
    features: Any,
    classifier: Any,
    decision: Any,
    shared: dict[str, Any],
) -> None:
    """Add what both branches end in: evaluation, export, promotion."""
    settings = graph.settings
    evaluated = graph.task(
        evaluate,
        snapshot=snapshot,
        features=features,
        classifier=classifier,
        decision=decision,
        config=graph.config(
            gate=arguments(settings.gate),
            evaluation=arguments(settings.evaluation),
            seed=settings.seed,
        ),
        **shared,
    )
    exported = graph.task(
        export_onnx,
        snapshot=snapshot,
        classifier=evaluated.outputs["calibrated"],
        config=graph.config(**arguments(settings.export), seed=settings.seed),
        **shared,
    )
    graph.task(
        promote,
        snapshot=snapshot,
        classifier=evaluated.outputs["calibrated"],
        model=exported.outputs["model"],
        verdict=evaluated.outputs["verdict"],
        report=evaluated.outputs["report"],
        config=graph.config(),
        **shared,
    )


def _backbone(settings: RunSettings) -> dict[str, Any]:
    return {
        "backbone": settings.backbone,
        "weights": settings.weights,
        "image_size": settings.image_size,
        "fit": settings.image.fit,
    }


def _training_plan(settings: RunSettings, *, on_cluster: bool) -> dict[str, Any]:
    """The fine-tuning that may follow, for the forecast of its cost."""
    train = settings.scratch if settings.strategy == "scratch" else settings.fine_tune
    plan: dict[str, Any] = {"epochs": train.epochs, "max_minutes": train.max_minutes}
    if not on_cluster:
        return plan
    pool = pool_of("fine_tune", settings.pools, settings.assign)
    return plan | {
        "pool": pool_name("fine_tune", settings.assign),
        "devices": devices_of(pool),
        "accelerators": pool.accelerators,
        "cores": to_cores(pool.cpu_limit or pool.cpu),
        "hourly_price": pool.hourly_price,
    }

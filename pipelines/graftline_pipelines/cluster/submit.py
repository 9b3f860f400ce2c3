"""Submits a run file: check everything, upload what the server lacks, start a run."""

import os
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console

from graftline.errors import ClusterError
from graftline_pipelines.cluster.package import (
    Package,
    SubmissionError,
    build,
    check,
    pipeline_name,
)
from graftline_pipelines.cluster.runs.argo import step_of
from graftline_pipelines.cluster.server import ENDED, Cluster, Version
from graftline_pipelines.graphs.compile import GraphName
from graftline_pipelines.runfile.pools import PoolSettings, pool_name, pool_of
from graftline_pipelines.runfile.settings import RunSettings, new_run_id


@dataclass(frozen=True)
class Submitted:
    """A run that the server has accepted."""

    run_id: str
    run_name: str
    link: str
    version: Version


@dataclass(frozen=True)
class Questions:
    """What is asked beside the server before anything is sent.

    Attributes:
        registry: Whether image registries are asked.
        kube_context: The kubeconfig context whose nodes are checked; None: those of the cluster
            that we run in, if we do.
    """

    registry: bool = True
    kube_context: str | None = None


def prepare(
    settings: RunSettings,
    graph: GraphName,
    folder: Path,
    *,
    parameters: Mapping[str, Any],
    questions: Questions,
    console: Console,
) -> Package:
    """Compile a graph and check all of it that can be checked from here.

    Raises:
        SubmissionError: with every problem found.
    """
    package = build(settings, graph, folder)
    check(package, settings, parameters)
    problems, notes = [], []
    if questions.registry:
        missing, unknown = _ask_registries(package.images)
        problems += missing
        notes += unknown
    lacking, unseen = _ask_nodes(_pools_used(settings, package), questions.kube_context)
    problems += lacking
    notes += unseen
    for note in notes:
        console.print(f"[yellow]Note:[/] {note}", highlight=False)
    if problems:
        raise SubmissionError(problems)
    return package


def _ask_registries(images: tuple[str, ...]) -> tuple[list[str], list[str]]:
    from graftline_pipelines.cluster.image_registry import look_up

    found = [look_up(image) for image in images]
    missing = [
        f"image {answer.image} cannot be pulled: {answer.why}. "
        "Push it, or correct `images` in the run file."
        for answer in found
        if answer.state == "missing"
    ]
    unsure: dict[str, list[str]] = {}
    for answer in found:
        if answer.state == "unknown":
            unsure.setdefault(answer.why, []).append(answer.image)
    unknown = [
        f"whether {' and '.join(images)} can be pulled is not known: {why}."
        for why, images in unsure.items()
    ]
    return missing, unknown


def _pools_used(settings: RunSettings, package: Package) -> dict[str, PoolSettings]:
    """The pools of the steps that the graph has; others may ask for what the cluster lacks."""
    executors = package.spec.get("deploymentSpec", {}).get("executors", {})
    steps = [step for name in executors if (step := step_of(name.removeprefix("exec-")))]
    return {
        pool_name(step, settings.assign): pool_of(step, settings.pools, settings.assign)
        for step in steps
    }


def _ask_nodes(
    pools: Mapping[str, PoolSettings], context: str | None
) -> tuple[list[str], list[str]]:
    """Compare the pools that are used with the nodes, if there is a way to see them."""
    from graftline_pipelines.cluster.nodes import pool_problems, read_nodes

    if context is None and "KUBERNETES_SERVICE_HOST" not in os.environ:
        if any(pool.accelerator for pool in pools.values()):
            return [], [
                "whether the cluster has the nodes that `pools` asks for was not checked; "
                "--kube-context NAME checks them."
            ]
        return [], []
    try:
        nodes = read_nodes(context)
    except ClusterError as error:
        if context is not None:
            raise
        return [], [f"the pools were not compared with the cluster's nodes: {error.why}."]
    return pool_problems(pools, nodes), []


def submit(
    settings: RunSettings,
    graph: GraphName,
    cluster: Cluster,
    *,
    parameters: Mapping[str, Any],
    questions: Questions,
    console: Console,
    description: str = "",
) -> Submitted:
    """Check, upload and start.

    Args:
        settings: The run file.
        graph: Which of its graphs.
        cluster: The server.
        parameters: Values for the pipeline's parameters; the run file's own where absent.
        questions: What is asked of registries and nodes.
        console: Where notes are printed.
        description: Of the run, for its page.

    Raises:
        SubmissionError: Something is wrong with what would be sent; nothing was.
        ClusterError: The server refused.
    """
    with tempfile.TemporaryDirectory() as folder:
        package = prepare(
            settings,
            graph,
            Path(folder),
            parameters=parameters,
            questions=questions,
            console=console,
        )
        version = upload(package, cluster, console)
    run_name = new_run_id(package.pipeline)
    run_id = cluster.start(
        version,
        run_name=run_name,
        experiment_id=cluster.experiment(settings.experiment),
        parameters=parameters,
        service_account=settings.cluster.service_account,
        description=description,
    )
    return Submitted(run_id, run_name, cluster.link(run_id), version)


def active_runs(settings: RunSettings, graph: GraphName, cluster: Cluster) -> list[Any]:
    """The runs of a graph that have not ended, the newest first."""
    pipeline_id = cluster.pipeline(pipeline_name(settings, graph))
    if pipeline_id is None:
        return []
    return [
        run
        for run in cluster.runs(limit=200, experiment=settings.experiment)
        if run.state not in ENDED
        and run.pipeline_version_reference
        and run.pipeline_version_reference.pipeline_id == pipeline_id
    ]


def find_version(package: Package, cluster: Cluster) -> str | None:
    """The id of a package's version on the server, or None where it is not there."""
    pipeline_id = cluster.pipeline(package.pipeline)
    return None if pipeline_id is None else cluster.version_named(pipeline_id, package.version)


def upload(package: Package, cluster: Cluster, console: Console) -> Version:
    """Upload a package as a version named by its content, unless the server has it."""
    from graftline import __version__

    version = cluster.ensure_version(
        package.path,
        package.pipeline,
        package.version,
        f"graftline {__version__}; images: {', '.join(package.images)}",
    )
    said = "uploaded" if version.uploaded else "is there already"
    console.print(
        f"Pipeline {package.pipeline}, version {package.version}: {said}", highlight=False
    )
    return version

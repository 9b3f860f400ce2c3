"""A run file for a cluster, checked from a machine outside of it. Nothing is sent."""

import io
import tempfile
from collections.abc import Callable
from pathlib import Path

from rich.console import Console

from graftline.errors import (
    ClusterError,
    ConfigurationError,
    GraftlineError,
    StoreAccessDenied,
    StoreUnreachable,
    TrackingUnreachable,
)
from graftline_pipelines.graphs.compile import GraphName
from graftline_pipelines.preflight.examine import examine
from graftline_pipelines.preflight.report import Preflight
from graftline_pipelines.runfile.settings import RunSettings

# What may be right inside the cluster and only here is not.
FROM_HERE = (StoreUnreachable, StoreAccessDenied, TrackingUnreachable)
ELSEWHERE = "pipeline"


def examine_for_cluster(
    settings: RunSettings,
    graph: GraphName,
    asking: Callable[[str], None] = lambda _: None,
    *,
    registry: bool = True,
    kube_context: str | None = None,
) -> Preflight:
    """Ask what a run needs, and what a submission would be refused for.

    Args:
        settings: The run file, with its paths as they are written.
        graph: Which of its graphs.
        asking: Is told what is asked.
        registry: Whether image registries are asked.
        kube_context: The kubeconfig context whose nodes are compared with the pools.
    """
    found = examine(settings, asking)
    kept: list[tuple[str, GraftlineError]] = []
    for key, error in found.problems:
        if isinstance(error, FROM_HERE):
            found.notes.append((key, _not_from_here(error)))
        else:
            kept.append((key, error))
    found.problems = kept
    asking("the package for Kubeflow Pipelines")
    _prepare(settings, graph, found, registry=registry, kube_context=kube_context)
    found.facts["a run would"] = "be sent by `graftline submit`; nothing was sent now"
    return found


def _prepare(
    settings: RunSettings,
    graph: GraphName,
    found: Preflight,
    *,
    registry: bool,
    kube_context: str | None,
) -> None:
    from graftline_pipelines.cluster.package import SubmissionError
    from graftline_pipelines.cluster.submit import Questions, prepare

    printed = io.StringIO()
    console = Console(file=printed, width=10_000)
    try:
        with tempfile.TemporaryDirectory() as folder:
            package = prepare(
                settings,
                graph,
                Path(folder),
                parameters={},
                questions=Questions(registry, kube_context),
                console=console,
            )
            size = package.path.stat().st_size
        found.facts[ELSEWHERE] = f"{package.pipeline}, version {package.version}, {size:,} bytes"
    except SubmissionError as error:
        found.problems += [(ELSEWHERE, ConfigurationError(text)) for text in error.problems]
    except (ClusterError, ConfigurationError) as error:
        found.problems.append((ELSEWHERE, error))
    for line in printed.getvalue().splitlines():
        found.notes.append((ELSEWHERE, line.removeprefix("Note:").strip()))


def _not_from_here(error: GraftlineError) -> str:
    said = " ".join(f"{text.rstrip('.')}." for text in (error.what, error.why) if text)
    return (
        f"not checked, since it does not answer from here: {said} "
        "`graftline doctor` with --on-cluster asks from a pod."
    )

"""``run``, ``check`` and ``compile``: a run file, here."""

import json
import os
from pathlib import Path
from typing import Annotated

import typer

from graftline_pipelines.cli.commands.here import run_here
from graftline_pipelines.cli.options import (
    AskRegistry,
    Fresh,
    Graph,
    JsonLast,
    KubeContext,
    Overrides,
    RunFile,
    RunnerName,
    RunsDir,
    checking,
    graph_name,
)


def run(
    run_file: RunFile,
    overrides: Overrides = None,
    as_json: JsonLast = False,
    runs_dir: RunsDir = Path(".graftline/runs"),
    runner: RunnerName = "subprocess",
    fresh: Fresh = False,
) -> None:
    """Train, evaluate, export and promote, on this machine."""
    if fresh:
        os.environ["GRAFTLINE_FRESH"] = "1"  # of graftline.steps.reuse, not imported for a name
    here = run_here(run_file, overrides, runs_dir=runs_dir, runner=runner, as_json=as_json)
    from graftline_pipelines.local import summary
    from graftline_pipelines.local.sample import test_image

    result = summary.summarise(here.finished, here.settings)
    sample = test_image(here.settings.data.source, result["onnx"])
    summary.show(result, here.console, sample)
    if as_json:
        print(json.dumps(result))


def check(
    run_file: RunFile,
    overrides: Overrides = None,
    cluster: Annotated[
        bool,
        typer.Option("--cluster", help="Check what `submit` would send, and send nothing."),
    ] = False,
    pipeline: Graph = "train",
    kube_context: KubeContext = None,
    registry: AskRegistry = True,
    as_json: JsonLast = False,
) -> None:
    """Check a run file and all that it names, and say what a run would do.

    With --cluster, also what Kubeflow Pipelines would refuse. What answers only inside the cluster
    is a note then, not a problem.
    """
    from graftline_pipelines.local import run as local
    from graftline_pipelines.local.screen import Screen
    from graftline_pipelines.preflight import examine as preflight
    from graftline_pipelines.preflight.report import show
    from graftline_pipelines.runfile.load import load
    from graftline_pipelines.runfile.settings import AUTO_BACKBONE

    settings = load(run_file, overrides or ())
    console = Screen(stderr=as_json)
    if settings.backbone == AUTO_BACKBONE:
        from graftline_pipelines.local.race_memory import expected, with_backbone

        note, name = expected(settings)
        console.print(note, highlight=False)
        settings = with_backbone(settings, name)
    with checking(console) as asking:
        if cluster:
            from graftline_pipelines.preflight.cluster import examine_for_cluster

            graph = graph_name(pipeline)
            report = examine_for_cluster(
                settings, graph, asking, registry=registry, kube_context=kube_context
            )
        else:
            report = preflight.examine(local.with_absolute_paths(settings), asking)
    show(report, console)
    if as_json:
        print(json.dumps(report.as_dict()))
    if report.problems:
        raise typer.Exit(1)


def compile_(
    run_file: RunFile,
    output: Annotated[Path, typer.Option("--output", "-o", help="Where the KFP IR is written.")],
    overrides: Overrides = None,
    pipeline: Graph = "train",
) -> None:
    """Write the pipeline of a run file as YAML, for Kubeflow Pipelines."""
    from graftline_pipelines.graphs.compile import compile_to
    from graftline_pipelines.local.race_memory import settled
    from graftline_pipelines.local.screen import Screen
    from graftline_pipelines.runfile.load import load

    settings = settled(load(run_file, overrides or ()))
    compile_to(settings, graph_name(pipeline), output)
    Screen().print(f"Wrote {output}", highlight=False)


def register(app: typer.Typer) -> None:
    """Add the commands of this module."""
    app.command()(run)
    app.command()(check)
    app.command("compile")(compile_)

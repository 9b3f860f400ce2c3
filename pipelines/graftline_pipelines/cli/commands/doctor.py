"""``doctor``: what a run relies on, tried out."""

import json
from typing import Annotated, Any

import typer

from graftline_pipelines.cli.options import Host, JsonLast, Overrides, RunFile


def doctor(
    run_file: RunFile,
    overrides: Overrides = None,
    host: Host = None,
    on_cluster: Annotated[
        bool, typer.Option("--on-cluster", help="Ask from a pod of each pool as well.")
    ] = False,
    wait: Annotated[int, typer.Option(help="Seconds to wait for the pods.", min=1)] = 900,
    as_json: JsonLast = False,
) -> None:
    """Try out what a run relies on: store, MLflow, Kubeflow Pipelines, this machine."""
    from graftline.progress import listening
    from graftline.steps.doctor.findings import Examination
    from graftline.steps.doctor.step import run
    from graftline_pipelines.cluster.doctor import examine_kfp, examine_pods
    from graftline_pipelines.graphs.doctor import doctor_config
    from graftline_pipelines.local.run import with_absolute_paths
    from graftline_pipelines.local.screen import Screen
    from graftline_pipelines.runfile.load import load

    settings = load(run_file, overrides or ())
    console = Screen(stderr=as_json)
    found = Examination()
    with listening(lambda *_, **__: None), console.status("Trying out..."):
        found.findings += run(**doctor_config(with_absolute_paths(settings)))
        server = examine_kfp(found, host, settings.cluster.namespace)
    _show(found.findings, console)
    pods: list[Any] = []
    if on_cluster and server is not None:
        pods = examine_pods(settings, server, console, seconds=wait)
        for pool in dict.fromkeys(name for name, _ in pods):
            console.print(f"\n[bold]A pod of the pool {pool} saw:[/]")
            _show([finding for name, finding in pods if name == pool], console)
    failed = len(found.failed) + sum(finding.state == "failed" for _, finding in pods)
    failed += on_cluster and server is None
    if as_json:
        seen = [{"pool": pool, **finding.as_dict()} for pool, finding in pods]
        here = [finding.as_dict() for finding in found.findings]
        print(json.dumps({"ok": not failed, "here": here, "pods": seen}))
    if failed:
        console.print(f"[red]{failed} of these would stop a run.[/]")
        raise typer.Exit(1)
    console.print("[green]Nothing that was tried would stop a run.[/]")


def _show(findings: list[Any], console: Any) -> None:
    from rich.markup import escape

    from graftline.steps.doctor.step import lines

    for line in lines(findings):
        style = "red" if line.startswith("FAILED") else "yellow" if line.startswith("NOTE") else ""
        console.print(f"[{style}]{escape(line)}[/]" if style else escape(line), highlight=False)


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command()(doctor)

"""``cluster``: settings of the Kubeflow Pipelines installation itself, for its administrator."""

import json
import sys
from pathlib import Path
from typing import Annotated

import typer

from graftline_pipelines.cli.options import AsJson
from graftline_pipelines.cli.plain_help import PlainGroup

group = typer.Typer(
    cls=PlainGroup,
    name="cluster",
    help="Settings of the KFP installation, for its admin.",
    no_args_is_help=True,
)


@group.callback()
def _cluster() -> None:
    """Settings of the KFP installation, for its admin."""


@group.command("retry-policy")
def retry_policy(
    apply: Annotated[
        bool,
        typer.Option(
            "--apply", help="Change the cluster. Without it, only show what would change."
        ),
    ] = False,
    kube_context: Annotated[
        str | None, typer.Option(help="kubeconfig context. Default: the current one.")
    ] = None,
    kubeflow_namespace: Annotated[
        str, typer.Option(help="Namespace that KFP is installed in.")
    ] = "kubeflow",
    file: Annotated[
        Path | None,
        typer.Option(
            help="Print this ConfigMap file with the rule added; contacts no cluster. - is stdin.",
            metavar="FILE",
        ),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Try steps again whose pod was lost (preempted, evicted, deleted), and only those.

    Merged into the workflow controller's defaults, which every team on the cluster shares; what
    else stands there stays. Safe to run again.
    """
    if file is not None:
        _print_changed(file)
        return
    _change(apply, kube_context, kubeflow_namespace, as_json)


def _print_changed(file: Path) -> None:
    """A ConfigMap file with the rule added; no cluster is contacted."""
    from graftline_pipelines.cluster import retry_policy as rule

    if str(file) != "-" and not file.is_file():
        raise typer.BadParameter(f"there is no file {str(file)!r}", param_hint="--file")
    content = sys.stdin.buffer.read() if str(file) == "-" else file.read_bytes()
    print(rule.change_of_file(content.decode(errors="replace")), end="")


def _change(apply: bool, kube_context: str | None, namespace: str, as_json: bool) -> None:
    """Show the change of a cluster, and make it with ``apply``."""
    from graftline_pipelines.cluster import kube
    from graftline_pipelines.cluster import retry_policy as rule
    from graftline_pipelines.local.screen import Screen

    console = Screen(stderr=as_json)
    controller = rule.Controller(kube.open_api(kube_context), namespace)
    change, version = controller.change()
    applied, restarted = apply and bool(change.data), False
    if not change.data:
        console.print("The controller already has the rule. Nothing was changed.")
    else:
        console.print(change.difference, highlight=False, markup=False)
        if not apply:
            console.print("\nNothing was changed. --apply changes it, for every team's runs.")
    if applied:
        controller.apply(change, version)
        console.print(f"\n{rule.CONFIG_MAP} is changed.")
        restarted = controller.restart()
        restart = f"kubectl -n {namespace} rollout restart deployment {rule.DEPLOYMENT}"
        console.print(
            "The controller restarts with it; runs go on."
            if restarted
            else f"The controller could not be restarted. Run: {restart}",
            highlight=False,
        )
    if as_json:
        found = {
            "change": bool(change.data),
            "applied": applied,
            "restarted": restarted,
            "difference": change.difference,
        }
        print(json.dumps(found))


def register(app: typer.Typer) -> None:
    """Add the commands of this module."""
    app.add_typer(group)

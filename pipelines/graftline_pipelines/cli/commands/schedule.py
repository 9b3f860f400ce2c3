"""``schedule``: what the cluster starts by itself."""

import json
import sys
import tempfile
from pathlib import Path
from typing import Annotated, Any

import typer

from graftline_pipelines.cli.options import (
    AskRegistry,
    Host,
    JsonLast,
    Namespace,
    Overrides,
    RunFile,
    connect,
)
from graftline_pipelines.cli.plain_help import PlainGroup

Which = Annotated[str, typer.Argument(help="A run file, or the schedule's name.")]
KubeContext = Annotated[
    str | None,
    typer.Option(help="kubeconfig context; finds schedules that fire though KFP has lost them."),
]
DeleteOrphans = Annotated[
    bool,
    typer.Option("--delete-orphans", help="With --kube-context: delete those, without asking."),
]


class _Schedules(PlainGroup):
    """Takes ``schedule RUN.yaml`` for ``schedule show RUN.yaml``."""

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        if args and args[0].endswith((".yaml", ".yml")):
            args = ["show", *args]
        return super().resolve_command(ctx, args)


group = typer.Typer(
    name="schedule",
    cls=_Schedules,
    help="Schedules: what the cluster starts by itself. With a run file alone, show its schedule.",
    no_args_is_help=True,
)


@group.command()
def show(run_file: RunFile, overrides: Overrides = None) -> None:
    """Show when a run file's schedule would fire. No cluster is contacted."""
    import shlex

    from graftline_pipelines.cluster.scheduling.schedules import fires_at
    from graftline_pipelines.local.screen import Screen
    from graftline_pipelines.runfile.load import load

    settings = load(run_file, overrides or ())
    wanted, console = settings.schedule, Screen(highlight=False, markup=False)
    named = shlex.quote(str(run_file))
    if wanted.cron is None:
        console.print(f"{run_file} has no schedule. Add one to it, such as every night at 02:30:\n")
        console.print("schedule:\n  cron: 0 30 2 * * *\n")
    else:
        times = _readable(fires_at(wanted.cron, wanted.time_zone))
        off = "" if wanted.enabled else " It is switched off: `schedule.enabled` is false."
        console.print(
            f"Schedule {settings.name}: {wanted.pipeline} at {wanted.cron} in {wanted.time_zone}; "
            f"next at {times}.{off}"
        )
    console.print(
        f"`graftline schedule apply {named}` makes the cluster's schedule the same; "
        "`graftline schedule list` shows what a cluster has."
    )


@group.command()
def apply(
    run_file: RunFile,
    overrides: Overrides = None,
    host: Host = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Show what would change; change nothing.")
    ] = False,
    recreate: Annotated[
        bool,
        typer.Option("--recreate", help="Replace the schedule even if nothing changed."),
    ] = False,
    kube_context: Annotated[
        str | None,
        typer.Option(
            help="kubeconfig context: compares the pools with its nodes, and finds schedules that "
            "fire though KFP has lost them."
        ),
    ] = None,
    delete_orphans: DeleteOrphans = False,
    registry: AskRegistry = True,
    as_json: JsonLast = False,
) -> None:
    """Make the cluster's schedule the same as the run file's."""
    from graftline_pipelines.cluster import submit
    from graftline_pipelines.cluster.scheduling import schedules
    from graftline_pipelines.local.race_memory import settled
    from graftline_pipelines.local.screen import Screen
    from graftline_pipelines.runfile.load import load

    settings = settled(load(run_file, overrides or ()))
    console = Screen(stderr=as_json)
    server = connect(host, settings.cluster.namespace, console)
    with tempfile.TemporaryDirectory() as folder:
        package = submit.prepare(
            settings,
            settings.schedule.pipeline,
            Path(folder),
            parameters={},
            questions=submit.Questions(registry, kube_context),
            console=console,
        )
        desired = schedules.desired(settings, package.pipeline, package.version)
        existing = schedules.existing(server, desired.name)
        version = None if dry_run else submit.upload(package, server, console)
    version_id = version.version_id if version else submit.find_version(package, server)
    if kube_context is not None:
        found = _orphans(server, kube_context)
        _offer(found, found.find(desired.name), console, delete=delete_orphans, ask=not dry_run)
    todo = schedules.plan(desired, existing, version_id, recreate=recreate)
    _show_plan(todo, desired, console, dry_run=dry_run)
    schedule_id = todo.keep.schedule_id if todo.keep else None
    if version is not None:
        schedule_id = _reconciler(server, console).apply(todo, desired, version)
    _show_times(todo, desired, existing, console, dry_run=dry_run)
    if as_json:
        print(json.dumps(_result(todo, desired, schedule_id, dry_run=dry_run)))


@group.command("list")
def list_(
    host: Host = None,
    namespace: Namespace = None,
    kube_context: KubeContext = None,
    delete_orphans: DeleteOrphans = False,
    as_json: JsonLast = False,
) -> None:
    """List the schedules that graftline keeps on the cluster."""
    from graftline_pipelines.cluster.scheduling import schedules
    from graftline_pipelines.local.screen import Screen, show_table

    console = Screen(stderr=as_json)
    server = connect(host, namespace, console)
    found = schedules.existing(server)
    rows = [_row(one, found, server) for one in found]
    lost = _orphans(server, kube_context) if kube_context is not None else None
    orphans = lost.find() if lost else []
    rows += [_orphan_row(one) for one in orphans]
    if rows:
        cells = [
            (
                *(row[key] for key in ("name", "state", "cron", "time_zone")),
                (row["next"] or "")[:16].replace("T", " "),
            )
            for row in rows
        ]
        show_table(("Schedule", "State", "Cron", "Zone", "Next (UTC)"), cells, console)
    else:
        console.print("No schedules.")
    if lost is not None:
        _offer(lost, orphans, console, delete=delete_orphans, ask=not as_json)
    if as_json:
        print(json.dumps(rows))


@group.command()
def pause(which: Which, host: Host = None, namespace: Namespace = None) -> None:
    """Stop a schedule from firing until it is resumed. A run that has started goes on."""
    from graftline_pipelines.local.screen import Screen

    name, reconciler, existing = _find(which, host, namespace)
    for one in existing:  # of an interrupted replacement, all
        reconciler.pause(one)
    Screen().print(f"{name} is paused.", highlight=False)


@group.command()
def resume(which: Which, host: Host = None, namespace: Namespace = None) -> None:
    """Let a paused schedule fire again, from its next time on."""
    from graftline_pipelines.cluster.scheduling import schedules
    from graftline_pipelines.local.screen import Screen

    name, reconciler, existing = _find(which, host, namespace)
    one = schedules.the_one(existing, name)
    reconciler.resume(one)
    following = _readable(schedules.fires_at(one.cron, one.time_zone, 1))
    Screen().print(f"{name} fires again, next at {following}.", highlight=False)


@group.command()
def remove(
    which: Which,
    host: Host = None,
    namespace: Namespace = None,
    kube_context: KubeContext = None,
) -> None:
    """Delete a schedule. Its pipeline and its runs stay.

    With --kube-context also what of it still fires though KFP has lost it.
    """
    from graftline_pipelines.cluster.scheduling import schedules
    from graftline_pipelines.local.screen import Screen

    name, reconciler, existing = _find(which, host, namespace, needed=kube_context is None)
    console = Screen(stderr=True)
    if kube_context is not None:
        lost = _orphans(reconciler.cluster, kube_context)
        orphans = lost.find(name)
        if not orphans:
            schedules.the_one(existing[:1], name)  # an error where there is nothing at all
        _offer(lost, orphans, console, delete=True)
    for one in existing:
        reconciler.remove(one)
    Screen().print(f"{name} is removed.", highlight=False)


@group.command("run-now")
def run_now(
    which: Which, host: Host = None, namespace: Namespace = None, as_json: JsonLast = False
) -> None:
    """Start now what the schedule would start: the same version, with the same parameters."""
    from graftline_pipelines.cluster.scheduling import schedules
    from graftline_pipelines.local.screen import Screen
    from graftline_pipelines.runfile.settings import new_run_id

    name, reconciler, existing = _find(which, host, namespace)
    one = schedules.the_one(existing, name)
    server = reconciler.cluster
    version = schedules.version_of(server, one)
    run_name = new_run_id(name)
    run_id = server.start(
        version,
        run_name=run_name,
        experiment_id=one.raw.experiment_id,
        parameters={},
        service_account=one.raw.service_account or None,
        description="Started by hand, as the schedule would.",
    )
    link = server.link(run_id)
    Screen(stderr=as_json).print(f"Run {run_name}: [bold]{run_id}[/]\n{link}", highlight=False)
    if as_json:
        print(json.dumps({"run_id": run_id, "run_name": run_name, "link": link}))


def register(app: typer.Typer) -> None:
    """Add the commands of this module."""
    app.add_typer(group)


def _find(
    which: str, host: str | None, namespace: str | None, *, needed: bool = True
) -> tuple[str, Any, list[Any]]:
    """A schedule's name, who changes it, and what is there; an error for none where needed."""
    from graftline_pipelines.cluster.scheduling import schedules
    from graftline_pipelines.local.screen import Screen
    from graftline_pipelines.runfile.load import load

    name = which
    if which.endswith((".yaml", ".yml")):
        settings = load(Path(which))
        name = settings.name
        namespace = namespace or settings.cluster.namespace
    console = Screen(stderr=True)
    server = connect(host, namespace, console)
    existing = schedules.existing(server, name)
    if needed and not existing:
        schedules.the_one(existing, name)
    return name, _reconciler(server, console), existing


def _orphans(server: Any, kube_context: str) -> Any:
    from graftline_pipelines.cluster.kube import open_api
    from graftline_pipelines.cluster.scheduling.orphans import Orphans

    return Orphans(server, open_api(kube_context))


def _offer(lost: Any, orphans: list[Any], console: Any, *, delete: bool, ask: bool = False) -> None:
    """Say which schedules fire though KFP has lost them, and delete them where that is wanted."""
    if not orphans:
        return
    for one in orphans:
        console.print(
            f"[yellow]Note:[/] {one.schedule}: the object {one.object_name} in {one.namespace} "
            f"{'fires' if one.enabled else 'exists'} ({one.cron}), though KFP does not list it.",
            highlight=False,
        )
    if not delete and ask and sys.stdin.isatty():
        delete = typer.confirm("Delete it?" if len(orphans) == 1 else "Delete them?", err=True)
    if not delete:
        console.print("`--delete-orphans` deletes what KFP does not list.", highlight=False)
        return
    for one in orphans:
        lost.delete(one)
        console.print(f"{one.object_name} is deleted.", highlight=False)


def _orphan_row(one: Any) -> dict[str, Any]:
    return {
        "name": one.schedule,
        "state": f"lost by KFP, {'fires' if one.enabled else 'does not fire'}: {one.object_name}",
        "enabled": one.enabled,
        "cron": one.cron,
        "time_zone": "",
        "next": None,
        "pipeline": one.pipeline,
        "version": None,
        "schedule_id": None,
        "object": one.object_name,
    }


def _reconciler(server: Any, console: Any) -> Any:
    from graftline_pipelines.cluster.scheduling.reconcile import Reconciler

    return Reconciler(server, lambda text: console.print(text, highlight=False))


def _show_plan(todo: Any, desired: Any, console: Any, *, dry_run: bool) -> None:
    words = {
        "create": "to be made",
        "replace": "to be replaced",
        "leave": "as it should be",
        "finish": "a replacement to be finished",
    }
    would = " (dry run: nothing is changed)" if dry_run else ""
    console.print(f"Schedule {desired.name}: {words[todo.action]}{would}", highlight=False)
    for reason in todo.reasons:
        console.print(f"  {reason}", highlight=False)


def _show_times(
    todo: Any, desired: Any, existing: list[Any], console: Any, *, dry_run: bool
) -> None:
    from graftline_pipelines.cluster.scheduling import schedules

    done = "" if dry_run or todo.action == "leave" else "Done. "
    if not todo.fires:
        paused = desired.enabled and existing
        how = (
            f"it is paused; `graftline schedule resume {desired.name}` lets it fire"
            if paused
            else "`schedule.enabled` is false in the run file"
        )
        console.print(f"{done}It does not fire: {how}.", highlight=False)
        return
    times = _readable(schedules.fires_at(desired.cron, desired.time_zone))
    console.print(
        f"{done}{desired.cron} in {desired.time_zone}; next at {times}.\n"
        "One run at a time. Missed runs are not caught up.",
        highlight=False,
    )


def _readable(times: list[str]) -> str:
    """Times that are ISO 8601 in UTC, for people."""
    shown = [time[:19].replace("T", " ").removesuffix(":00") for time in times]
    return f"{', '.join(shown)} UTC"


def _result(todo: Any, desired: Any, schedule_id: str | None, *, dry_run: bool) -> dict[str, Any]:
    from graftline_pipelines.cluster.scheduling import schedules

    return {
        "action": todo.action,
        "dry_run": dry_run,
        "reasons": list(todo.reasons),
        "schedule_id": schedule_id,
        "name": desired.name,
        "fires": todo.fires,
        "cron": desired.cron,
        "time_zone": desired.time_zone,
        "next": schedules.fires_at(desired.cron, desired.time_zone),
        "version": desired.version,
    }


def _row(one: Any, found: list[Any], server: Any) -> dict[str, Any]:
    from graftline.errors import ClusterError
    from graftline_pipelines.cluster.scheduling import schedules

    state = "fires" if one.enabled else "paused"
    if not one.enabled and one.content.get("enabled") is False:
        state = "switched off in the run file"
    if sum(other.name == one.name for other in found) > 1:
        state = f"{state}, replacement interrupted: apply again"
    try:
        schedules.version_of(server, one)
    except ClusterError:
        state = "its pipeline version was deleted: apply again"
    following = schedules.fires_at(one.cron, one.time_zone, 1) if one.enabled and one.cron else []
    return {
        "name": one.name,
        "state": state,
        "enabled": one.enabled,
        "cron": one.cron,
        "time_zone": one.time_zone,
        "next": following[0] if following else None,
        "pipeline": one.content.get("pipeline"),
        "version": one.content.get("version"),
        "schedule_id": one.schedule_id,
    }

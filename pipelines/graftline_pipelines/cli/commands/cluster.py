"""``submit``, ``runs``, ``follow``, ``logs``, ``stop`` and ``trigger``: a run file on a cluster."""

import json
import os
from collections.abc import Iterable
from datetime import UTC
from typing import Annotated, Any

import typer

from graftline_pipelines.cli.commands.local_runs import DEFAULT_RUNS_DIR, show_runs
from graftline_pipelines.cli.options import (
    AskRegistry,
    Graph,
    Host,
    JsonLast,
    KubeContext,
    Namespace,
    Overrides,
    RunFile,
    RunName,
    RunsDir,
    connect,
    graph_name,
    waiting,
)
from graftline_pipelines.cli.stopping import STOPPED, told

# The first names a server; in a pod, which has the second, it is the cluster's own.
SERVER_VARIABLES = ("KF_PIPELINES_ENDPOINT", "KUBERNETES_SERVICE_HOST")


def submit(
    run_file: RunFile,
    overrides: Overrides = None,
    host: Host = None,
    follow: Annotated[bool, typer.Option(help="Follow the run until it ends.")] = False,
    pipeline: Graph = "train",
    parameters: Annotated[
        list[str] | None,
        typer.Option(
            "--param", help="name=value, a parameter of the pipeline: source.", metavar="K=V"
        ),
    ] = None,
    kube_context: KubeContext = None,
    registry: AskRegistry = True,
    as_json: JsonLast = False,
) -> None:
    """Check, upload and start a run file on Kubeflow Pipelines."""
    from graftline_pipelines.cluster import submit as submission
    from graftline_pipelines.local.race_memory import settled
    from graftline_pipelines.local.screen import Screen
    from graftline_pipelines.runfile.load import load

    graph, given = graph_name(pipeline), _parameters(parameters or ())
    settings = settled(load(run_file, overrides or ()))
    console = Screen(stderr=as_json)
    _check_prediction(graph, settings, given, console)
    server = connect(host, settings.cluster.namespace, console)
    questions = submission.Questions(registry, kube_context)
    done = submission.submit(
        settings, graph, server, parameters=given, questions=questions, console=console
    )
    console.print(f"Run {done.run_name}: [bold]{done.run_id}[/]\n{done.link}", highlight=False)
    state = "PENDING"
    if follow:
        state = _follow(server, done.run_id, console, settings)
    if as_json:
        print(json.dumps(_submitted(done, state)))


def submit_predict(
    run_file: RunFile,
    overrides: Overrides = None,
    host: Host = None,
    source: Annotated[
        str | None, typer.Option(help="The images. Default: predict.source.", metavar="URI")
    ] = None,
    out: Annotated[
        str | None,
        typer.Option(
            "--out", "-o", help="The table to write. Default: predict.output.", metavar="URI"
        ),
    ] = None,
    follow: Annotated[bool, typer.Option(help="Follow the run until it ends.")] = False,
    kube_context: KubeContext = None,
    registry: AskRegistry = True,
    as_json: JsonLast = False,
) -> None:
    """Classify the images of a bucket on Kubeflow Pipelines, with the champion."""
    given = {name: value for name, value in (("source", source), ("output", out)) if value}
    submit(
        run_file,
        overrides,
        host,
        follow,
        "predict",
        [f"{name}={json.dumps(value)}" for name, value in given.items()],
        kube_context,
        registry,
        as_json,
    )


def _check_prediction(graph: str, settings: Any, given: dict[str, Any], console: Any) -> None:
    """What a pod would find out after minutes, before a server is asked for anything."""
    if graph != "predict":
        return
    from rich.markup import escape

    from graftline_pipelines.cluster.package import SubmissionError, prediction_problems
    from graftline_pipelines.preflight.prediction import ask_prediction

    problems = prediction_problems(settings, given)
    notes: list[str] = []
    if not problems:
        with waiting("Asking for the model and the images"):
            problems, notes = ask_prediction(settings, given)
    for note in notes:
        console.print(f"[yellow]Note:[/] {escape(note)}", highlight=False)
    if problems:
        raise SubmissionError(problems)


def trigger(
    run_file: RunFile,
    overrides: Overrides = None,
    host: Host = None,
    reason: Annotated[
        str, typer.Option(help="What happened; shown on the run's page.")
    ] = "a data event",
    pipeline: Graph = "retrain",
    even_if_running: Annotated[
        bool, typer.Option("--even-if-running", help="Start a run even if one is already running.")
    ] = False,
    as_json: JsonLast = False,
) -> None:
    """Start a run because something happened, unless one is already running."""
    from graftline_pipelines.cluster import submit as submission
    from graftline_pipelines.local.race_memory import settled
    from graftline_pipelines.local.screen import Screen
    from graftline_pipelines.runfile.load import load

    graph = graph_name(pipeline)
    settings = settled(load(run_file, overrides or ()))
    console = Screen(stderr=as_json)
    _check_prediction(graph, settings, {}, console)
    server = connect(host, settings.cluster.namespace, console)
    active_runs = [] if even_if_running else submission.active_runs(settings, graph, server)
    if active_runs:
        console.print(
            f"{active_runs[0].display_name} is running ({active_runs[0].run_id}); it checks the "
            "data itself. Nothing was started.",
            highlight=False,
        )
        result: dict[str, Any] = {"started": False, "run_id": active_runs[0].run_id}
    else:
        done = submission.submit(
            settings,
            graph,
            server,
            parameters={},
            questions=submission.Questions(registry=False),
            console=console,
            description=f"Triggered by: {reason}",
        )
        console.print(f"Run {done.run_name}: [bold]{done.run_id}[/]\n{done.link}", highlight=False)
        result = {"started": True, **_submitted(done, "PENDING")}
    if as_json:
        print(json.dumps(result))


def runs(
    host: Host = None,
    experiment: Annotated[
        str | None, typer.Option(help="List only runs of this experiment.")
    ] = None,
    namespace: Namespace = None,
    limit: Annotated[int, typer.Option(min=1, max=200, help="The newest so many.")] = 20,
    runs_dir: RunsDir = DEFAULT_RUNS_DIR,
    local: Annotated[
        bool, typer.Option("--local", help="List local runs although a server is set.")
    ] = False,
    as_json: JsonLast = False,
) -> None:
    """List the newest runs: on the cluster, or on this machine if no server is set."""
    if local or not (host or any(os.environ.get(name) for name in SERVER_VARIABLES)):
        show_runs(runs_dir, limit, as_json=as_json)
        return
    from graftline_pipelines.cluster.runs.run_tasks import shown_state
    from graftline_pipelines.local.screen import Screen, show_table

    console = Screen(stderr=as_json)
    server = connect(host, namespace, console)
    found = server.runs(limit=limit, experiment=experiment)
    rows = []
    for run in found:
        started, minutes = _time(run.created_at), _minutes(run)
        rows.append((run.display_name, shown_state(run), started, minutes, run.run_id))
    if found:
        headings = ("Run", "State", "Started (UTC)", "Minutes", "Id")
        show_table(headings, rows, console, right=("Minutes",))
    else:
        console.print("No runs.")
    if as_json:
        print(json.dumps([_run(run, server) for run in found]))


def follow(
    run: RunName,
    host: Host = None,
    namespace: Namespace = None,
) -> None:
    """Follow a run on the cluster until it ends."""
    from graftline_pipelines.local.screen import Screen

    console = Screen()
    server = connect(host, namespace, console, by_id=True)
    found = server.find_run(run)
    console.print(server.link(found.run_id), highlight=False)
    state = _follow(server, found.run_id, console, None)
    console.print(f"{found.display_name} has ended: {state}.", highlight=False)


def logs(
    run: RunName,
    step: Annotated[
        str | None, typer.Argument(help="The step. Default: the one that failed.")
    ] = None,
    host: Host = None,
    namespace: Namespace = None,
    raw: Annotated[
        bool, typer.Option("--raw", help="Also show the lines of Argo and of Kubeflow's launcher.")
    ] = False,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on while it runs.")] = False,
) -> None:
    """Print what a step of a run on the cluster printed."""
    import sys

    from graftline_pipelines.cluster.runs import run_logs
    from graftline_pipelines.cluster.runs.run_tasks import shown_state
    from graftline_pipelines.cluster.server import ENDED
    from graftline_pipelines.local.screen import Screen

    server = connect(host, namespace, Screen(stderr=True), by_id=True)
    found = server.find_run(run)
    if not follow or found.state in ENDED:
        print(run_logs.log_of(server, found, step, raw=raw), end="")
        return

    def emit(text: str) -> None:
        print(text, end="", flush=True)

    follower = run_logs.LogFollower(server, found.run_id, step, raw, emit)
    try:
        ended = follower.follow()
    except KeyboardInterrupt:
        told()  # somebody has read enough; the run goes on
        raise typer.Exit(STOPPED) from None
    if ended.state in ENDED:
        print(f"{ended.display_name} has ended: {shown_state(ended)}.", file=sys.stderr)


def stop(
    run: RunName,
    host: Host = None,
    namespace: Namespace = None,
) -> None:
    """Stop a run on the cluster. What its finished steps computed is kept."""
    from graftline_pipelines.cluster.runs.dead_runs import close_dead
    from graftline_pipelines.cluster.runs.run_tasks import shown_state
    from graftline_pipelines.cluster.server import ENDED
    from graftline_pipelines.local.screen import Screen

    console = Screen()
    server = connect(host, namespace, console, by_id=True)
    found = server.find_run(run)
    if found.state in ENDED:
        said = f"{found.display_name} has already ended: {shown_state(found)}."
    else:
        server.stop(found.run_id)
        said = f"{found.display_name} is being stopped."
    console.print(said, highlight=False)
    close_dead(server, found, console, stopped=found.state not in ENDED)


def register(app: typer.Typer) -> None:
    """Add the commands of this module."""
    for command in (submit, submit_predict, runs, follow, logs, stop, trigger):
        app.command()(command)


def _parameters(given: Iterable[str]) -> dict[str, Any]:
    """``name=value`` options as values; what is not plainly a number or the like is text."""
    import yaml

    found = {}
    for option in given:
        name, separator, text = option.partition("=")
        if not separator or not name:
            raise typer.BadParameter(f"{option!r} is not name=value", param_hint="--param")
        try:
            found[name] = yaml.safe_load(text)
        except yaml.YAMLError:
            found[name] = text
    return found


def _follow(server: Any, run_id: str, console: Any, settings: Any) -> str:
    """Follow a run until it ends, or until the person who watches has seen enough."""
    from graftline_pipelines.cluster.runs import monitor

    pools, assign = (settings.pools, settings.assign) if settings else (None, None)
    try:
        ended = monitor.follow(server, run_id, console, pools=pools, assign=assign)
    except KeyboardInterrupt:
        console.print(
            f"\nNo longer followed; the run goes on. `graftline follow {run_id}` follows it again, "
            f"`graftline stop {run_id}` ends it.",
            highlight=False,
        )
        told()
        raise typer.Exit(STOPPED) from None
    return str(monitor.shown_state(ended))


def _submitted(done: Any, state: str) -> dict[str, Any]:
    return {
        "run_id": done.run_id,
        "run_name": done.run_name,
        "link": done.link,
        "pipeline_id": done.version.pipeline_id,
        "version_id": done.version.version_id,
        "version": done.version.name,
        "uploaded": done.version.uploaded,
        "state": state,
    }


def _run(run: Any, server: Any) -> dict[str, Any]:
    from graftline_pipelines.cluster.runs.run_tasks import was_stopped

    stopped = was_stopped(run)
    return {
        "run_id": run.run_id,
        "name": run.display_name,
        "state": "CANCELED" if stopped else run.state,
        "stopped": stopped,
        "created_at": run.created_at.isoformat(),
        "link": server.link(run.run_id),
    }


def _time(moment: Any) -> str:
    return f"{moment.astimezone(UTC):%Y-%m-%d %H:%M}" if moment is not None else ""


def _minutes(run: Any) -> str:
    if run.finished_at is None or run.finished_at.year <= 1970:
        return ""
    return f"{(run.finished_at - run.created_at).total_seconds() / 60:.1f}"

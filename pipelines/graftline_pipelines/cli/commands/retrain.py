"""``retrain``: look for changes here, and train if there are any."""

import json
from pathlib import Path
from typing import Any

import typer

from graftline_pipelines.cli.commands.race import chosen_backbone
from graftline_pipelines.cli.commands.run import show_failure
from graftline_pipelines.cli.options import (
    JsonLast,
    Overrides,
    RunFile,
    RunnerName,
    RunsDir,
    checking,
    chosen_runner,
)


def retrain(
    run_file: RunFile,
    overrides: Overrides = None,
    as_json: JsonLast = False,
    runs_dir: RunsDir = Path(".graftline/runs"),
    runner: RunnerName = "subprocess",
) -> None:
    """Compare the source with the champion's data; train only if something changed."""
    from rich.console import Console

    from graftline.steps.runtime import read_result
    from graftline_pipelines.local import run, summary
    from graftline_pipelines.preflight import examine as preflight
    from graftline_pipelines.runfile.load import load

    settings = load(run_file, overrides or ())
    chosen = chosen_runner(runner)
    console = Console(stderr=as_json)
    settings = chosen_backbone(settings, console)
    with checking(console) as asking:
        preflight.require(run.with_absolute_paths(settings), console, asking)
        from graftline_pipelines.graphs.retraining import retraining_pipeline

    def build(resolved: Any, run_id: str) -> Any:
        return retraining_pipeline(resolved, run_id, on_cluster=False)

    try:
        finished = run.run(
            settings, build, runs_dir=runs_dir, console=console, runner=chosen, retrain=True
        )
    except run.StepFailed as failure:
        show_failure(failure, Console(stderr=True, soft_wrap=True))
        raise typer.Exit(1) from None
    looked = dict(read_result(finished.run_dir, "watch") or {})
    # A browser wants the ending; the artifact has none.
    looked["page"] = summary.placed(looked.get("page"), finished.run_dir / "watch.html")
    _show(looked, console)
    result: dict[str, Any] = {"run_id": finished.run_id, "run_dir": str(finished.run_dir)}
    if looked.get("start"):
        result = summary.summarise(finished, settings)
        summary.show(result, console, None)
    else:
        result["seconds"] = {**finished.seconds, "total": round(finished.total_seconds, 2)}
    if as_json:
        print(json.dumps({**result, "watch": looked, "trained": bool(looked.get("start"))}))


def register(app: typer.Typer) -> None:
    """Add the command of this module."""
    app.command()(retrain)


def _show(looked: dict[str, Any], console: Any) -> None:
    from graftline_pipelines.local import summary

    said = "[green]Training was started.[/]" if looked.get("start") else "Nothing to train."
    console.print(f"\n{said}")
    for reason in looked.get("reasons", []):
        console.print(f"  {reason}", highlight=False, markup=False)
    if looked.get("page"):
        page = f"  Page: {summary.short(looked['page'])}"
        console.print(page, highlight=False, soft_wrap=True)  # to be copied whole

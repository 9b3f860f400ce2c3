"""``retrain``: check for changes here, and train if there are any."""

import json
from pathlib import Path
from typing import Any

import typer

from graftline_pipelines.cli.commands.here import run_here
from graftline_pipelines.cli.options import JsonLast, Overrides, RunFile, RunnerName, RunsDir


def retrain(
    run_file: RunFile,
    overrides: Overrides = None,
    as_json: JsonLast = False,
    runs_dir: RunsDir = Path(".graftline/runs"),
    runner: RunnerName = "subprocess",
) -> None:
    """Compare the source with the champion's data; train only if something changed."""
    here = run_here(
        run_file, overrides, runs_dir=runs_dir, runner=runner, as_json=as_json, retrain=True
    )
    from graftline.steps.runtime import read_result
    from graftline_pipelines.local import summary
    from graftline_pipelines.local.sample import test_image

    finished = here.finished
    checked = dict(read_result(finished.run_dir, "watch") or {})
    # A browser wants the ending; the artifact has none.
    checked["page"] = summary.placed(checked.get("page"), finished.run_dir / "watch.html")
    _show(checked, here.console)
    result: dict[str, Any] = {"run_id": finished.run_id, "run_dir": str(finished.run_dir)}
    if checked.get("start"):
        result = summary.summarise(finished, here.settings)
        sample = test_image(here.settings.data.source, result["onnx"])
        summary.show(result, here.console, sample)
    else:
        result["seconds"] = {**finished.seconds, "total": round(finished.total_seconds, 2)}
    if as_json:
        print(json.dumps({**result, "watch": checked, "trained": bool(checked.get("start"))}))


def register(app: typer.Typer) -> None:
    """Add the command of this module."""
    app.command()(retrain)


def _show(checked: dict[str, Any], console: Any) -> None:
    from graftline_pipelines.local import summary

    reasons = checked.get("reasons", [])
    said = "[green]Trained[/]" if checked.get("start") else "Nothing to train"
    console.print(f"\n{said}{', because:' if reasons else '.'}")
    for reason in reasons:
        console.print(f"  {reason}", highlight=False, markup=False)
    if checked.get("page"):
        page = f"  Page: {summary.short(checked['page'])}"
        console.print(page, highlight=False, soft_wrap=True)  # to be copied whole

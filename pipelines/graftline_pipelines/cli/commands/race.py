"""``race``: which backbone suits the data, and ``backbone: auto``."""

import json
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer

from graftline_pipelines.cli.options import JsonLast, Overrides, RunFile


def race(
    run_file: RunFile,
    overrides: Overrides = None,
    backbones: Annotated[
        str | None,
        typer.Option(
            help="Names, separated by commas. Default: `race.backbones` of the run file.",
            metavar="A,B,C",
            show_default=False,
        ),
    ] = None,
    budget: Annotated[
        float | None,
        typer.Option(
            min=0.0,
            help="Begin no measurement that would likely end after so many minutes.",
            metavar="MINUTES",
            show_default=False,
        ),
    ] = None,
    html: Annotated[
        Path, typer.Option(help="Where the page with the charts is written.", metavar="FILE")
    ] = Path("race.html"),
    as_json: JsonLast = False,
) -> None:
    """Let backbones compete on a sample of the data: accuracy against time and size."""
    from graftline.models.known import check_known
    from graftline_pipelines.local.race_memory import candidates, run_race
    from graftline_pipelines.local.run import with_absolute_paths
    from graftline_pipelines.local.screen import Screen
    from graftline_pipelines.runfile.load import load

    settings = with_absolute_paths(load(run_file, overrides or ()))
    given = [name.strip() for name in (backbones or "").split(",") if name.strip()]
    names = given or list(candidates(settings))
    for name in names:
        check_known(name)
    console = Screen(stderr=as_json)
    limit = settings.race.minutes if budget is None else budget
    with console.status(f"Racing {', '.join(names)}"):
        result = run_race(settings, names, limit)
    _write_page(result, html)
    _show(result, html, console)
    if as_json:
        print(json.dumps(asdict(result)))


def chosen_backbone(settings: Any, console: Any) -> Any:
    """The settings with a name for ``backbone: auto``; the first time a race finds it.

    Args:
        settings: The run file.
        console: Where the race is shown.
    """
    from graftline_pipelines.runfile.settings import AUTO_BACKBONE

    if settings.backbone != AUTO_BACKBONE:
        return settings
    from graftline_pipelines.local.race_memory import raced

    with console.status("Racing the backbones of race.backbones, the first time only"):
        settings = raced(settings, lambda result: _show_table(result, console))
    console.print(f"backbone: {settings.backbone}", highlight=False, markup=False)
    return settings


def _write_page(result: Any, path: Path) -> None:
    from graftline.files import write_atomic
    from graftline_pipelines.local.race_page import render

    write_atomic(path, render(result).encode())


def _show(result: Any, page: Path, console: Any) -> None:
    _show_table(result, console)
    if result.unmeasured:
        left = ", ".join(result.unmeasured)
        console.print(f"The budget left no time for: {left}", markup=False)
    console.print(result.why, markup=False, highlight=False)
    console.print(f"Charts: {page}", markup=False, highlight=False)
    console.print(f"\nbackbone: {result.chosen}", markup=False, highlight=False)


def _show_table(result: Any, console: Any) -> None:
    from graftline_pipelines.local.screen import show_table

    figures = ("Accuracy", "95% interval", "Images", "ms/image", "MB")
    rows = [
        (
            e.name,
            f"{e.accuracy:.1%}",
            "{:.1%} to {:.1%}".format(*e.interval),
            f"{e.images:,}",
            f"{e.latency_ms:.1f}",
            f"{e.megabytes:.1f}",
            "front" if e.pareto else "",
            e.stopped,
        )
        for e in result.entrants
    ]
    chosen = [number for number, e in enumerate(result.entrants) if e.name == result.chosen]
    headings = ("Backbone", *figures, "Pareto", "Stopped")
    show_table(headings, rows, console, right=figures, bold=chosen)


def register(app: typer.Typer) -> None:
    """Add this command."""
    app.command()(race)

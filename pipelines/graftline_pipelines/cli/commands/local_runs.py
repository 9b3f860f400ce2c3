"""``compare`` and ``open``, and what ``runs`` lists where no server is set: local runs."""

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from graftline_pipelines.cli.options import JsonBeside, RunsDir

DEFAULT_RUNS_DIR = Path(".graftline/runs")
LocalRun = (
    "A run's id, its start or its end; its folder; `latest`, the newest that has it; or "
    "`previous`, the one before."
)


def note(text: str) -> None:
    """Say something beside the command's own output."""
    from rich.markup import escape

    from graftline_pipelines.local.screen import Screen

    console = Screen(stderr=True, highlight=False)
    console.print(f"[yellow]Note:[/] {escape(text)}")


def compare(
    first: Annotated[str, typer.Argument(metavar="A", help=LocalRun)],
    second: Annotated[str, typer.Argument(metavar="B", help=LocalRun)],
    runs_dir: RunsDir = DEFAULT_RUNS_DIR,
    as_json: JsonBeside = False,
) -> None:
    """Compare two local runs: settings, data, figures, and both on the same images.

    The answers that each run kept on its test images are compared; no model is run.
    """
    from graftline.errors import ConfigurationError
    from graftline_pipelines.local import comparison
    from graftline_pipelines.local.runs import EVALUATION, find_run
    from graftline_pipelines.local.screen import Screen

    said: dict[str, None] = {}  # each note once, though both names lead to it
    one, other = (find_run(runs_dir, name, EVALUATION, said.setdefault) for name in (first, second))
    for text in said:
        note(text)
    if one.folder.resolve() == other.folder.resolve():
        raise ConfigurationError(
            f"A and B are the same run, {one.run_id}.",
            fix="`graftline compare previous latest` compares the last two; `graftline runs` "
            "lists all.",
        )
    found = comparison.compare(one, other)
    console = Screen(stderr=as_json, highlight=False)
    console.print(f"A  {one.run_id}\nB  {other.run_id}", soft_wrap=True)
    if found.settings is None:
        console.print("\nSettings are not compared: an older version of Graftline kept none.")
    else:
        _table("Settings that differ", found.settings, console)
    _table("Data that differ", found.data, console)
    if found.images:
        counts = ", ".join(f"{count:,} {name}" for name, count in found.images.items())
        console.print(f"  Images: {counts}.", markup=False)
    _table("Figures on each run's own test images", found.figures, console)
    _show_paired(found.paired, console)
    if as_json:
        print(json.dumps({"first": one.run_id, "second": other.run_id, **found.as_dict()}))


def open_(
    run: Annotated[
        str | None,
        typer.Argument(metavar="RUN", help=f"{LocalRun} Default: the page of all runs."),
    ] = None,
    page: Annotated[str, typer.Option(help="report, decision or data.")] = "report",
    runs_dir: RunsDir = DEFAULT_RUNS_DIR,
) -> None:
    """Open a local run's report in the browser, or the page of all runs."""
    import webbrowser

    from graftline.errors import ConfigurationError
    from graftline_pipelines.local.runs import find_run, list_runs, page_need

    if page not in ("report", "decision", "data"):
        said = f"{page!r} is neither report nor decision nor data"
        raise typer.BadParameter(said, param_hint="--page")
    if run is None:
        if not list_runs(runs_dir):
            raise ConfigurationError(
                f"There are no runs in {runs_dir}.",
                fix="Go to the folder that `graftline run` ran in, or give --runs-dir.",
            )
        path: Path | None = _index(runs_dir)
    else:
        path = find_run(runs_dir, run, page_need(page), note).page(page)
    assert path is not None
    print(path.absolute())
    if not webbrowser.open(path.absolute().as_uri()):
        typer.echo("No browser was found; open the file yourself.", err=True)


def _index(runs_dir: Path) -> Path:
    """The page of all runs, written again; where nothing can be written, the last one."""
    from graftline.errors import StoreError
    from graftline_pipelines.local.index import INDEX_FILE, write_index

    try:
        return write_index(runs_dir)
    except StoreError:
        if not (runs_dir / INDEX_FILE).is_file():
            raise
        note("The page of all runs cannot be written here: this is the last one.")
        return runs_dir / INDEX_FILE


def show_runs(runs_dir: Path, limit: int, *, as_json: bool) -> None:
    """List the newest local runs."""
    from graftline_pipelines.local.index import accuracy
    from graftline_pipelines.local.runs import list_runs
    from graftline_pipelines.local.screen import Screen, show_table

    found = list_runs(runs_dir)
    if as_json:
        print(json.dumps([run.as_dict() for run in found[:limit]]))
        return
    console = Screen(highlight=False)
    if not found:
        console.print(f"No runs in {runs_dir}.", markup=False)
        return
    rows = []
    for run in found[:limit]:
        started = f"{run.started:%Y-%m-%d %H:%M}" if run.started else ""
        seconds = f"{sum(run.seconds.values()):.0f}" if run.seconds else ""
        strategy = run.strategy or ""
        rows.append((run.run_id, started, seconds, strategy, accuracy(run), run.outcome()))
    headings = ("Run", "Started (UTC)", "Seconds", "Strategy", "Test accuracy", "Outcome")
    show_table(headings, rows, console, right=("Seconds",))
    if len(found) > limit:
        console.print(f"{len(found) - limit:,} more: `--limit {len(found)}` shows all.")


def _table(title: str, pairs: dict[str, tuple[Any, Any]], console: Any) -> None:
    from graftline_pipelines.local.screen import show_table

    console.print(f"\n[bold]{title}[/]" + ("" if pairs else ": none"))
    if not pairs:
        return
    rows = [(f"  {key}", _said(one), _said(other)) for key, (one, other) in pairs.items()]
    show_table(("", "A", "B"), rows, console)


def _show_paired(paired: Any, console: Any) -> None:
    from graftline_pipelines.local.screen import show_indented

    console.print("\n[bold]On the same test images[/]")
    if paired is None:
        console.print("  The runs have no test images in common, or kept no answers.")
        return
    one, other = paired.accuracy
    said = [
        f"{paired.images:,} images: A {one:.1%}, B {other:.1%}. Only A is right on "
        f"{paired.only_first:,}, only B on {paired.only_second:,}.",
        paired.sentence().replace("The second", "B").replace("The first", "A"),
    ]
    if paired.relabelled:
        said.append(f"{paired.relabelled:,} with different labels are left out.")
    show_indented(said, console)


def _said(value: Any) -> str:
    if value is None:
        return "–"
    if isinstance(value, dict) and "value" in value:
        interval = value["interval"]
        span = f" ({interval[0]:.4f} to {interval[1]:.4f})" if interval else ""
        return f"{value['value']:.4f}{span}"
    if isinstance(value, str):
        return value or "(empty)"
    return json.dumps(value, ensure_ascii=False)


def register(app: typer.Typer) -> None:
    """Add the commands of this module."""
    app.command()(compare)
    app.command("open")(open_)

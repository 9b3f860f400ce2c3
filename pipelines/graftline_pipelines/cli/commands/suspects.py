"""``suspects``: images whose labels are probably wrong, for a person to look at."""

import csv
import json
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from graftline_pipelines.cli.commands.local_runs import DEFAULT_RUNS_DIR, LocalRun, note
from graftline_pipelines.cli.options import JsonBeside, RunsDir

COLUMNS = ("image", "source", "given", "likely", "confidence")
FORMULA = ("=", "+", "-", "@", "\t", "\r")  # a spreadsheet would compute a cell that begins so


def suspects(
    run: Annotated[str, typer.Argument(metavar="RUN", help=LocalRun)] = "latest",
    file: Annotated[
        Path | None, typer.Argument(metavar="FILE", help="With --csv: write it to this file.")
    ] = None,
    as_csv: Annotated[
        bool, typer.Option("--csv", help="All that are recorded as CSV, to FILE or printed.")
    ] = False,
    limit: Annotated[int, typer.Option(min=1, help="Rows of the table at most.")] = 20,
    runs_dir: RunsDir = DEFAULT_RUNS_DIR,
    as_json: JsonBeside = False,
) -> None:
    """List the training images whose labels are probably wrong, the least credible first.

    A classifier that has not seen them is confident of another class.
    """
    from graftline.files import os_errors, write_atomic
    from graftline_pipelines.local.screen import Screen

    if as_csv and file is None and run.endswith(".csv"):  # `--csv FILE`, as most commands take it
        run, file = "latest", Path(run)
    name, found = _recorded(runs_dir, run)
    rows = [(image["image_id"], *(image[key] for key in COLUMNS[1:])) for image in found["images"]]
    if file is not None and not as_csv:
        raise typer.BadParameter("a file is written with --csv only", param_hint="FILE")
    if as_csv and as_json and file is None:
        raise typer.BadParameter("name a FILE for the CSV beside --json", param_hint="FILE")
    printed = as_csv and file is None
    console = Screen(stderr=as_json or printed, highlight=False)
    if printed:
        sys.stdout.write(_csv(rows))
    elif file is not None:
        with os_errors(str(file), "write"):
            write_atomic(file, _csv(rows).encode())
    else:
        _show(rows[:limit], console)
    said = _summary(name, found, len(rows), None if as_csv else limit)
    console.print(said, markup=False)
    if file is not None:
        console.print(f"Written: {file}", markup=False)
    if as_json:
        print(json.dumps({"run": name, **found}))


def _recorded(runs_dir: Path, run: str) -> tuple[str, dict[str, Any]]:
    """The run's id and what its decision record says of suspects."""
    from graftline.errors import ConfigurationError
    from graftline.records.decision import parse_decision
    from graftline_pipelines.local.runs import DECISION, find_run

    found = find_run(runs_dir, run, DECISION, note)
    record = found.result("fit_head")["decision"]
    decision = parse_decision(record, str(found.folder / "steps" / "fit_head.json"))
    suspected = decision.figures.get("suspects")
    if suspected is None:
        raise ConfigurationError(
            f"{found.run_id} did not look for label errors.",
            why="An older version of Graftline ran it.",
            fix="Run it again: the features are kept, so that it takes seconds.",
        )
    return found.run_id, suspected


def _show(rows: list[tuple[Any, ...]], console: Any) -> None:
    from graftline_pipelines.local.screen import show_table

    if not rows:
        return
    cells = [
        (source, given, likely, f"{confidence:.0%}")
        for _, source, given, likely, confidence in rows
    ]
    headings = ("File", "Given", "Likely", "Confidence")
    show_table(headings, cells, console, right=("Confidence",))


def _summary(run: str, found: dict[str, Any], kept: int, limit: int | None) -> str:
    count, of = found["count"], found["of"]
    if not count:
        return f"No label of the {of:,} training images of {run} looks wrong."
    said = f"{count:,} of {of:,} training images of {run} are suspect."
    if kept < count:
        said += f" The record keeps the first {kept:,}."
    if limit is not None and limit < kept:
        said += f" `--limit {kept}` shows {'all' if kept == count else 'these'}."
    return said


def _csv(rows: list[tuple[Any, ...]]) -> str:
    """CSV with a header, cells that a spreadsheet would compute marked as text."""
    from io import StringIO

    out = StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(COLUMNS)
    for row in rows:
        writer.writerow(
            "'" + cell if isinstance(cell, str) and cell.startswith(FORMULA) else cell
            for cell in row
        )
    return out.getvalue()


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command()(suspects)

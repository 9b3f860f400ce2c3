"""``relocate``: a project folder that was moved or copied."""

import json
from pathlib import Path
from typing import Annotated

import typer

from graftline_pipelines.cli.options import AsJson, Overrides

OptionalRunFile = Annotated[
    Path | None,
    typer.Argument(metavar="[RUN.yaml]", help="The run file, for its tracking.uri."),
]
TrackingUri = Annotated[
    str | None,
    typer.Option("--tracking", help="MLflow's tracking URI, if there is no run file."),
]


def relocate(
    run_file: OptionalRunFile = None,
    overrides: Overrides = None,
    tracking: TrackingUri = None,
    as_json: AsJson = False,
) -> None:
    """Let a local MLflow find its files after the project was moved or copied.

    MLflow's database names files by absolute paths. A moved folder is also brought in order by the
    next run; a copy only by this command.
    """
    from graftline.errors import ConfigurationError
    from graftline.tracking import relocation
    from graftline_pipelines.cli.options import DEFAULT_TRACKING

    uri = tracking or DEFAULT_TRACKING
    if run_file is not None:
        from graftline_pipelines.runfile.load import load

        uri = load(run_file, overrides or ()).tracking.uri
    database = relocation.database_of(uri)
    if database is None:
        raise ConfigurationError(
            f"{uri} is not a local database.",
            why="A server keeps its files where it is told to; moving a folder does not matter.",
        )
    if not database.is_file():
        raise ConfigurationError(
            f"There is no database {database}.",
            fix="Go to the folder that `graftline run` ran in, or give the run file.",
        )
    changed, before = 0, []
    while (moved := relocation.find(uri)) is not None and str(moved.before) not in before:
        changed += relocation.apply(moved)
        before.append(str(moved.before))
    if as_json:
        print(json.dumps({"database": str(database), "before": before, "changed": changed}))
    elif not before:
        print(f"{database} names the files where they are. Nothing to do.")
    else:
        print(f"{changed:,} records named files in {', '.join(before)}; they name them here now.")


def register(app: typer.Typer) -> None:
    """Add the command of this module."""
    app.command()(relocate)

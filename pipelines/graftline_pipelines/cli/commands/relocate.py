"""``relocate``: a project folder that was moved or copied."""

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from graftline_pipelines.cli.options import AsJson, Overrides

OptionalRunFile = Annotated[
    Path | None,
    typer.Argument(metavar="RUN.yaml", help="The run file, for its tracking.uri."),
]
TrackingUri = Annotated[
    str | None,
    typer.Option("--tracking", help="MLflow's tracking URI, if there is no run file."),
]
SourceWas = Annotated[
    str | None,
    typer.Option(
        "--source-was",
        metavar="FOLDER",
        help="Where data.source was: its images keep their splits, and are not fetched again.",
    ),
]


def relocate(
    run_file: OptionalRunFile = None,
    overrides: Overrides = None,
    tracking: TrackingUri = None,
    source_was: SourceWas = None,
    as_json: AsJson = False,
) -> None:
    """Let a local MLflow find its files after the project was moved or copied.

    MLflow's database names files by absolute paths. A moved folder is also brought in order by the
    next run; a copy only by this command. Images that were moved by themselves are new to a store
    unless --source-was says where they were.
    """
    from graftline.errors import ConfigurationError
    from graftline.tracking import relocation
    from graftline_pipelines.cli.options import DEFAULT_TRACKING
    from graftline_pipelines.local.screen import counted, say

    uri = tracking or DEFAULT_TRACKING
    settings = None
    if run_file is not None:
        from graftline_pipelines.local.run import with_absolute_paths
        from graftline_pipelines.runfile.load import load

        settings = with_absolute_paths(load(run_file, overrides or ()))
        uri = settings.tracking.uri
    if source_was is not None:
        _carry(settings, source_was)
        return
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
        if settings is not None:
            from graftline_pipelines.preflight.examine import carry_source

            carry_source(settings, *moved.roots)
        before.append(str(moved.before))
    if as_json:
        print(json.dumps({"database": str(database), "before": before, "changed": changed}))
    elif not before:
        say(f"{database} names the files where they are. Nothing to do.")
    else:
        records = counted(changed, "record")
        say(f"{records} named files in {', '.join(before)} and name them here now.")


def _carry(settings: Any, source_was: str) -> None:
    """Let the run file's source keep the memory of the place where it was."""
    from graftline.errors import ConfigurationError
    from graftline.storage.uri import local_path
    from graftline_pipelines.local.screen import say
    from graftline_pipelines.preflight.examine import carry_source

    if settings is None:
        raise ConfigurationError(
            "--source-was needs the run file.",
            fix="graftline relocate RUN.yaml --source-was FOLDER",
        )
    before, now = local_path(source_was), local_path(settings.data.source)
    if before is None or now is None:
        raise ConfigurationError("--source-was is for folders and files of this machine.")
    before, now = before.resolve(), now.resolve()
    if not carry_source(settings, before, now):
        raise ConfigurationError(
            f"The store {settings.store} has nothing of {before} that it could use for {now}.",
            why="It knows nothing of the first, or a run has read the second already.",
            fix="Give the folder as an earlier run file named it.",
        )
    say(f"What was remembered of {before} is used for {now} from now on.")


def register(app: typer.Typer) -> None:
    """Add the command of this module."""
    app.command()(relocate)

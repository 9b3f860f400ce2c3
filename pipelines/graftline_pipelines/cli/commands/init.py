"""``init``: a first run file, from a look at the images."""

from pathlib import Path
from typing import Annotated

import typer


def init(
    source: Annotated[
        str,
        typer.Argument(
            metavar="FOLDER",
            help="The images: a folder, a table, tar shards, or s3://bucket/prefix.",
            show_default=False,
        ),
    ],
    out: Annotated[
        Path | None, typer.Option("--out", "-o", help="The run file. Default: by the folder.")
    ] = None,
    name: Annotated[
        str | None, typer.Option(help="The run file's name. Default: by the folder.")
    ] = None,
) -> None:
    """Look at your images and write a first run file. Nothing is overwritten."""
    import shlex

    from rich.markup import escape

    from graftline.data.absent import refuse_absent
    from graftline.errors import ConfigurationError, StoreNotFound
    from graftline.files import os_errors
    from graftline_pipelines.local.screen import Screen, show_error
    from graftline_pipelines.preflight.starter import name_of, starter

    if Path(source).suffix in (".yaml", ".yml"):
        raise ConfigurationError(
            f"{source} is a run file by its name, not a folder of images.",
            fix=f"`graftline check {source}` checks a run file; `graftline init` takes the images.",
        )
    try:
        refuse_absent(source, "Give the folder of your images.")
    except StoreNotFound as error:  # a mistake in what was typed
        raise ConfigurationError(error.what, fix=error.fix) from None
    path = out or Path(f"{name or name_of(source)}.yaml")
    if path.exists():
        raise ConfigurationError(
            f"{path} exists already, and is left as it is.",
            fix="Give another file with --out, or remove it.",
        )
    console = Screen(highlight=False)
    with console.status(f"Looking at {source} ..."):
        made = starter(source, name)
    if made.problem is not None and made.empty:
        raise made.problem
    with os_errors(str(path), "write"), path.open("x", encoding="utf-8") as stream:
        stream.write(made.text)
    for text in made.found:
        console.print(text, markup=False)
    console.print(f"Wrote [bold]{escape(str(path))}[/]")
    if made.problem is not None:
        show_error(f"{made.problem}\n{path} says the same: correct it there.")
        raise typer.Exit(1)
    named = shlex.quote(str(path))
    said = f"[bold]Next:[/]\n  graftline check {escape(named)}\n  graftline run {escape(named)}"
    console.print(f"\n{said}", soft_wrap=True)


def register(app: typer.Typer) -> None:
    """Add the command of this module."""
    app.command()(init)

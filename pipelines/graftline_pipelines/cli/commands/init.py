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
    from rich.console import Console

    from graftline.data.absent import refuse_absent
    from graftline.errors import ConfigurationError
    from graftline.files import os_errors
    from graftline_pipelines.preflight.starter import name_of, starter

    refuse_absent(source, "Give the folder of your images.")
    path = out or Path(f"{name or name_of(source)}.yaml")
    if path.exists():
        raise ConfigurationError(
            f"{path} exists already, and is left as it is.",
            fix="Give another file with --out, or remove it.",
        )
    console = Console(highlight=False)
    with console.status(f"Looking at {source} ..."):
        made = starter(source, name)
    with os_errors(str(path), "write"), path.open("x", encoding="utf-8") as stream:
        stream.write(made.text)
    for text in made.found:
        console.print(text, markup=False, soft_wrap=not console.is_terminal)
    console.print(f"Wrote [bold]{path}[/]", soft_wrap=True)
    if made.problem is not None:
        typer.echo(f"Error: {made.problem}", err=True)
        typer.echo(f"{path} says the same: correct it there.", err=True)
        raise typer.Exit(1)
    console.print(f"\n[bold]Next:[/]\n  graftline check {path}\n  graftline run {path}")


def register(app: typer.Typer) -> None:
    """Add the command of this module."""
    app.command()(init)

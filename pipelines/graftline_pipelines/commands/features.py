"""``features``: what is stored, what of it is damaged, and what no one uses."""

import json
from typing import Annotated

import typer

StoreUri = Annotated[str, typer.Option("--store", help="URI of the store.", metavar="URI")]
AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON value, tables to stderr.")]

features_app = typer.Typer(help="Stored features: what there is, and what no one uses.")


@features_app.command("ls")
def list_features(store: StoreUri, as_json: AsJson = False) -> None:
    """Show what is stored under which backbone."""
    from rich.console import Console
    from rich.table import Table

    from graftline.feature_upkeep import stored
    from graftline.store import open_store

    found = stored(open_store(store))
    console = Console(stderr=as_json)
    table = Table(box=None, padding=(0, 2))
    for column in ("Backbone", "Precision", "Images", "Parts", "Size", "Damaged", "Fingerprint"):
        table.add_column(column, justify="left" if column[0] in "BF" else "right")
    for one in found:
        table.add_row(
            one.backbone or "unknown",
            one.precision,
            f"{one.images:,}",
            f"{one.parts:,}",
            _size(one.bytes),
            str(one.damaged),
            one.fingerprint,
        )
    console.print(table if found else "No features are stored there.")
    if as_json:
        print(json.dumps([one.__dict__ for one in found]))


@features_app.command("gc")
def collect(
    store: StoreUri,
    keep: Annotated[
        list[str] | None,
        typer.Option(help="Keep only what this snapshot uses; may be given again.", metavar="ID"),
    ] = None,
    yes: Annotated[
        bool, typer.Option("--yes", help="Remove; else only say what would be.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Remove the features that no kept snapshot uses."""
    from rich.console import Console

    from graftline.feature_upkeep import collect_garbage
    from graftline.store import open_store

    console = Console(stderr=as_json, soft_wrap=True, highlight=False)
    removals = []
    for removal in collect_garbage(open_store(store), keep, remove=yes):
        removals.append(removal.__dict__)
        console.print(
            f"{removal.fingerprint}: {removal.images:,} images {'removed' if yes else 'unused'}, "
            f"{removal.kept:,} kept"
        )
    if not yes and any(removal["images"] for removal in removals):
        console.print("Nothing was removed. Give --yes to remove them.")
    if as_json:
        print(json.dumps({"removed": yes, "features": removals}))


def _size(size: float) -> str:
    for unit in ("B", "KiB", "MiB", "GiB"):
        if size < 1024:
            return f"{size:,.0f} {unit}" if unit == "B" else f"{size:,.1f} {unit}"
        size /= 1024
    return f"{size:,.1f} TiB"


def register(app: typer.Typer) -> None:
    """Add these commands."""
    app.add_typer(features_app, name="features")

"""``features``: what is stored, what of it is damaged, and what no one uses."""

import json
from dataclasses import asdict
from typing import Annotated, Any

import typer

from graftline_pipelines.cli.options import DEFAULT_STORE, JsonValue, StoreUri

features_app = typer.Typer(
    help="Stored features: list them, and remove unused ones.", no_args_is_help=True
)


@features_app.command("ls")
def list_features(
    store: StoreUri = DEFAULT_STORE,
    check: Annotated[
        bool, typer.Option("--check", help="Read every part and compare it with its digest.")
    ] = False,
    as_json: JsonValue = False,
) -> None:
    """Show what is stored under which backbone, and which parts are damaged."""
    from rich.console import Console

    from graftline.features.gc import stored
    from graftline.storage import open_store

    place = open_store(store)
    place.check_there()
    found = stored(place, check=check)
    console = Console(stderr=as_json, highlight=False, markup=False)
    if not console.is_terminal:
        console.width = 140  # a file or a pipe has room for whole names
    if found:
        console.print(_table(found, check))
        _show_damaged(found, console)
    else:
        console.print(f"No features are stored in {store}.", soft_wrap=True)
    if check and found and not any(one.reasons for one in found):
        console.print(f"All {sum(one.parts for one in found):,} parts are whole.")
    if as_json:
        print(json.dumps([asdict(one) for one in found]))
    if any(one.reasons for one in found):
        raise typer.Exit(1)


@features_app.command("gc")
def collect(
    store: StoreUri = DEFAULT_STORE,
    keep: Annotated[
        list[str] | None,
        typer.Option(help="Keep only what this snapshot uses. Can be repeated.", metavar="ID"),
    ] = None,
    yes: Annotated[
        bool,
        typer.Option("--yes", help="Remove them. Without it, only show what would be removed."),
    ] = False,
    as_json: JsonValue = False,
) -> None:
    """Remove the features that no kept snapshot uses, and quarantined damaged parts."""
    from rich.console import Console

    from graftline.features.gc import collect_garbage
    from graftline.steps import kept_results
    from graftline.storage import open_store
    from graftline_pipelines.local.screen import counted

    console = Console(stderr=as_json, soft_wrap=True, highlight=False, markup=False)
    place = open_store(store)
    place.check_there()
    removals = []
    for removal in collect_garbage(place, keep, remove=yes):
        removals.append(removal)
        damaged = f", {removal.damaged:,} damaged parts" if removal.damaged else ""
        console.print(
            f"{removal.backbone or 'unknown'} ({removal.fingerprint}): "
            f"{removal.images:,} images{damaged} {'removed' if yes else 'to be removed'}, "
            f"{removal.kept:,} images kept"
        )
    files, size = kept_results.collect_garbage(place, remove=yes)
    if files:
        console.print(
            f"Results of steps: {counted(files, 'file')} ({_size(size)}) that no result names "
            f"{'removed' if yes else 'to be removed'}"
        )
    if not files and not any(removal.images or removal.damaged for removal in removals):
        console.print("There is nothing to remove: every stored vector is used.")
    elif not yes:
        console.print("Nothing was removed yet. Give --yes to remove it.")
    if as_json:
        found = [asdict(removal) for removal in removals]
        results = {"files": files, "bytes": size}
        print(json.dumps({"removed": yes, "features": found, "results": results}))


def _table(found: list[Any], checked: bool) -> Any:
    from rich.table import Table

    table = Table(box=None, padding=(0, 2, 0, 0))
    for column in ("Backbone", "Input", "Precision", "Images", "Parts", "Stored", "Damaged"):
        left = column in ("Backbone", "Precision")
        table.add_column(column, justify="left" if left else "right", no_wrap=True)
    table.add_column("Fingerprint", overflow="fold")
    for one in found:
        table.add_row(
            one.backbone or "unknown",
            f"{one.image_size} px" if one.image_size else "",
            one.precision,
            f"{one.images:,}",
            f"{one.parts:,}",
            _size(one.bytes),
            str(len(one.damaged)) if one.damaged else "none" if checked else "none known",
            one.fingerprint,
        )
    return table


def _show_damaged(found: list[Any], console: Any) -> None:
    """Name the damaged parts and say what happens to them."""
    quarantined = False
    for one in found:
        for key in one.damaged:
            quarantined |= key not in one.reasons
            reason = one.reasons.get(key, "quarantined by a run that found it damaged")
            console.print(f"Damaged: features/{one.fingerprint}/{key}: {reason}", soft_wrap=True)
    if any(one.reasons for one in found):
        console.print(
            "The next run that needs a damaged part quarantines it and computes its images again."
        )
    if quarantined:
        console.print(
            "A quarantined part is computed again when needed. `graftline features gc` removes it."
        )


def _size(size: float) -> str:
    for unit in ("B", "KiB", "MiB", "GiB"):
        if size < 1024:
            return f"{size:,.0f} {unit}" if unit == "B" else f"{size:,.1f} {unit}"
        size /= 1024
    return f"{size:,.1f} TiB"


def register(app: typer.Typer) -> None:
    """Add these commands."""
    app.add_typer(features_app, name="features")

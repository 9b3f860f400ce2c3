"""``features``: what is stored, what of it is damaged, and what no one uses."""

import json
from dataclasses import asdict
from typing import Annotated, Any

import typer

from graftline.storage.idle import DAYS
from graftline_pipelines.cli.options import DEFAULT_STORE, JsonValue, StoreUri
from graftline_pipelines.cli.plain_help import PlainGroup

features_app = typer.Typer(
    cls=PlainGroup, help="Stored features: list them, and remove unused ones.", no_args_is_help=True
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
    from graftline.features.gc import stored
    from graftline.storage import open_store
    from graftline_pipelines.local.screen import Screen

    place = open_store(store)
    place.check_there()
    found = stored(place, check=check)
    console = Screen(stderr=as_json, highlight=False, markup=False)
    if found:
        _show_table(found, check, console)
        _show_damaged(found, console)
    else:
        console.print(f"No features are stored in {store}.")
    if check and found and not any(one.reasons for one in found):
        parts = sum(one.parts for one in found)
        console.print("The one part is whole." if parts == 1 else f"All {parts:,} parts are whole.")
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
    _collect(store, keep, None, yes=yes, as_json=as_json)


def collect_all(
    store: StoreUri = DEFAULT_STORE,
    keep: Annotated[
        list[str] | None,
        typer.Option(help="Keep only features of this snapshot. Can be repeated.", metavar="ID"),
    ] = None,
    days: Annotated[
        float, typer.Option(min=1, help="Remove checkpoints of trainings unused for so many days.")
    ] = DAYS,
    yes: Annotated[
        bool,
        typer.Option("--yes", help="Remove it. Without it, only show what would be removed."),
    ] = False,
    as_json: JsonValue = False,
) -> None:
    """Remove what nothing in a store needs any more: features, results, old checkpoints.

    Images, snapshots, champions and weights are never removed.
    """
    _collect(store, keep, days, yes=yes, as_json=as_json)


def _collect(
    store: str, keep: list[str] | None, days: float | None, *, yes: bool, as_json: bool
) -> None:
    """Remove unused features and results and, with ``days``, what trainings left before that."""
    from graftline.features.gc import collect_garbage, snapshots
    from graftline.steps import kept_results
    from graftline.storage import open_store
    from graftline.storage.idle import collect_idle
    from graftline_pipelines.local.screen import Screen, counted, size_of

    console = Screen(stderr=as_json, highlight=False, markup=False)
    place = open_store(store)
    place.check_there()
    done = "removed" if yes else "to be removed"
    removals = []
    compares = bool(keep or snapshots(place) or days is None)
    if not compares:
        console.print("Features stay: the store has no snapshot that would say which are used.")
    for removal in collect_garbage(place, keep, remove=yes) if compares else ():
        removals.append(removal)
        damaged = f", {counted(removal.damaged, 'damaged part')}" if removal.damaged else ""
        console.print(
            f"{removal.backbone or 'unknown'} ({removal.fingerprint}): "
            f"{counted(removal.images, 'image')}{damaged} {done}, "
            f"{counted(removal.kept, 'image')} kept"
        )
    files, size = kept_results.collect_garbage(place, remove=yes)
    if files:
        what = counted(files, "file")
        console.print(f"Results of steps: {what} ({size_of(size)}) that no result names {done}")
    idle = [] if days is None else list(collect_idle(place, days=days, remove=yes))
    for one in idle:
        what = f"{one.entries:,} not written to for {days:g} days"
        amount = f"{counted(one.files, 'file')}, {size_of(one.bytes)}"
        console.print(f"{one.folder}: {what} ({amount}) {done}")
    if not files and not idle and not any(each.images or each.damaged for each in removals):
        console.print("There is nothing to remove: everything stored is used.")
    elif not yes:
        console.print("Nothing was removed yet. Give --yes to remove it.")
    if as_json:
        found: dict[str, Any] = {"removed": yes, "features": [asdict(each) for each in removals]}
        found["results"] = {"files": files, "bytes": size}
        if days is not None:
            found["idle"] = [asdict(each) for each in idle]
        print(json.dumps(found))


def _show_table(found: list[Any], checked: bool, console: Any) -> None:
    from graftline_pipelines.local.screen import show_table, size_of

    numbers = ("Input", "Images", "Parts", "Stored", "Damaged")
    headings = ("Backbone", "Input", "Precision", *numbers[1:], "Fingerprint")
    rows = [
        (
            one.backbone or "unknown",
            f"{one.image_size} px" if one.image_size else "",
            one.precision,
            f"{one.images:,}",
            f"{one.parts:,}",
            size_of(one.bytes),
            str(len(one.damaged)) if one.damaged else "none" if checked else "none known",
            one.fingerprint,
        )
        for one in found
    ]
    show_table(headings, rows, console, right=numbers)


def _show_damaged(found: list[Any], console: Any) -> None:
    """Name the damaged parts and say what happens to them."""
    quarantined = False
    for one in found:
        for key in one.damaged:
            quarantined |= key not in one.reasons
            reason = one.reasons.get(key, "quarantined by a run that found it damaged")
            console.print(f"Damaged: features/{one.fingerprint}/{key}: {reason}")
    if any(one.reasons for one in found):
        console.print(
            "The next run that needs a damaged part quarantines it and computes its images again."
        )
    if quarantined:
        console.print(
            "A quarantined part is computed again when needed. `graftline features gc` removes it."
        )


def register(app: typer.Typer) -> None:
    """Add these commands."""
    app.add_typer(features_app, name="features")
    app.command("gc")(collect_all)

"""``backbones``, ``mirror-weights`` and ``features``: what networks there are, what is stored."""

import json
from typing import Annotated, Any

import typer

StoreUri = Annotated[str, typer.Option("--store", help="URI of the store.", metavar="URI")]
AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON value, tables to stderr.")]

features_app = typer.Typer(help="Stored features: what there is, and what no one uses.")


def backbones(
    filter_: Annotated[
        str | None, typer.Argument(metavar="[FILTER|NAME]", help="Part of a name, or one name.")
    ] = None,
    store: Annotated[
        str | None, typer.Option("--store", help="Look for mirrored weights there.", metavar="URI")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """List the names that `backbone:` takes; with one name, show everything about it."""
    from graftline.backbones import is_name
    from graftline.store import open_store

    place = open_store(store) if store else None
    if filter_ is not None and is_name(filter_):
        _show_one(filter_, place, as_json)
    else:
        _show_table(filter_, place, as_json)


def mirror_weights(
    name: Annotated[str, typer.Argument(help="A backbone.")],
    store: StoreUri,
    weights: Annotated[
        str | None, typer.Option(help="Take them from this file or URI.", metavar="PLACE")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Put a backbone's pretrained weights into a store, for clusters with no way out."""
    from rich.console import Console

    from graftline.architectures import find
    from graftline.store import open_store
    from graftline.weights import mirror

    place = open_store(store)
    place.check_writable()
    mirrored = mirror(find(name), place, weights)
    console = Console(stderr=as_json, soft_wrap=True, highlight=False)
    console.print(f"Mirrored {name} ({_size(mirrored['bytes'])}) from {mirrored['origin']}.")
    console.print(f"sha256  {mirrored['sha256']}\nuri     {mirrored['uri']}")
    console.print("A run with this store uses them by itself; another takes the URI as `weights:`.")
    if as_json:
        print(json.dumps(mirrored))


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


def _show_one(name: str, store: Any, as_json: bool) -> None:
    from rich.console import Console
    from rich.table import Table

    from graftline.backbones import resolve

    spec = resolve(name, store=store)
    chosen = spec.preprocessing
    table = Table(box=None, padding=(0, 2), show_header=False)
    for label, value in (
        ("Name", spec.name),
        ("Parameters", f"{spec.parameters:,}"),
        ("Feature dimension", f"{spec.feature_dim:,}"),
        ("Input size", f"{chosen.input_size} px"),
        ("Resize", f"{chosen.resize_size} px, {chosen.interpolation}, {chosen.crop_mode} crop"),
        ("Mean", ", ".join(f"{value:g}" for value in chosen.mean)),
        ("Deviation", ", ".join(f"{value:g}" for value in chosen.std)),
        ("Weights", spec.weights),
        ("At hand", "yes" if spec.at_hand else "no"),
    ):
        table.add_row(label, value)
    Console(stderr=as_json, soft_wrap=True, highlight=False).print(table)
    if as_json:
        print(json.dumps(spec.to_dict()))


def _show_table(pattern: str | None, store: Any, as_json: bool) -> None:
    from rich.console import Console
    from rich.table import Table

    from graftline.architectures import find
    from graftline.catalogue import entries
    from graftline.weights import locate

    console = Console(stderr=as_json)
    table = Table(box=None, padding=(0, 2))
    for column in ("Name", "Parameters", "Features", "Input", "Weights"):
        table.add_column(column, justify="left" if column in ("Name", "Weights") else "right")
    found = []
    with console.status("Reading what timm and torchvision have"):
        for entry in entries(pattern):
            at_hand = locate(find(entry.name), None, store).at_hand
            state = "at hand" if at_hand else "download" if entry.pretrained else "none"
            found.append({**entry.__dict__, "at_hand": at_hand})
            table.add_row(
                entry.name,
                f"{entry.parameters / 1e6:.1f} M",
                f"{entry.feature_dim:,}",
                f"{entry.input_size}",
                state,
            )
    if found:
        console.print(table)
    else:
        console.print(f"No backbone's name contains '{pattern}'.")
    if as_json:
        print(json.dumps(found))


def _size(size: float) -> str:
    for unit in ("B", "KiB", "MiB", "GiB"):
        if size < 1024:
            return f"{size:,.0f} {unit}" if unit == "B" else f"{size:,.1f} {unit}"
        size /= 1024
    return f"{size:,.1f} TiB"


def register(app: typer.Typer) -> None:
    """Add these commands."""
    app.command()(backbones)
    app.command("mirror-weights")(mirror_weights)
    app.add_typer(features_app, name="features")

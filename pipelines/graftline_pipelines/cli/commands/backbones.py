"""``backbones`` and ``mirror-weights``: what networks there are, and where their weights are."""

import json
from typing import Annotated, Any

import typer

from graftline_pipelines.cli.options import JsonValue, StoreUri

COLUMNS = ("Name", "Parameters", "Features", "Input", "Weights")
TAGS_SHOWN = 12


def backbones(
    name: Annotated[
        str | None,
        typer.Argument(metavar="FILTER|NAME", help="A name, or part of one; * matches anything."),
    ] = None,
    store: Annotated[
        str | None,
        typer.Option(
            "--store", help="Also look for mirrored weights in this store.", metavar="URI"
        ),
    ] = None,
    image_size: Annotated[
        int | None, typer.Option(help="Show one backbone at this `image_size`.", metavar="PIXELS")
    ] = None,
    only_available: Annotated[
        bool,
        typer.Option(
            "--available-locally", "--at-hand", help="List only those that need no download."
        ),
    ] = False,
    as_json: JsonValue = False,
) -> None:
    """List the names that `backbone:` takes; with one name, show everything about it."""
    from graftline.models import lookup
    from graftline.models.names import BLOCKS
    from graftline.storage import open_store

    location = open_store(store) if store else None
    entry = lookup.one(name) if name else None
    tagged = name is not None and ("." in name or name.endswith(BLOCKS))
    if name is not None and entry is None and (tagged or image_size is not None):
        _check_known(name)
    if name is not None and (entry is not None or tagged):
        shown = _resolved(name, entry, location, image_size)
        _show_one(shown, _others(name), as_json)
    else:
        _show_table(name, location, only_available, as_json)


def mirror_weights(
    name: Annotated[str, typer.Argument(metavar="NAME", help="A backbone.")],
    store: StoreUri,
    weights: Annotated[
        str | None, typer.Option(help="Take them from this file or URI.", metavar="PLACE")
    ] = None,
    replace: Annotated[
        bool, typer.Option("--replace", help="Replace other weights of this backbone in the store.")
    ] = False,
    as_json: JsonValue = False,
) -> None:
    """Put a backbone's pretrained weights into a store, for air-gapped clusters."""
    from graftline.models.known import check_known
    from graftline.storage import open_store
    from graftline_pipelines.local.screen import Screen

    location = open_store(store)
    check_known(name)  # mistakes first: the libraries below take seconds to import
    location.check_writable()

    from graftline.models.architectures import find
    from graftline.models.weights.load import mirror

    architecture = find(name)
    mirrored = mirror(architecture, location, weights, replace=replace)
    console = Screen(stderr=as_json, highlight=False, markup=False)
    size = f"{mirrored['bytes'] / 2**20:,.1f} MiB"
    console.print(f"Mirrored {architecture.full_name} ({size}) from {mirrored['origin']}.")
    console.print(f"sha256  {mirrored['sha256']}\nuri     {mirrored['uri']}")
    console.print(
        f"A run with this store and `backbone: {name}` uses them by itself; a run with another "
        "store takes the URI as `weights:`."
    )
    if as_json:
        print(json.dumps(mirrored))


def _check_known(name: str) -> None:
    """Refuse an unknown name before PyTorch is imported."""
    from graftline.models import lookup
    from graftline.models.names import BLOCKS

    if lookup.one(name.removesuffix(BLOCKS).partition(".")[0]) is None:
        raise lookup.unknown(name)


def _resolved(name: str, entry: Any, store: Any, image_size: int | None) -> dict[str, Any]:
    """Everything about one backbone: out of the table where it says all, else by the library."""
    from graftline.models.weights import published

    if entry is None or image_size is not None:
        from graftline.models.architectures import find, tags_of
        from graftline.models.backbone import resolve

        spec = resolve(name, image_size=image_size, store=store)
        return {**spec.to_dict(), "tags": list(tags_of(find(name)))}
    library, _, architecture = entry.name.partition("/")
    origin = published.origin(entry.name, entry.source, store)
    return {
        "name": entry.name,
        "library": library,
        "architecture": architecture,
        "feature_dim": entry.feature_dim,
        "parameters": entry.parameters,
        "preprocessing": entry.preprocessing.to_dict(),
        "native_size": entry.preprocessing.input_size,
        "weights": origin.location,
        "available_locally": origin.available_locally,
        "tags": list(entry.tags),
    }


def _others(name: str) -> list[str]:
    """Other backbones whose names contain this one."""
    from graftline.models import lookup

    bare = name.rpartition("/")[2].partition("+")[0].partition(".")[0]
    return [entry.name for entry in lookup.entries(bare)][1:]


def _show_one(shown: dict[str, Any], others: list[str], as_json: bool) -> None:
    from rich.table import Table

    from graftline_pipelines.local.screen import Screen

    chosen = shown["preprocessing"]
    side, tags = chosen["input_size"], shown["tags"]
    rest = f" and {len(tags) - TAGS_SHOWN} more" if len(tags) > TAGS_SHOWN else ""
    table = Table(box=None, padding=(0, 2, 0, 0), show_header=False)
    table.add_column()
    table.add_column(overflow="fold")
    for label, value in (
        ("Name", shown["name"]),
        ("Parameters", f"{shown['parameters']:,} without a head"),
        ("Features", f"{shown['feature_dim']:,} wide"),
        ("Image size", f"{side} px" + _pretrained_at(side, shown["native_size"])),
        (
            "Preprocessing",
            f"{chosen['crop_mode']} crop of {side} out of {chosen['resize_size']} px, "
            f"{chosen['interpolation']}",
        ),
        ("Mean", ", ".join(f"{value:g}" for value in chosen["mean"])),
        ("Deviation", ", ".join(f"{value:g}" for value in chosen["std"])),
        ("Weights", shown["weights"]),
        ("Available locally", _available_locally(shown)),
        ("Published", f"{', '.join(tags[:TAGS_SHOWN])}{rest}" if tags else "none"),
    ):
        table.add_row(label, value)
    console = Screen(stderr=as_json, highlight=False, markup=False)
    console.print(table)
    if len(tags) > 1:
        console.print(
            f"The first one is the default; another: `backbone: {_bare(shown)}.{tags[1]}`."
        )
    if others:
        bare = shown["architecture"]
        console.print(
            f"{len(others):,} more names contain it: graftline backbones '*{bare}*'.",
            markup=False,
        )
    if as_json:
        print(json.dumps(shown))


def _bare(shown: dict[str, Any]) -> str:
    return f"{shown['library']}/{shown['architecture']}"


def _pretrained_at(side: int, native: int) -> str:
    return " (as pretrained)" if side == native else f" (pretrained with {native})"


def _available_locally(shown: dict[str, Any]) -> str:
    if shown["available_locally"]:
        return "yes"
    if not shown["tags"]:
        return "no: give `weights:` a checkpoint of it"
    return "no: downloaded at first use, or put in a store by `graftline mirror-weights`"


def _show_table(pattern: str | None, store: Any, only_available: bool, as_json: bool) -> None:
    from graftline.models import lookup

    found = list(lookup.entries(pattern))
    if not found and pattern:
        raise lookup.unknown(pattern)
    here = lookup.available_locally(found, store)
    if only_available:
        found = [entry for entry in found if entry.name in here]
    _print_table(found, here, as_json)
    if as_json:
        print(json.dumps([_listed(entry, entry.name in here) for entry in found]))


def _listed(entry: Any, available_locally: bool) -> dict[str, Any]:
    return {
        "name": entry.name,
        "parameters": entry.parameters,
        "feature_dim": entry.feature_dim,
        "input_size": entry.preprocessing.input_size,
        "pretrained": entry.pretrained,
        "available_locally": available_locally,
    }


def _print_table(found: list[Any], here: set[str], as_json: bool) -> None:
    from graftline_pipelines.local.screen import Screen, counted, show_table

    rows = [
        (
            entry.name,
            f"{entry.parameters / 1e6:,.1f} M",
            f"{entry.feature_dim:,}",
            f"{entry.preprocessing.input_size}",
            "available locally"
            if entry.name in here
            else "download"
            if entry.pretrained
            else "none published",
        )
        for entry in found
    ]
    console = Screen(stderr=as_json, highlight=False, markup=False)
    if found:
        numbers = [column for column in COLUMNS if column not in ("Name", "Weights")]
        show_table(COLUMNS, rows, console, right=numbers)
    console.print(
        f"{counted(len(found), 'backbone')}; the weights of {len(here):,} are available locally. "
        "`graftline backbones NAME` shows one."
    )


def register(app: typer.Typer) -> None:
    """Add these commands."""
    app.command()(backbones)
    app.command("mirror-weights")(mirror_weights)

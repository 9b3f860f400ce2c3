"""``data``: what the last run on a source took, and what it rejected and why."""

import json
import tempfile
from collections import Counter
from pathlib import Path
from typing import Annotated, Any

import typer

from graftline_pipelines.cli.options import JsonBeside, Overrides, RunFile

Reason = Annotated[
    str | None, typer.Option(help="Show only files rejected for a reason that contains this text.")
]
Limit = Annotated[int, typer.Option(min=0, help="Show at most this many rejected files.")]
HtmlFile = Annotated[
    Path | None, typer.Option("--html", help="Write the data page to this file.", metavar="FILE")
]
OpenPage = Annotated[bool, typer.Option("--open", help="Open the data page in the browser.")]


GROUPS_SHOWN, FILES_SHOWN = 5, 4


def data(
    run_file: RunFile,
    overrides: Overrides = None,
    reason: Reason = None,
    limit: Limit = 50,
    html: HtmlFile = None,
    open_page: OpenPage = False,
    as_json: JsonBeside = False,
) -> None:
    """Show what the last run took, by class and split, and what it rejected and why."""
    from graftline_pipelines.local import run
    from graftline_pipelines.local.screen import Screen
    from graftline_pipelines.runfile.load import load

    settings = run.with_absolute_paths(load(run_file, overrides or ()))
    snapshot = _last_snapshot(settings)
    page = _write_page(settings, snapshot, html) if html or open_page else None
    rejected = snapshot.set_aside.to_pylist()
    reasons = Counter(row["reason"] for row in rejected)
    shown = [row for row in rejected if reason is None or reason in row["reason"]]
    console = Screen(stderr=as_json, highlight=False)
    _show(snapshot, console)
    groups = _groups(snapshot)
    _show_alike(snapshot, groups, limit, console)
    if rejected:
        counts = ", ".join(f"{name} ({count:,})" for name, count in reasons.most_common())
        console.print(f"\nRejected: {len(rejected):,}: {counts}", markup=False)
        _show_rejected(shown[:limit], console)
    if len(shown) > limit:
        console.print(f"{len(shown) - limit:,} more: `--limit {len(shown)}` shows all.")
    if page is not None:
        console.print(f"Data page: {page}", markup=False)
    if page is not None and open_page:
        _open(page, console)
    if as_json:
        summary = {"snapshot_id": snapshot.id, "created": snapshot.created, "reasons": reasons}
        alike = {"groups": groups, **_alike(snapshot)}
        if snapshot.value_range is not None:
            summary["value_range"] = list(snapshot.value_range)
        summary["reading"] = dict(snapshot.reading)
        if page is not None:
            summary["page"] = str(page)
        print(
            json.dumps({**summary, "per_class": _per_class(snapshot), **alike, "set_aside": shown})
        )


def _last_snapshot(settings: Any) -> Any:
    from graftline.data.snapshot import fetch_snapshot
    from graftline.errors import DataError
    from graftline.steps.ingest.source_index import last_snapshot_id
    from graftline.storage import open_store
    from graftline_pipelines.preflight.data import open_settings_source

    store, source = open_store(settings.store), open_settings_source(settings)
    identity = last_snapshot_id(store, source.uri)
    if identity is None:
        raise DataError(
            f"{store.uri} has no snapshot of {source.uri}", fix="Run `graftline run` first."
        )
    with tempfile.TemporaryDirectory() as folder:
        return fetch_snapshot(store, identity, Path(folder))


def _write_page(settings: Any, snapshot: Any, file: Path | None) -> Path:
    from graftline.files import os_errors, write_atomic
    from graftline.steps.ingest.page import render
    from graftline.steps.ingest.page_evidence import gather
    from graftline.storage import open_store
    from graftline_pipelines.preflight.data import open_settings_source

    source = open_settings_source(settings)
    text = render(gather(snapshot, open_store(settings.store), source))
    path = file or Path(tempfile.mkdtemp(prefix="graftline-data-")) / "data.html"
    with os_errors(str(path), "write"):
        write_atomic(path, text.encode())
    return path.absolute()


def _open(page: Path, console: Any) -> None:
    import webbrowser

    if not webbrowser.open(page.as_uri()):
        console.print("No browser was found; open the file yourself.")


def _per_class(snapshot: Any) -> dict[str, dict[str, int]]:
    from graftline.data.snapshot import SPLITS

    pairs = Counter(zip(snapshot.column("label"), snapshot.column("split"), strict=True))
    return {label: {split: pairs[label, split] for split in SPLITS} for label in snapshot.classes}


def _show(snapshot: Any, console: Any) -> None:
    from graftline_pipelines.local.screen import counted, show_table

    created = snapshot.created.replace("T", " ").replace("+00:00", " UTC")
    console.print(f"Snapshot {snapshot.id} of {created}: {counted(len(snapshot), 'image')}")
    if snapshot.value_range is not None:
        low, high = snapshot.value_range
        console.print(f"Stored values: {low:g} is read as black, {high:g} as white")
    for note in snapshot.reading.get("notes", ()):
        console.print(note, markup=False)
    if snapshot.reading.get("tree"):
        console.print(snapshot.reading["tree"], markup=False)
    splits = ("train", "val", "test")
    rows = [
        (label, *(f"{count:,}" for count in counts.values()))
        for label, counts in _per_class(snapshot).items()
    ]
    console.print()
    show_table(("class", *splits), rows, console, right=splits)


def _groups(snapshot: Any) -> dict[str, list[str]]:
    """The files of each group of more than one image: near-duplicates, or the user's group."""
    groups: dict[str, list[str]] = {}
    for group, source in zip(snapshot.column("group"), snapshot.column("source"), strict=True):
        groups.setdefault(str(group), []).append(str(source))
    return {group: sorted(files) for group, files in groups.items() if len(files) > 1}


def _alike(snapshot: Any) -> dict[str, Any]:
    """Contradicting labels and what is left out of the evaluation, by file."""
    rows = snapshot.manifest.select(["image_id", "source", "label", "split"]).to_pylist()
    by_id = {row["image_id"]: row for row in rows}
    columns = ("source", "label", "split")
    return {
        "contradictions": [
            [{name: by_id[i][name] for name in columns} for i in pair]
            for pair in snapshot.contradictions
        ],
        "not_evaluated": [{n: by_id[i][n] for n in columns} for i in snapshot.not_evaluated],
    }


def _show_alike(snapshot: Any, groups: dict[str, list[str]], limit: int, console: Any) -> None:
    from graftline_pipelines.local.screen import counted, show_table

    if groups:
        images = sum(map(len, groups.values()))
        largest = sorted(groups.items(), key=lambda item: (-len(item[1]), item[1]))
        console.print(f"\n{images:,} images share {counted(len(groups), 'group')}; the largest:")
        for _, files in largest[: min(limit, GROUPS_SHOWN)]:
            more = f" and {len(files) - FILES_SHOWN:,} more" if len(files) > FILES_SHOWN else ""
            names = ", ".join(files[:FILES_SHOWN])
            console.print(f"  {len(files):,} images: {names}{more}", markup=False)
    alike = _alike(snapshot)
    if alike["contradictions"]:
        pairs = [
            (one["source"], str(one["label"]), other["source"], str(other["label"]))
            for one, other in alike["contradictions"]
        ]
        console.print(f"\nContradicting labels: {counted(len(pairs), 'pair')}")
        show_table(("same picture", "label", "and", "label"), pairs[:limit], console)
    if alike["not_evaluated"]:
        left_out = [tuple(map(str, row.values())) for row in alike["not_evaluated"]]
        show = "shows" if len(left_out) == 1 else "show"
        console.print(
            f"\nLeft out of the evaluation: {counted(len(left_out), 'image')} that {show} the "
            "same picture as an image of an earlier split"
        )
        show_table(("not evaluated", "label", "split"), left_out[:limit], console)


def _show_rejected(rows: list[dict[str, Any]], console: Any) -> None:
    from graftline_pipelines.local.screen import show_table

    columns = ("source", "label", "reason", "detail")
    cells = [tuple(str(row[name] or "") for name in columns) for row in rows]
    show_table(("rejected", *columns[1:]), cells, console)


def register(app: typer.Typer) -> None:
    """Add the command of this module."""
    app.command()(data)

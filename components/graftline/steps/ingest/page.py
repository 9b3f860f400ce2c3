"""The data page: what a snapshot holds, what was rejected, and what a person should look at."""

from collections.abc import Iterable
from pathlib import Path

import numpy as np
from markupsafe import Markup

from graftline.data.snapshot import SPLITS, Snapshot
from graftline.data.sources.base import Source
from graftline.errors import GraftlineError
from graftline.files import write_atomic
from graftline.progress import message
from graftline.reports import html
from graftline.reports.html import Cell, Column, Section, Text, percent
from graftline.steps.ingest.page_evidence import CLASSES, PAIRS, Evidence, gather
from graftline.storage.base import Store

FILE = "data.html"
REJECTED_ROWS = 100
CLASS_ROWS = 1_000
NAME_LETTERS = 60  # of a file's name below a picture; the end tells more than the start
SQUARE = 1.1  # longer side by shorter side, up to which a picture counts as square
LONG = 2.0


def write_page(
    snapshot: Snapshot,
    store: Store,
    source: Source | None,
    warnings: Iterable[str],
    path: Path,
) -> str | None:
    """Write the page to a path, which comes back; None where that failed.

    A page is no reason to stop a run: what is wrong with the store, the next step says.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomic(path, render(gather(snapshot, store, source), warnings).encode())
    except GraftlineError as error:
        message("There is no data page: %s", error)
        return None
    return str(path)


def page_file(path: str | None) -> dict[str, Path]:
    """The page as a file for the tracking run, by its name there."""
    return {} if path is None else {FILE: Path(path)}


def render(found: Evidence, warnings: Iterable[str] = ()) -> str:
    """The page as one HTML document."""
    snapshot = found.snapshot
    sections = [
        _reading(snapshot),
        _classes(snapshot),
        _changes(found),
        _contradictions(found),
        _groups(found),
        _not_evaluated(found),
        _rejected(found),
        _sizes(found),
        _examples(found),
    ]
    return html.html_page(
        f"Data of {_shortened(snapshot.source)}",
        [section for section in sections if section is not None],
        kicker="Graftline data",
        lead=f"{len(snapshot):,} images of {len(snapshot.classes):,} classes, "
        f"taken {_time(snapshot.created)}.",
        banner=_banner(found, list(warnings)),
        footer=f"snapshot {snapshot.id}",
        package="graftline.steps.ingest",
        styles=["data.css"],
    )


def _banner(found: Evidence, warnings: list[str]) -> Markup | None:
    snapshot = found.snapshot
    points: list[Text] = []
    if snapshot.contradictions:
        points.append(f"Same picture under two labels: {len(snapshot.contradictions):,} pairs")
    if snapshot.not_evaluated:
        points.append(f"Left out of the evaluation: {len(snapshot.not_evaluated):,} images")
    if snapshot.set_aside.num_rows:
        points.append(f"Rejected: {snapshot.set_aside.num_rows:,} files")
    points += warnings
    if not points:
        return None
    return html.banner("plain", "To look at", points)


def _reading(snapshot: Snapshot) -> Section:
    reading = snapshot.reading
    notes = [str(note) for note in reading.get("notes") or ()]
    rows: list[tuple[Text, Text]] = [("source", html.code(snapshot.source))]
    for key in ("format", "layout"):
        if reading.get(key):
            rows.append((key, html.code(str(reading[key]))))
    if reading.get("carved"):
        rows.append(("splits taken from train", ", ".join(map(str, reading["carved"]))))
    rows += [("store", html.code(snapshot.store)), ("snapshot", html.code(snapshot.id))]
    parts = [html.bullets(notes), html.table(["", ""], rows)]
    if reading.get("tree"):
        parts.append(Markup('<pre class="tree">{}</pre>').format(str(reading["tree"])))
    return Section("How the source was read", html.join(parts), "reading", short="Reading")


def _classes(snapshot: Snapshot) -> Section:
    table = snapshot.manifest.select(["label", "split"]).group_by(["label", "split"])
    counted = table.aggregate([([], "count_all")]).to_pylist()
    counts = {(row["label"], row["split"]): int(row["count_all"]) for row in counted}
    rows: list[list[Cell | Text]] = []
    for label in snapshot.classes[:CLASS_ROWS]:
        numbers = [counts.get((label, split), 0) for split in SPLITS]
        total = sum(numbers)
        cells = [Cell(f"{count:,}", count) for count in (*numbers, total)]
        rows.append([label, *cells, Cell(percent(total / len(snapshot)), total)])
    totals = [sum(counts.get((k, split), 0) for k in snapshot.classes) for split in SPLITS]
    cards = html.cards(
        [
            *(
                (f"{split} images", f"{total:,}", percent(total / max(1, len(snapshot))))
                for split, total in zip(SPLITS, totals, strict=True)
            ),
            ("classes", f"{len(snapshot.classes):,}", ""),
        ]
    )
    heads = [Column(name, number=True) for name in (*SPLITS, "all", "share")]
    parts = [cards, html.table(["class", *heads], rows, sortable=True)]
    if len(snapshot.classes) > CLASS_ROWS:
        more = len(snapshot.classes) - CLASS_ROWS
        parts.append(html.paragraph(f"{more:,} more classes are not listed.", "quiet"))
    return Section("Classes and splits", html.join(parts), "classes", short="Classes")


def _changes(found: Evidence) -> Section | None:
    before, snapshot = found.before, found.snapshot
    if before is None:
        return None
    intro = f"Compared with snapshot {before.id} of {_time(before.created)}."
    cards = html.cards(
        [
            ("New images", f"{len(before.added):,}", ""),
            ("Gone", f"{len(before.removed):,}", ""),
            ("Other label", f"{len(before.relabelled):,}", ""),
        ]
    )
    parts = [cards]
    if before.relabelled:
        labels = snapshot.column("label")
        items = [
            _picture(found, row, f"{old} → {labels[row]}") for row, old in before.relabelled[:PAIRS]
        ]
        parts += [html.heading("Other label than before"), _pictures(items)]
    if before.added:
        items = [_picture(found, row) for row in before.added[:PAIRS]]
        parts += [html.heading(f"New images{_of(len(items), len(before.added))}"), _pictures(items)]
    if before.removed:
        shown = before.removed[:REJECTED_ROWS]
        table = html.table(["file", "label"], shown)
        title = f"Images that are gone{_of(len(shown), len(before.removed))}"
        parts.append(html.folded(title, table))
    if not before:
        parts.append(html.paragraph("The images and their labels are the same.", "quiet"))
    return Section(
        "What changed since the last snapshot", html.join(parts), "changes", intro, "Changes"
    )


def _contradictions(found: Evidence) -> Section | None:
    total = len(found.snapshot.contradictions)
    if not total:
        return None
    items = [_pair([_picture(found, a), _picture(found, b)]) for a, b in found.contradictions]
    intro = (
        "The same picture, saved again under another label. One of the two labels is wrong, or "
        f"the picture shows both{_of(len(items), total)}."
    )
    body = Markup('<ul class="alike">{}</ul>').format(html.join(items))
    return Section("Contradicting labels", body, "contradictions", intro, "Contradictions")


def _groups(found: Evidence) -> Section | None:
    number, images = found.grouped
    if not number:
        return None
    boxes = []
    for rows, size in found.groups:
        more = (
            html.paragraph(f"{size:,} images{_of(len(rows), size)}", "quiet")
            if size > len(rows)
            else Markup()
        )
        pictures = _pictures([_picture(found, row) for row in rows])
        boxes.append(Markup("<li>{}{}</li>").format(pictures, more))
    intro = (
        f"{images:,} images share {number:,} groups: near-duplicates, or the column that "
        "data.group_column names. A group is never divided between train, val and test, except "
        f"where the data give the splits. The largest come first{_of(len(boxes), number)}."
    )
    body = Markup('<ul class="alike">{}</ul>').format(html.join(boxes))
    return Section("Near-duplicates and groups", body, "groups", intro, "Groups")


def _not_evaluated(found: Evidence) -> Section | None:
    total = len(found.snapshot.not_evaluated)
    if not total:
        return None
    items = [
        _pair([_picture(found, row), *([] if mate is None else [_picture(found, mate)])])
        for row, mate in found.not_evaluated
    ]
    intro = (
        "Held-out images that show the same picture as an image of an earlier split, beside one "
        f"such image. Nothing is measured on them{_of(len(items), total)}."
    )
    body = Markup('<ul class="alike">{}</ul>').format(html.join(items))
    return Section("Left out of the evaluation", body, "not-evaluated", intro, "Not evaluated")


def _rejected(found: Evidence) -> Section:
    table = found.snapshot.set_aside
    if not table.num_rows:
        body = html.paragraph("Every file of the source was taken.", "quiet")
        return Section("What was rejected", body, "rejected", short="Rejected")
    counted = table.group_by("reason").aggregate([([], "count_all")]).to_pylist()
    counted.sort(key=lambda row: (-row["count_all"], str(row["reason"])))
    parts = [
        html.table(
            ["reason", Column("files", number=True)],
            [(str(row["reason"]), Cell(f"{row['count_all']:,}", row["count_all"]))
             for row in counted],
            sortable=True,
        )
    ]  # fmt: skip
    if found.rejected:
        chosen = table.take(list(found.rejected)).to_pylist()
        items = [
            _item(uri, str(row["reason"]), str(row["label"] or ""), str(row["source"]))
            for uri, row in zip(found.rejected.values(), chosen, strict=True)
        ]
        parts += [html.heading("Rejected files that are images"), _pictures(items)]
    rows = table.slice(0, REJECTED_ROWS).to_pylist()
    keys = ("source", "reason", "detail", "label")
    listed = html.table(
        ["file", "reason", "detail", "label"], [[_text(row[key]) for key in keys] for row in rows]
    )
    title = f"The files{_of(len(rows), table.num_rows)}"
    wide = Markup('<div class="wordy">{}</div>').format(listed)
    parts.append(html.folded(title, wide))
    return Section("What was rejected", html.join(parts), "rejected", short="Rejected")


def _sizes(found: Evidence) -> Section:
    snapshot = found.snapshot
    width = snapshot.column("width").astype(float)
    height = snapshot.column("height").astype(float)
    values = {
        "shorter side, pixels": np.minimum(width, height),
        "longer side, pixels": np.maximum(width, height),
        "size of the file, kB": snapshot.column("bytes") / 1000,
    }
    heads = ("smallest", "5%", "median", "95%", "largest")
    rows = [
        [name, *(f"{value:,.0f}" for value in np.percentile(numbers, (0, 5, 50, 95, 100)))]
        for name, numbers in values.items()
    ]
    ratio = width / np.maximum(1.0, height)
    kinds = {
        "twice as wide as high, or wider": ratio >= LONG,
        "wide": (ratio > SQUARE) & (ratio < LONG),
        "square": (ratio <= SQUARE) & (ratio >= 1 / SQUARE),
        "high": (ratio < 1 / SQUARE) & (ratio > 1 / LONG),
        "twice as high as wide, or higher": ratio <= 1 / LONG,
    }
    shapes = [(kind, int(mask.sum())) for kind, mask in kinds.items() if mask.any()]
    names, counts = np.unique(snapshot.column("format").astype(str), return_counts=True)
    forms = sorted(zip(names.tolist(), counts.tolist(), strict=True), key=lambda one: -one[1])
    parts = [
        html.table(["", *(Column(head, number=True) for head in heads)], rows),
        html.columns(_shares("shape", shapes), _shares("format", forms)),
        html.heading("Value range"),
        html.bullets(_values(found)),
    ]
    return Section("Sizes, shapes and values", html.join(parts), "sizes", short="Sizes")


def _values(found: Evidence) -> list[str]:
    told = []
    if found.snapshot.value_range is not None:
        low, high = found.snapshot.value_range
        told.append(
            f"Images of more than 8 bits: the stored value {low:g} is read as black, {high:g} as "
            "white. The key data.value_range sets another range."
        )
    else:
        told.append("No value range was measured: values are read as 0 to 255.")
    if found.levels is not None:
        darkest, mean, brightest = found.levels
        told.append(
            f"In the {len(found.pictures):,} pictures on this page, values go from {darkest:.0f} "
            f"to {brightest:.0f}; their mean is {mean:.0f}."
        )
    return told


def _shares(name: str, counted: list[tuple[str, int]]) -> Markup:
    total = max(1, sum(count for _, count in counted))
    rows = [(kind, Cell(f"{count:,}", count), percent(count / total)) for kind, count in counted]
    return html.table([name, Column("images", number=True), Column("share", number=True)], rows)


def _examples(found: Evidence) -> Section:
    snapshot = found.snapshot
    counts = np.bincount(snapshot.labels(), minlength=len(snapshot.classes))
    sizes = dict(zip(snapshot.classes, counts.tolist(), strict=True))
    parts: list[Markup] = []
    for label, rows in found.sheets.items():
        title = Markup('{} <span class="quiet">{:,}</span>').format(label, sizes[label])
        items = html.join(_picture(found, row, name=False) for row in rows)
        sheet = Markup('<ul class="pictures sheet">{}</ul>').format(items)
        parts += [html.heading(title), sheet]
    intro = "A random choice of each class, with the number of its images."
    if len(snapshot.classes) > CLASSES:
        half = CLASSES // 2
        intro += f" Shown are the {half} largest and the {half} smallest classes."
    return Section("Examples of each class", html.join(parts), "examples", intro, "Examples")


def _picture(found: Evidence, row: int, said: str | None = None, *, name: bool = True) -> Markup:
    label, split, source = (
        str(found.snapshot.manifest.column(key)[row].as_py())
        for key in ("label", "split", "source")
    )
    uri = found.pictures.get(row)
    if not name:
        return _item(uri, "", split, "", label)
    return _item(uri, said or label, split, source)


def _item(uri: str | None, said: str, under: str, file: str, alt: str = "") -> Markup:
    picture: Text = html.paragraph("too large to be shown", "quiet")
    if uri is not None:
        picture = Markup('<img src="{}" alt="{}" loading="lazy">').format(uri, alt or said)
    lines: list[Text] = [picture]
    if said:
        lines.append(Markup('<div class="said">{}</div>').format(said))
    below = " · ".join(part for part in (under, _shortened(file)) if part)
    if below:
        lines.append(Markup('<div class="quiet" title="{}">{}</div>').format(file, below))
    return Markup("<li>{}</li>").format(html.join(lines))


def _pair(items: list[Markup]) -> Markup:
    return Markup('<li><ul class="pictures pair">{}</ul></li>').format(html.join(items))


def _pictures(items: list[Markup]) -> Markup:
    return Markup('<ul class="pictures">{}</ul>').format(html.join(items))


def _of(shown: int, total: int) -> str:
    """How many are shown, where that is not all, to follow a text."""
    return "" if shown == total else f" ({shown:,} of {total:,} are shown)"


def _time(created: str) -> str:
    return created.replace("T", " ").replace("+00:00", " UTC")


def _shortened(name: str) -> str:
    return name if len(name) <= NAME_LETTERS else "…" + name[-NAME_LETTERS:]


def _text(value: object) -> str:
    return "" if value is None else str(value)

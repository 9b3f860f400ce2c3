"""The data page: what a snapshot holds, what was rejected, and what a person should look at."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from graftline.data.snapshot import SPLITS, Snapshot
from graftline.data.sources.base import Source
from graftline.errors import GraftlineError
from graftline.files import write_atomic
from graftline.progress import message
from graftline.reports.html import Cell, percent, render_page
from graftline.stats.wording import counted
from graftline.steps.ingest.page_evidence import CLASSES, PAIRS, Evidence, gather
from graftline.steps.run_page import run_page
from graftline.storage.base import Store
from graftline.storage.uri import shown

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
    snapshot, run = found.snapshot, run_page()
    return render_page(
        "data.html",
        f"Data of {_shortened(shown(snapshot.source))}",
        package="graftline.steps.ingest",
        styles=["data.css"],
        facts=run.facts,
        run=run,
        kicker="Graftline data",
        lead=f"{len(snapshot):,} images of {len(snapshot.classes):,} classes, "
        f"taken {_time(snapshot.created)}.",
        footer=f"snapshot {snapshot.id}",
        points=[*_points(snapshot), *warnings],
        reading=_reading(snapshot),
        classes=_classes(snapshot),
        changes=_changes(found),
        contradictions=_contradictions(found),
        groups=_groups(found),
        not_evaluated=_not_evaluated(found),
        rejected=_rejected(found),
        sizes=_sizes(found),
        examples=_examples(found),
    )


@dataclass(frozen=True, kw_only=True)
class Shown:
    """A picture on the page; ``uri`` is a data URI, None where it cannot be shown."""

    uri: str | None
    said: str
    under: str
    file: str
    alt: str = ""


def _points(snapshot: Snapshot) -> Iterator[str]:
    if snapshot.contradictions:
        yield f"Same picture under two labels: {counted(len(snapshot.contradictions), 'pair')}"
    if snapshot.not_evaluated:
        yield f"Left out of the evaluation: {counted(len(snapshot.not_evaluated), 'image')}"
    if snapshot.set_aside.num_rows:
        yield f"Rejected: {counted(snapshot.set_aside.num_rows, 'file')}"


def _reading(snapshot: Snapshot) -> dict[str, Any]:
    reading = snapshot.reading
    rows: list[tuple[str, Cell | str]] = [("source", Cell(shown(snapshot.source), code=True))]
    for key in ("format", "layout"):
        if reading.get(key):
            rows.append((key, Cell(str(reading[key]), code=True)))
    if reading.get("carved"):
        rows.append(("splits taken from train", ", ".join(map(str, reading["carved"]))))
    rows += [
        ("store", Cell(shown(snapshot.store), code=True)),
        ("snapshot", Cell(snapshot.id, code=True)),
    ]
    notes = [str(note) for note in reading.get("notes") or ()]
    return {"notes": notes, "rows": rows, "tree": str(reading.get("tree") or "")}


def _classes(snapshot: Snapshot) -> dict[str, Any]:
    table = snapshot.manifest.select(["label", "split"]).group_by(["label", "split"])
    counted = table.aggregate([([], "count_all")]).to_pylist()
    counts = {(row["label"], row["split"]): int(row["count_all"]) for row in counted}
    rows: list[list[Cell | str]] = []
    for label in snapshot.classes[:CLASS_ROWS]:
        numbers = [counts.get((label, split), 0) for split in SPLITS]
        total = sum(numbers)
        cells = [Cell(f"{count:,}", count) for count in (*numbers, total)]
        rows.append([label, *cells, Cell(percent(total / len(snapshot)), total)])
    totals = [sum(counts.get((k, split), 0) for k in snapshot.classes) for split in SPLITS]
    cards = [
        *(
            (f"{split} images", f"{total:,}", percent(total / max(1, len(snapshot))))
            for split, total in zip(SPLITS, totals, strict=True)
        ),
        ("classes", f"{len(snapshot.classes):,}", ""),
    ]
    more = max(0, len(snapshot.classes) - CLASS_ROWS)
    return {"cards": cards, "rows": rows, "more": more}


def _changes(found: Evidence) -> dict[str, Any] | None:
    before, labels = found.before, found.snapshot.column("label")
    if before is None:
        return None
    added, removed = before.added[:PAIRS], before.removed[:REJECTED_ROWS]
    return {
        "any": bool(before),
        "intro": f"Compared with snapshot {before.id} of {_time(before.created)}.",
        "cards": [
            ("New images", f"{len(before.added):,}", ""),
            ("Gone", f"{len(before.removed):,}", ""),
            ("Other label", f"{len(before.relabelled):,}", ""),
        ],
        "relabelled": [
            _shown(found, row, f"{old} → {labels[row]}") for row, old in before.relabelled[:PAIRS]
        ],
        "added": [_shown(found, row) for row in added],
        "added_shown": _of(len(added), len(before.added)),
        "removed": removed,
        "removed_shown": _of(len(removed), len(before.removed)),
    }


def _contradictions(found: Evidence) -> dict[str, Any] | None:
    pairs = [(_shown(found, a), _shown(found, b)) for a, b in found.contradictions]
    return _pairs(pairs, len(found.snapshot.contradictions))


def _not_evaluated(found: Evidence) -> dict[str, Any] | None:
    pairs = [
        [_shown(found, row), *([] if mate is None else [_shown(found, mate)])]
        for row, mate in found.not_evaluated
    ]
    return _pairs(pairs, len(found.snapshot.not_evaluated))


def _pairs(pairs: Sequence[Sequence[Shown]], total: int) -> dict[str, Any] | None:
    return {"pairs": pairs, "shown": _of(len(pairs), total)} if total else None


def _groups(found: Evidence) -> dict[str, Any] | None:
    number, images = found.grouped
    if not number:
        return None
    boxes = [
        (
            [_shown(found, row) for row in rows],
            f"{size:,} images{_of(len(rows), size)}" if size > len(rows) else "",
        )
        for rows, size in found.groups
    ]
    shown = _of(len(boxes), number)
    return {"number": number, "images": images, "boxes": boxes, "shown": shown}


def _rejected(found: Evidence) -> dict[str, Any] | None:
    table = found.snapshot.set_aside
    if not table.num_rows:
        return None
    counted = table.group_by("reason").aggregate([([], "count_all")]).to_pylist()
    counted.sort(key=lambda row: (-row["count_all"], str(row["reason"])))
    chosen = table.take(list(found.rejected)).to_pylist() if found.rejected else []
    rows = table.slice(0, REJECTED_ROWS).to_pylist()
    return {
        "reasons": [
            (str(row["reason"]), Cell(f"{row['count_all']:,}", row["count_all"])) for row in counted
        ],
        "pictures": [
            _picture(uri, str(row["reason"]), str(row["label"] or ""), str(row["source"]))
            for uri, row in zip(found.rejected.values(), chosen, strict=True)
        ],
        "files": [
            [_text(row[key]) for key in ("source", "reason", "detail", "label")] for row in rows
        ],
        "shown": _of(len(rows), table.num_rows),
    }


def _sizes(found: Evidence) -> dict[str, Any]:
    snapshot = found.snapshot
    width = snapshot.column("width").astype(float)
    height = snapshot.column("height").astype(float)
    numbers = {
        "shorter side, pixels": np.minimum(width, height),
        "longer side, pixels": np.maximum(width, height),
        "size of the file, kB": snapshot.column("bytes") / 1000,
    }
    ratio = width / np.maximum(1.0, height)
    kinds = {
        "twice as wide as high, or wider": ratio >= LONG,
        "wide": (ratio > SQUARE) & (ratio < LONG),
        "square": (ratio <= SQUARE) & (ratio >= 1 / SQUARE),
        "high": (ratio < 1 / SQUARE) & (ratio > 1 / LONG),
        "twice as high as wide, or higher": ratio <= 1 / LONG,
    }
    names, counts = np.unique(snapshot.column("format").astype(str), return_counts=True)
    forms = sorted(zip(names.tolist(), counts.tolist(), strict=True), key=lambda one: -one[1])
    return {
        "rows": [
            [name, *(_number(value) for value in np.percentile(each, (0, 5, 50, 95, 100)))]
            for name, each in numbers.items()
        ],
        "shapes": _shares([(kind, int(mask.sum())) for kind, mask in kinds.items() if mask.any()]),
        "formats": _shares(forms),
        "range": _values(found),
    }


def _values(found: Evidence) -> list[str]:
    sentences = []
    if found.snapshot.value_range is not None:
        low, high = found.snapshot.value_range
        sentences.append(
            f"Images of more than 8 bits: the stored value {low:g} is read as black, {high:g} as "
            "white. The key data.value_range sets another range."
        )
    else:
        sentences.append("No value range was measured: values are read as 0 to 255.")
    if found.levels is not None:
        darkest, mean, brightest = found.levels
        sentences.append(
            f"In the {len(found.pictures):,} pictures on this page, values go from {darkest:.0f} "
            f"to {brightest:.0f}; their mean is {mean:.0f}."
        )
    return sentences


def _shares(counted: list[tuple[str, int]]) -> list[tuple[str, Cell, str]]:
    total = max(1, sum(count for _, count in counted))
    return [(kind, Cell(f"{count:,}", count), percent(count / total)) for kind, count in counted]


def _examples(found: Evidence) -> dict[str, Any]:
    snapshot = found.snapshot
    counts = np.bincount(snapshot.labels(), minlength=len(snapshot.classes))
    sizes = dict(zip(snapshot.classes, counts.tolist(), strict=True))
    splits = snapshot.column("split")
    sheets = [
        (
            label,
            sizes[label],
            [_picture(found.pictures.get(row), "", splits[row], "", label) for row in rows],
        )
        for label, rows in found.sheets.items()
    ]
    return {"sheets": sheets, "half": CLASSES // 2 if len(snapshot.classes) > CLASSES else 0}


def _shown(found: Evidence, row: int, said: str | None = None) -> Shown:
    label, split, source = (
        str(found.snapshot.manifest.column(key)[row].as_py())
        for key in ("label", "split", "source")
    )
    return _picture(found.pictures.get(row), said or label, split, source)


def _picture(uri: str | None, said: str, under: str, file: str, alt: str = "") -> Shown:
    below = " · ".join(part for part in (under, _shortened(file)) if part)
    return Shown(uri=uri, said=said, under=below, file=file, alt=alt)


def _of(shown: int, total: int) -> str:
    """How many are shown, where that is not all, to follow a text."""
    return "" if shown == total else f" ({shown:,} of {total:,} are shown)"


def _time(created: str) -> str:
    return created.replace("T", " ").replace("+00:00", " UTC")


def _shortened(name: str) -> str:
    return name if len(name) <= NAME_LETTERS else "…" + name[-NAME_LETTERS:]


def _number(value: float) -> str:
    """Without decimals, but for those below ten: a file of 90 bytes does not have 0 kB."""
    return f"{value:,.0f}" if value >= 10 else f"{value:.2g}"


def _text(value: object) -> str:
    return "" if value is None else str(value)

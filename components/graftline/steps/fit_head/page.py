"""The decision page: where this data stands, what more labels would buy, and doubtful labels."""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from markupsafe import Markup

from graftline.data.snapshot import Snapshot
from graftline.errors import GraftlineError
from graftline.files import write_atomic
from graftline.progress import message
from graftline.records.decision import Decision
from graftline.reports.charts import Chart, Series, Shape, line_chart
from graftline.reports.html import Cell, Data, interval, percent, render_page, ui
from graftline.steps.decision_parts import part
from graftline.steps.fit_head.decision.guide import GUIDE, PROBE_NAMES
from graftline.steps.fit_head.page_evidence import Evidence, gather
from graftline.steps.run_page import run_page
from graftline.storage.base import Store

FILE = "decision.html"
COLOURS = 12  # of classes on the map; further ones begin again
MAP_SIZE, MAP_EDGE = 620, 16
SCALINGS = {"within": "a", "shared": "b", "each": "dash"}
MOST_CANDIDATES = 200


def write_page(
    decision: Decision,
    snapshot: Snapshot,
    matrix: Any,
    store: Store,
    path: Path,
    seed: int,
) -> Path | None:
    """Write the page to a path, which comes back; None where that failed.

    A page is no reason to stop a run: what is wrong with the store, the next step says.
    """
    suspects = decision.figures.get("suspects", {}).get("images", [])
    try:
        found = gather(snapshot, matrix, (image["image_id"] for image in suspects), store, seed)
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomic(path, render(decision, snapshot, found).encode())
    except GraftlineError as error:
        message("There is no decision page: %s", error)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()  # on a cluster, fine_tune could not start without its input
        return None
    return path


def render(decision: Decision, snapshot: Snapshot, found: Evidence) -> str:
    """The page as one HTML document.

    Where nothing has changed, a later run takes it as it is: it names the run that made it.
    """
    figures = decision.figures
    probe = figures["probe"]
    return render_page(
        "decision.html",
        f"Decision: {decision.choice.replace('_', '-')}",
        package="graftline.steps.fit_head",
        facts=run_page().facts,
        styles=["decision.css"],
        scripts=["decision.js"],
        data=[Data("map-images", _map_images(snapshot, found))],
        kicker="Graftline decision",
        lead=f"{figures['train_images']:,} training images of {figures['classes']:,} classes, "
        f"on frozen features of {decision.backbone}.",
        footer=f"snapshot {decision.snapshot_id}",
        decision=decision,
        notes=[
            note
            for note in decision.notes
            if note != figures.get("learning_curve", {}).get("sentence")
        ],
        guide=_guide(decision),
        cards=_cards(figures, probe),
        choice=part("choice", decision),
        outcome=part("outcome", decision),
        curve=_curve(figures.get("learning_curve"), figures["train_images"]),
        sweeps=_sweeps(figures["candidates"]),
        candidates=_candidates(figures["candidates"]),
        map=_map(snapshot, found),
        explained=percent(found.explained, 0),
        map_count=len(found.rows),
        suspects=_suspects(figures.get("suspects"), found),
        pairs=_pairs(figures.get("hardest_pairs", [])),
    )


def _guide(decision: Decision) -> list[dict[str, Any]]:
    """The guide's rows; the cell of this data is marked."""
    return [
        {
            "name": size,
            "cells": [
                {
                    "strategy": GUIDE[size, like].strategy.replace("_", "-"),
                    "advice": GUIDE[size, like].advice,
                    "here": (size, like) == (decision.size, decision.similarity),
                }
                for like in ("similar", "different")
            ],
        }
        for size in ("small", "large")
    ]


def _cards(figures: dict[str, Any], probe: dict[str, Any]) -> list[tuple[str, str, str]]:
    counts, knn = figures["images_per_class"], figures["knn"]
    imbalance = counts["max"] / max(1, counts["min"])
    return [
        ("Images a class", f"{counts['median']:g}", f"{counts['min']:,} to {counts['max']:,}"),
        ("Largest by smallest class", f"{imbalance:.1f}×", "1 is balanced"),
        ("Probe", percent(probe["accuracy"]), interval(probe["interval"])),
        (_neighbours(knn["k"]), percent(knn["accuracy"]), "without any fitting"),
        ("Chance", percent(figures["majority"]), "always the largest class"),
    ]


def _neighbours(count: int) -> str:
    return "Nearest neighbour" if count == 1 else f"{count} nearest neighbours"


def _curve(curve: dict[str, Any] | None, train_images: int) -> dict[str, Any] | None:
    """The learning curve with the law through it up to twice the images."""
    if not curve or not curve["points"]:
        return None
    measured = [(float(point["images"]), point["accuracy"]) for point in curve["points"]]
    bounds = [point["interval"] for point in curve["points"]]
    series = [
        Series(
            "cross-validated",
            measured,
            low=[low for low, _ in bounds],
            high=[high for _, high in bounds],
            markers=True,
        )
    ]
    law, last = curve.get("law"), measured[-1][0]
    if law is not None:
        last = 2.0 * train_images
        sizes = [measured[0][0] * (last / measured[0][0]) ** (step / 24) for step in range(25)]
        series.append(Series("law", [(n, _by_law(law, n)) for n in sizes], "dash"))
    lowest = min([low for low, _ in bounds])
    chart = line_chart(
        "Accuracy by training images",
        series,
        x=(0.0, last),
        y=(max(0.0, lowest - 0.03), 1.0),
        x_title="images that the probe was fitted on",
        y_title="accuracy",
        counts=True,
    )
    rows = [
        (
            Cell(f"{point['images']:,}", point["images"]),
            percent(point["accuracy"]),
            interval(point["interval"]),
        )
        for point in curve["points"]
    ]
    return {"chart": chart, "sentence": curve["sentence"], "rows": rows}


def _by_law(law: dict[str, float], images: float) -> float:
    error = law["floor"] + law["scale"] * images ** -law["exponent"]
    return float(min(1.0, max(0.0, 1.0 - error)))


def _sweeps(candidates: Sequence[dict[str, Any]]) -> list[tuple[str, Markup]]:
    """Accuracy over the strength of the regularisation: one chart a family."""
    found = []
    lowest = min(candidate["accuracy"] for candidate in candidates)
    for family in ("logistic", "svm"):
        series = []
        for scaling, style in SCALINGS.items():
            line = sorted(
                (math.log10(candidate["C"]), candidate["accuracy"])
                for candidate in candidates
                if (candidate["family"], candidate["scaling"]) == (family, scaling)
            )
            if line:
                series.append(Series(scaling, line, style, markers=style != "dash"))
        if not series:
            continue
        every = [at for line in series for at, _ in line.points]
        chart = line_chart(
            f"Accuracy of {PROBE_NAMES[family]} by C",
            series,
            x=(min(every) - 0.5, max(every) + 0.5),
            y=(min(lowest, 0.95), 1.0),  # where all are right, an axis still
            x_title="C as a power of ten: less regularisation to the right",
            y_title="accuracy",
            counts=True,
        )
        found.append((PROBE_NAMES[family], chart))
    return found


def _candidates(candidates: Sequence[dict[str, Any]]) -> list[tuple[Cell | str, ...]]:
    return [
        (
            PROBE_NAMES[candidate["family"]],
            candidate["scaling"],
            Cell(f"{candidate['C']:g}", candidate["C"]),
            Cell(percent(candidate["accuracy"]), candidate["accuracy"]),
            interval(candidate["interval"]),
            Cell(f"{candidate['folds']}", candidate["folds"]) if "folds" in candidate else "",
        )
        for candidate in candidates[:MOST_CANDIDATES]
    ]


def _map(snapshot: Snapshot, found: Evidence) -> Markup:
    """Each image a dot in the colour of its class, suspects with a ring."""
    labels, suspect = snapshot.labels(), set(found.suspects.values())
    inner = MAP_SIZE - 2 * MAP_EDGE
    shapes = []
    for number, (row, (x, y)) in enumerate(zip(found.rows, found.places, strict=True)):
        kind = f"dot k{labels[row] % COLOURS}" + (" ring" if int(row) in suspect else "")
        attributes: dict[str, str | float | None] = {
            "class": kind,
            "cx": round(MAP_EDGE + inner * float(x), 1),
            "cy": round(MAP_SIZE - MAP_EDGE - inner * float(y), 1),
            "r": 6 if int(row) in suspect else 4.5,
            "data-image": number,
        }
        shapes.append(Shape("circle", attributes, title=snapshot.classes[labels[row]]))
    legend = [(f"k{k % COLOURS}", name) for k, name in enumerate(snapshot.classes[:COLOURS])]
    drawn = Chart("Map of the features", MAP_SIZE, MAP_SIZE, shapes, legend)
    return ui("chart", drawn)


def _map_images(snapshot: Snapshot, found: Evidence) -> list[tuple[str, str, str]]:
    """Picture, class and file of each dot."""
    labels, sources = snapshot.labels(), snapshot.column("source")
    return [
        (found.pictures.get(int(row), ""), snapshot.classes[labels[row]], str(sources[row]))
        for row in found.rows
    ]


def _suspects(record: dict[str, Any] | None, found: Evidence) -> dict[str, Any] | None:
    if record is None:
        return None
    shown = [
        {
            "uri": found.pictures.get(found.suspects[image["image_id"]], ""),
            "said": f"{image['given']} → {image['likely']}",
            "under": f"{percent(image['confidence'], 0)} · {Path(image['source']).name[-60:]}",
            "title": image["source"],
            "alt": f"labelled {image['given']}, likely {image['likely']}",
        }
        for image in record["images"]
        if image["image_id"] in found.suspects
    ]
    return {"count": record["count"], "of": record["of"], "shown": shown}


def _pairs(pairs: Sequence[dict[str, Any]]) -> list[tuple[Cell | str, ...]]:
    return [
        (
            " and ".join(pair["classes"]),
            Cell(f"{pair['confused']:,}", pair["confused"]),
            Cell(f"{pair['of']:,}", pair["of"]),
            Cell(percent(pair["share"]), pair["share"]),
        )
        for pair in pairs
    ]

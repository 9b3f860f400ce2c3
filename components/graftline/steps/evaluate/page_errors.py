"""Sections with pictures: the confusion matrix, the worst mistakes, what changed."""

from typing import Any

import numpy as np
from markupsafe import Markup

from graftline.reports import html
from graftline.reports.html import Cell, Column, Data, Section, percent
from graftline.steps.evaluate.pictures import changed
from graftline.steps.evaluate.results import Findings

MATRIX_CLASSES = 30  # a larger matrix cannot be read
BESIDE = 12  # of more classes, the images stand below the matrix and its cells are small
PAIRS = 20


def confusion(findings: Findings) -> Section:
    """The matrix, or its most confused part, and the most confused pairs."""
    names, counts = findings.test.snapshot.classes, findings.measured.confusion
    shown = np.arange(len(names))
    intro = "Rows are true classes, columns the label given. Click a cell to see its images."
    if len(names) > MATRIX_CLASSES:
        errors = counts.sum(axis=0) + counts.sum(axis=1) - 2 * np.diag(counts)
        shown = np.sort(np.argsort(-errors, kind="stable")[:MATRIX_CLASSES])
        intro = f"The {MATRIX_CLASSES} classes of {len(names):,} with most confusion. " + intro
    matrix = _matrix(names, counts, shown)
    panel = Markup('<div id="cell" aria-live="polite"><p class="quiet">{}</p></div>').format(
        "Click a cell to see its images."
    )
    left = Markup("<div>{}{}</div>").format(matrix, _pairs(names, counts))
    many = " many" if len(shown) > BESIDE else ""
    body = Markup('<div class="confusion{}">{}{}</div>').format(many, left, panel)
    return Section("Confusion matrix", body, "confusion", intro, short="Confusion")


def _matrix(names: tuple[str, ...], counts: Any, shown: Any) -> Markup:
    heads = html.join(
        Markup('<th scope="col" title="{0}"><span>{0}</span></th>').format(names[i]) for i in shown
    )
    body = []
    for truth in shown:
        total = max(1, int(counts[truth].sum()))
        cells = html.join(
            _cell(names, truth, given, int(counts[truth, given]), total) for given in shown
        )
        body.append(
            Markup('<tr><th scope="row" title="{0}">{0}</th>{1}</tr>').format(names[truth], cells)
        )
    most = 5 if len(shown) <= BESIDE else 2
    long = " long" if any(len(names[i]) > most for i in shown) else ""
    return Markup(
        '<div class="scroll matrix{}"><table><thead><tr>'
        '<td class="corner">true ↓ given →</td>{}</tr></thead><tbody>{}</tbody></table></div>'
    ).format(long, heads, html.join(body))


def _cell(names: tuple[str, ...], truth: int, given: int, count: int, total: int) -> Markup:
    if not count:
        return Markup('<td><span class="none">·</span></td>')
    kind = "right" if truth == given else "wrong"
    told = f"{names[truth]} taken for {names[given]}: {count}"
    if truth == given:
        told = f"{names[truth]} correctly recognised: {count}"
    return Markup(
        '<td><button type="button" class="{}" style="--share:{}" data-truth="{}" data-given="{}" '
        'data-count="{}" aria-expanded="false" aria-controls="cell" aria-label="{}" title="{}">{}'
        "</button></td>"
    ).format(kind, round(count / total, 3), truth, given, count, told, told, count)


def _pairs(names: tuple[str, ...], counts: Any) -> Markup:
    errors = counts.copy()
    np.fill_diagonal(errors, 0)
    if not errors.any():
        return html.paragraph("Every test image was recognised.", "note")
    order = np.argsort(-errors, axis=None, kind="stable")[:PAIRS]
    rows: list[list[Cell | html.Text]] = []
    for truth, given in zip(*np.unravel_index(order, errors.shape), strict=True):
        count = int(errors[truth, given])
        if not count:
            break
        button = Markup(
            '<button type="button" class="pair" data-truth="{}" data-given="{}" data-count="{}" '
            'aria-expanded="false" aria-controls="cell">{} taken for {}</button>'
        ).format(truth, given, count, names[truth], names[given])
        share = count / max(1, int(counts[truth].sum()))
        rows.append([button, Cell(f"{count:,}", count), Cell(percent(share), share)])
    table = html.table(
        ["", Column("images", number=True), Column("of the class", number=True)], rows
    )
    return html.folded("The most confused pairs", table)


def confusion_data(findings: Findings) -> Data:
    """What the script needs: names, cells and the pictures that do not stand in the page."""
    cells: dict[str, list[tuple[int, float]]] = {}
    sure = findings.test.probabilities.max(axis=1)
    predicted = findings.test.predicted
    wrong = predicted != findings.test.labels
    for position in sorted(findings.pictures, key=lambda p: -sure[p] if wrong[p] else sure[p]):
        key = f"{findings.test.labels[position]},{predicted[position]}"
        cells.setdefault(key, []).append((position, round(float(sure[position]), 4)))
    in_page = {*findings.worst, *changed(findings)[0], *changed(findings)[1]}
    pictures = {
        str(position): {"uri": picture.uri, "source": picture.source}
        for position, picture in findings.pictures.items()
        if position not in in_page
    }
    value = {"classes": list(findings.test.snapshot.classes), "cells": cells, "pictures": pictures}
    return Data("confusion-data", value)


def mistakes(findings: Findings) -> Section | None:
    """The wrong answers that the model was surest of."""
    shown = [position for position in findings.worst if position in findings.pictures]
    if not shown:
        return None
    mapped = any(findings.pictures[position].map_uri for position in shown)
    intro = "Wrong answers that the model was surest of: mislabelled images come first here."
    if mapped:
        intro += (
            " Beside each, what spoke for the given label (Grad-CAM): yellow most, grey nothing."
        )
    items = html.join(_mistake(findings, position) for position in shown)
    body = Markup('<ul class="pictures{}">{}</ul>').format(" pairs" if mapped else "", items)
    return Section("Worst mistakes", body, "mistakes", intro, short="Mistakes")


def _mistake(findings: Findings, position: int) -> Markup:
    picture = findings.pictures[position]
    names = findings.test.snapshot.classes
    truth, given = names[findings.test.labels[position]], names[findings.test.predicted[position]]
    pair = _image(findings, position)
    if picture.map_uri:
        again = Markup('<img src="{}" alt="Where {} was seen in it" loading="lazy">').format(
            picture.map_uri, given
        )
        pair = Markup('<div class="two">{}{}</div>').format(pair, again)
    sure = float(findings.test.probabilities[position].max())
    return Markup(
        '<li>{}<div class="said">{} <span class="chip bad">{}</span></div>'
        '<div>labelled {}</div><div class="quiet">{}</div></li>'
    ).format(pair, given, percent(sure), truth, picture.source)


def changes(findings: Findings) -> Section | None:
    """Images on which challenger and champion differ."""
    gained, lost = changed(findings)
    if findings.test.champion is None or not (gained or lost):
        return None
    parts = []
    for title, positions, theirs in (
        ("Lost: only the champion is right", lost, False),
        ("Gained: only this model is right", gained, True),
    ):
        parts.append(html.heading(title))
        if not positions:
            parts.append(html.paragraph("None.", "quiet"))
            continue
        items = html.join(_difference(findings, position, theirs) for position in positions)
        parts.append(Markup('<ul class="pictures">{}</ul>').format(items))
    return Section(
        "What changed since the champion",
        html.join(parts),
        "changes",
        "Test images that one of the two gets right and the other does not.",
        short="Changes",
    )


def _difference(findings: Findings, position: int, theirs: bool) -> Markup:
    assert findings.test.champion is not None
    names = findings.test.snapshot.classes
    old = [*names, *(name for name in findings.test.champion.classes if name not in set(names))]
    said = old[findings.test.champion.predicted[position]] if theirs else ""
    said = said or names[findings.test.predicted[position]]
    who = "champion" if theirs else "this model"
    return Markup(
        '<li>{}<div class="said">{}</div><div>{} says {}</div><div class="quiet">{}</div></li>'
    ).format(
        _image(findings, position),
        names[findings.test.labels[position]],
        who,
        said,
        findings.pictures[position].source,
    )


def _image(findings: Findings, position: int) -> Markup:
    picture = findings.pictures[position]
    return Markup(
        '<img src="{}" alt="Test image of {}" data-position="{}" data-source="{}" loading="lazy">'
    ).format(
        picture.uri,
        findings.test.snapshot.classes[findings.test.labels[position]],
        position,
        picture.source,
    )

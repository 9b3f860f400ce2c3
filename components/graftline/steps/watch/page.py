"""The page of a look: what changed since the champion was trained, and what follows from it."""

from collections import Counter
from collections.abc import Sequence
from typing import Any

from markupsafe import Markup

from graftline.data.changes import Changes
from graftline.reports import html
from graftline.steps.watch.drift import Drift
from graftline.steps.watch.triggers import Found, Rule

SHOWN = 50  # names of images of each kind


def look_page(
    *,
    start: bool,
    reasons: Sequence[str],
    rules: Sequence[Rule],
    found: Found,
    changes: Changes | None,
    champion: dict[str, Any] | None,
    source: str,
    moment: str,
) -> str:
    """The page as one HTML document.

    Args:
        start: Whether training starts.
        reasons: Why or why not.
        rules: Every condition that was asked.
        found: What the look gave.
        changes: What the listing says; None where there is no champion.
        champion: Its version, snapshot and age.
        source: The images' address.
        moment: When, for the last line.
    """
    sections = [html.Section("Conditions", _rules(rules), "conditions", _how(rules))]
    if changes is not None:
        sections.append(html.Section("Changes", _changes(changes), "changes"))
    if found.drift is not None:
        sections.append(
            html.Section(
                "Drift",
                _drift(found.drift),
                "drift",
                "Each row is one principal component of the features, as the champion's network "
                "gives them. The distance is that of the Kolmogorov-Smirnov test; p-values are "
                "corrected for the number of components.",
            )
        )
    return html.html_page(
        "Look at the source",
        sections,
        lead=html.join([source, ", compared with ", _champion(champion), "."]),
        banner=html.banner(
            "good" if start else "plain",
            "Training starts" if start else "Nothing to train",
            reasons,
        ),
        footer=f"Looked at {moment}",
    )


def _champion(champion: dict[str, Any] | None) -> str:
    if champion is None:
        return "nothing: there is no champion yet"
    return (
        f"version {champion['version']} of {champion['name']} (snapshot {champion['snapshot_id']})"
    )


def _how(rules: Sequence[Rule]) -> str:
    if not rules:
        return "`retrain.when` sets no condition."
    return "Any one that is met starts training."


def _rules(rules: Sequence[Rule]) -> Markup:
    return html.table(
        ["Condition", "Met", "What was found"],
        [
            [
                html.code(rule.key),
                html.chip("yes", "good") if rule.met else html.chip("no"),
                rule.sentence,
            ]
            for rule in rules
        ],
    )


def _changes(changes: Changes) -> Markup:
    counts = html.cards(
        [
            ("New", f"{len(changes.new):,}", "not known to the champion's snapshot"),
            ("Changed", f"{len(changes.changed):,}", "known by name, other content"),
            ("Relabelled", f"{len(changes.relabelled):,}", "under another label"),
            ("Removed", f"{len(changes.removed):,}", "gone from the source"),
            ("The same", f"{changes.unchanged:,}", ""),
        ]
    )
    labels = Counter(entry.label for entry in [*changes.new, *changes.changed] if entry.label)
    parts = [counts]
    if labels:
        rows: list[list[html.Cell | html.Text]] = [
            [label, html.Cell(f"{n:,}", n)] for label, n in labels.most_common()
        ]
        columns: list[html.Column | str] = [
            "Label",
            html.Column("New or changed images", number=True),
        ]
        parts.append(html.table(columns, rows, sortable=True))
    named = {
        "New": [entry.path for entry in changes.new],
        "Changed": [entry.path for entry in changes.changed],
        "Relabelled": [entry.path for entry in changes.relabelled],
        "Removed": changes.removed,
    }
    for title, paths in named.items():
        if paths:
            more = f"{title}: the first {SHOWN} of {len(paths):,}" if len(paths) > SHOWN else title
            parts.append(html.folded(more, html.bullets(html.code(path) for path in paths[:SHOWN])))
    return html.join(parts)


def _drift(drift: Drift) -> Markup:
    number = html.Column
    rows: list[list[html.Cell | html.Text]] = [
        [
            html.Cell(str(i + 1), i),
            html.Cell(html.percent(share), share),
            html.Cell(f"{distance:.3f}", distance),
            html.Cell(f"{p:.2g}", p),
            html.chip("differs", "warn") if p <= drift.level else "",
        ]
        for i, (share, distance, p) in enumerate(
            zip(drift.explained, drift.statistics, drift.p_values, strict=True)
        )
    ]
    columns: list[html.Column | str] = [
        number("Component", number=True),
        number("Share of variance", number=True),
        number("Distance", number=True),
        number("Corrected p-value", number=True),
        "",
    ]
    return html.join([html.paragraph(drift.sentence()), html.table(columns, rows, sortable=True)])

"""The page of a check: what changed since the champion was trained, and what follows from it."""

from collections import Counter
from collections.abc import Sequence
from typing import Any

from graftline.data.changes import Changes
from graftline.reports.html import Cell, percent, render_page
from graftline.steps.run_page import run_page
from graftline.steps.watch.drift import Drift
from graftline.steps.watch.triggers import Found, Rule

SHOWN = 50  # names of images of each kind


def check_page(
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
        found: What the check gave.
        changes: What the listing says; None where there is no champion.
        champion: Its version, snapshot and age.
        source: The images' address.
        moment: When, for the last line.
    """
    run = run_page()
    return render_page(
        "watch.html",
        "Check of the source",
        package="graftline.steps.watch",
        facts=run.facts,
        run=run,
        lead=f"{source}, compared with {_champion(champion)}.",
        footer=f"Checked {moment}",
        start=start,
        reasons=reasons,
        rules=[
            (
                Cell(rule.key, code=True),
                Cell("yes", chip="good") if rule.met else Cell("no", chip="plain"),
                rule.sentence,
            )
            for rule in rules
        ],
        changes=None if changes is None else _changes(changes),
        drift=None if found.drift is None else _drift(found.drift),
    )


def _champion(champion: dict[str, Any] | None) -> str:
    if champion is None:
        return "nothing: there is no champion yet"
    return (
        f"version {champion['version']} of {champion['name']} (snapshot {champion['snapshot_id']})"
    )


def _changes(changes: Changes) -> dict[str, Any]:
    labels = Counter(entry.label for entry in [*changes.new, *changes.changed] if entry.label)
    named = {
        "New": [entry.path for entry in changes.new],
        "Changed": [entry.path for entry in changes.changed],
        "Relabelled": [entry.path for entry in changes.relabelled],
        "Removed": changes.removed,
    }
    return {
        "any": any(named.values()),
        "unchanged": changes.unchanged,
        "cards": [
            ("New", f"{len(changes.new):,}", "not known to the champion's snapshot"),
            ("Changed", f"{len(changes.changed):,}", "known by name, other content"),
            ("Relabelled", f"{len(changes.relabelled):,}", "under another label"),
            ("Removed", f"{len(changes.removed):,}", "gone from the source"),
            ("The same", f"{changes.unchanged:,}", ""),
        ],
        "labels": [(label, Cell(f"{n:,}", n)) for label, n in labels.most_common()],
        "files": [
            (
                f"{title}: the first {SHOWN} of {len(paths):,}" if len(paths) > SHOWN else title,
                paths[:SHOWN],
            )
            for title, paths in named.items()
            if paths
        ],
    }


def _drift(drift: Drift) -> dict[str, Any]:
    figures = zip(drift.explained, drift.statistics, drift.p_values, strict=True)
    rows = [
        (
            Cell(str(i + 1), i),
            Cell(percent(share), share),
            Cell(f"{distance:.3f}", distance),
            Cell(f"{p:.2g}", p),
            Cell("differs", chip="warn") if p <= drift.level else "",
        )
        for i, (share, distance, p) in enumerate(figures)
    ]
    return {"sentence": drift.sentence(), "rows": rows}

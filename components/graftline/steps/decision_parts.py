"""The parts of the decision page that are known only after a fine-tuning: choice and outcome.

``fit_head`` writes the page before the training, with these parts between marks. ``fine_tune``
puts them in again with what the pilot measured and what the training really gained.
"""

from markupsafe import Markup

from graftline.records.decision import Decision
from graftline.redaction import redacted
from graftline.reports.html import NOT_KNOWN, Column, percent, points, ui
from graftline.stats.wording import significant

PARTS = ("choice", "outcome")


def part(name: str, decision: Decision) -> Markup:
    """One of :data:`PARTS` between its marks."""
    made = _choice(decision) if name == "choice" else _outcome(decision)
    first, last = _marks(name)
    return Markup(first) + made + Markup(last)  # noqa: S704 -- our own comments


def completed(page: str, decision: Decision) -> str:
    """A decision page with the parts of a later record; one without marks stays as it is."""
    for name in PARTS:
        first, last = _marks(name)
        begin, end = page.find(first), page.find(last)
        if 0 <= begin < end:
            page = page[:begin] + redacted(str(part(name, decision))) + page[end + len(last) :]
    return page


def _marks(name: str) -> tuple[str, str]:
    """Comments cannot come from a label or file name: pages escape those."""
    return f"<!-- part: {name} -->", f"<!-- end of part: {name} -->"


def _choice(decision: Decision) -> Markup:
    strategy, outcome = decision.choice.replace("_", "-"), decision.outcome
    if outcome is not None and outcome.used != decision.choice:
        strategy += f"; in the end the {outcome.used.replace('_', '-')} is used"
    return ui("banner", "plain", f"Strategy: {strategy}", decision.reasons)


def _outcome(decision: Decision) -> Markup:
    """What fine-tuning was expected to gain and to cost, beside what it did."""
    if decision.forecast is None:
        return Markup("")
    last = "outcome" if decision.outcome is not None else "outcome: not fine-tuned"
    columns = ["", Column("forecast", number=True), Column(last, number=True)]
    table = ui("table", columns, _rows(decision))
    if decision.outcome is None:
        return table
    return table + ui("paragraph", decision.outcome.sentence)


def _rows(decision: Decision) -> list[tuple[str, str, str]]:
    said, pilot, outcome = decision.forecast, decision.pilot, decision.outcome
    assert said is not None
    low, high = said.gain_interval
    gained = NOT_KNOWN
    if outcome is not None:
        where = "inside" if low <= outcome.gain <= high else "outside"
        gained = f"{points(outcome.gain)}, {where} the interval"
    rows = [("gain in points", f"{points(said.gain)} ({points(low)} to {points(high)})", gained)]
    if pilot is not None:
        measured = NOT_KNOWN if pilot.gain is None else points(pilot.gain)
        rows.append(("gain of the pilot in points", "", measured))
    if pilot is not None and pilot.expected is not None:
        rows.append(("gain expected after the pilot", points(pilot.expected), ""))
    if outcome is not None:
        accuracies = (
            f"{percent(outcome.fine_tuned_accuracy)}, probe {percent(outcome.probe_accuracy)}"
        )
        rows.append(("validation accuracy", "", accuracies))
    if said.hours is not None:
        hours = outcome.hours if outcome is not None else None
        took = NOT_KNOWN if hours is None else _duration(hours)
        rows.append(("training time", f"{_duration(said.hours)} on {said.device}", took))
    if said.cost is not None:
        rows.append(("cost", f"{said.cost:.2f}", ""))
    return rows


def _duration(hours: float) -> str:
    """Hours; of what takes less than a minute, seconds."""
    return f"{significant(hours, 2)} h" if hours * 60 >= 1 else f"{significant(hours * 3600, 2)} s"

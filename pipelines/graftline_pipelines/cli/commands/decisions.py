"""``decisions``: what was forecast of fine-tuning, and what came of it."""

import json
from itertools import islice
from pathlib import Path
from typing import Annotated, Any

import typer

from graftline.stats.wording import significant
from graftline_pipelines.cli.options import JsonValue, RunsDir


def decisions(
    runs_dir: RunsDir = Path(".graftline/runs"),
    tracking: Annotated[
        str | None,
        typer.Option(
            envvar="MLFLOW_TRACKING_URI",
            help="MLflow's tracking URI: list its runs too.",
            show_default=False,
        ),
    ] = None,
    experiment: Annotated[
        str | None, typer.Option(help="Only runs of this experiment in MLflow.")
    ] = None,
    limit: Annotated[int, typer.Option(min=1, help="Runs at most.")] = 50,
    as_json: JsonValue = False,
) -> None:
    """List each run's forecast of fine-tuning beside what came of it."""
    from graftline_pipelines.local.decisions import local_decisions
    from graftline_pipelines.local.screen import Screen

    found = dict(islice(local_decisions(runs_dir), limit))
    if tracking:
        from graftline.tracking.decisions import tracked_decisions

        for name, decision in tracked_decisions(tracking, experiment, limit):
            found.setdefault(name, decision)
    console = Screen(stderr=as_json, highlight=False, markup=False)
    if found:
        _show_table(found, console)
        console.print(_verdict(found))
    else:
        console.print(
            f"No run with a decision in {runs_dir}" + (f" or {tracking}." if tracking else "."),
        )
    if as_json:
        print(json.dumps([{"run": name, **record.to_dict()} for name, record in found.items()]))


def _show_table(found: dict[str, Any], console: Any) -> None:
    from graftline_pipelines.local.screen import show_table

    figures = ("Forecast gain", "Pilot", "Outcome", "Forecast hours", "Hours")
    rows = [(name, one.cell, one.choice, *_figures(one)) for name, one in found.items()]
    show_table(("Run", "Data", "Choice", *figures, "Used"), rows, console, right=figures)


def _figures(decision: Any) -> list[str]:
    forecast, pilot, outcome = decision.forecast, decision.pilot, decision.outcome
    expected = hours = "unknown"
    if forecast is not None:
        low, high = forecast.gain_interval
        expected = f"{forecast.gain:+.1%} ({low:+.1%} to {high:+.1%})"
        hours = "unknown" if forecast.hours is None else significant(forecast.hours, 2)
    piloted = "" if pilot is None or pilot.gain is None else f"{pilot.gain:+.1%}"
    if outcome is None:
        return [expected, piloted, "", hours, "", "probe" if not decision.fine_tune else ""]
    low, high = outcome.gain_interval
    gained = f"{outcome.gain:+.1%} ({low:+.1%} to {high:+.1%})"
    took = "" if outcome.hours is None else significant(outcome.hours, 2)
    return [expected, piloted, gained, hours, took, outcome.used]


def _verdict(found: dict[str, Any]) -> str:
    """How often the outcome was where the forecast said."""
    both = [one for one in found.values() if one.forecast is not None and one.outcome is not None]
    if not both:
        return "No fine-tuning has been compared with its forecast yet."
    inside = sum(
        one.forecast.gain_interval[0] <= one.outcome.gain <= one.forecast.gain_interval[1]
        for one in both
    )
    return f"In {inside} of {len(both)} fine-tunings the gain was inside the forecast's interval."


def register(app: typer.Typer) -> None:
    """Add this command."""
    app.command()(decisions)

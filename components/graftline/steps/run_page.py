"""What the page of a step says of its run: name, date and links, settings, and time by step."""

from dataclasses import dataclass, field
from datetime import UTC, datetime

from graftline.errors import GraftlineError
from graftline.records.run_records import is_known, kfp_page, read_records
from graftline.reports.html import NOT_KNOWN, Cell, Fact
from graftline.steps.runtime import Recorder, current_step
from graftline.tracking.run_description import RunDescription, describe_run


@dataclass(frozen=True)
class RunPage:
    """The run, for a page; empty outside a pipeline.

    Attributes:
        facts: For the header.
        steps: Rows of a table: the step, its time, and the processor time that it took.
        settings: Names and values that the tracking run holds.
    """

    facts: list[Fact] = field(default_factory=list)
    steps: list[tuple[Cell, ...]] = field(default_factory=list)
    settings: list[tuple[Cell, str]] = field(default_factory=list)


def run_page() -> RunPage:
    """What is known of the run that this step is part of."""
    step = current_step()
    if step is None:
        return RunPage()
    uri, run_id = step.tracking.get("uri") or "", step.tracking_run
    found = describe_run(uri, run_id) if uri and run_id else None
    settings = [] if found is None else found.params.items()
    return RunPage(
        facts=_facts(step, found),
        steps=_steps(step),
        settings=[(Cell(name, code=True), value) for name, value in settings],
    )


def _facts(step: Recorder, found: RunDescription | None) -> list[Fact]:
    facts = []
    if found is not None:
        facts.append(Fact("Run", found.name))
    elif is_known(step.pipeline_run):
        facts.append(Fact("Run", step.pipeline_run))
    started = datetime.now(UTC) if found is None else found.started
    facts.append(Fact("Date", f"{started:%Y-%m-%d %H:%M} UTC"))
    if found is not None:
        facts.append(Fact("MLflow", "the run" if found.link else found.where, found.link))
    link = kfp_page(step.tracking.get("ui") or "", step.pipeline_run)
    if link:
        facts.append(Fact("Kubeflow Pipelines", "the run", link))
    return facts


def _steps(step: Recorder) -> list[tuple[Cell, ...]]:
    """Each step that has ended, and this one so far."""
    try:
        records = read_records(step.store, step.pipeline_run)
    except (GraftlineError, ValueError, TypeError):
        return []  # a page is no reason to stop a run
    rows = [
        (Cell(record.step), _duration(record.seconds), _duration(record.cpu_seconds))
        for record in records
        if record.state == "done" and record.seconds is not None
    ]
    if not rows:
        return []
    now = (_duration(step.seconds), _duration(step.cpu_seconds))
    return [*rows, (Cell(f"{step.name}, until this page"), *now)]


def _duration(seconds: float | None) -> Cell:
    if seconds is None:
        return Cell(NOT_KNOWN)
    if seconds < 60:
        return Cell(f"{seconds:.1f} s", seconds)
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return Cell(f"{hours} h {minutes} min" if hours else f"{minutes} min {rest} s", seconds)

"""Shows the steps of a local run while they run: bars on a terminal, whole lines elsewhere."""

import json
import re
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence, Set
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    SpinnerColumn,
    Task,
    TaskID,
    TextColumn,
    TimeRemainingColumn,
)
from rich.table import Table
from rich.text import Text

from graftline.steps.runtime import read_result
from graftline_pipelines.local.screen import counted

POLL_SECONDS = 0.2
NAME_WIDTH = 18
BAR_WIDTH = 16
WIDE = 117  # columns from which there is room for a bar
SPACIOUS = 100  # columns from which there is room for "step 2 of 7: " in place of "2/7 "
SPINNER_AND_TIMES = 20  # spinner, time and time left, with the gaps between all columns
PARTS = {  # tasks that are parts of one step
    "plan_extraction": "extract_features",
    "extract_share": "extract_features",
    "assemble_features": "extract_features",
}


class _Count(MofNCompleteColumn):
    """How many of how many are done; nothing where no one knows how many there will be."""

    def render(self, task: Task) -> Text:
        return super().render(task) if task.total is not None else Text()


class _Left(TimeRemainingColumn):
    """The time left, in words; nothing where no one knows it."""

    def render(self, task: Task) -> Text:
        seconds = task.time_remaining
        if task.total is None or seconds is None or task.finished:
            return Text()
        return Text(f"{_duration(seconds)} left", style="cyan")


class _Elapsed(ProgressColumn):
    """The time since it began; narrower than rich's, which shows hours from the start."""

    def render(self, task: Task) -> Text:
        minutes, seconds = divmod(int(task.elapsed or 0), 60)
        hours, minutes = divmod(minutes, 60)
        return Text(f"{hours}:{minutes:02}:{seconds:02}" if hours else f"{minutes}:{seconds:02}")


class _Doing(TextColumn):
    """What is being done, cut where the screen is narrow: the figures after it stay whole."""

    def __init__(self, room: Callable[[], int]) -> None:
        super().__init__("{task.description}")
        self._room = room

    def render(self, task: Task) -> Text:
        text = super().render(task)
        text.truncate(self._room(), overflow="ellipsis")
        return text


class StepFollower:
    """Reads the events that the steps of a run record, and draws them.

    Use it as a context manager around the run. On leaving, everything recorded so far is shown.

    Args:
        run_dir: The run's folder.
        console: Where they are drawn.
        steps: The steps of the graph in their order, those that may be left out included.
        expected: Seconds that each step took in an earlier run, for the time that is left in all;
            see :func:`earlier_seconds`.
    """

    def __init__(
        self,
        run_dir: Path,
        console: Console,
        steps: Sequence[str] = (),
        expected: Mapping[str, float] | None = None,
    ) -> None:
        self._run_dir = run_dir
        self._folder = run_dir / "steps"
        self._console = console
        self._steps = list(steps)
        self._expected = {step: (expected or {}).get(step, 0.0) for step in self._steps}
        self._begun: dict[str, float] = {}
        self._counted: dict[str, float] = {}  # as _begun, the wait for its start included
        self._ended: set[str] = set()
        self._coming = ""
        self._offsets: dict[Path, int] = {}
        self._bars: dict[str, TaskID] = {}
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._poll, name="follow-steps", daemon=True)
        self._wide = console.width >= WIDE
        self._progress = Progress(
            SpinnerColumn(),
            TextColumn("{task.fields[number]}[bold]{task.fields[step]}[/]"),
            _Doing(self._room),
            *([BarColumn(bar_width=BAR_WIDTH)] if self._wide else []),
            _Count(),
            _Elapsed(),
            _Left(),
            console=console,
            transient=True,
            disable=not console.is_terminal,
        )
        self._overall = self._progress.add_task(
            "", step="all steps", number="", total=None, visible=any(self._expected.values())
        )
        # Shown while no step runs, so that the screen is never blank.
        self._between = self._progress.add_task("", step="", number="", total=None, visible=False)

    def __enter__(self) -> "StepFollower":
        self._show_between()
        self._progress.start()
        self._thread.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self._stop.set()
        self._thread.join()
        self._show_new()
        self._progress.stop()

    def _room(self) -> int:
        """Columns that are left for what is being done."""
        tasks = [task for task in self._progress.tasks if task.visible]
        names = max(len(f"{task.fields['number']}{task.fields['step']}") for task in tasks)
        counts = max(len(_Count().render(task).plain) for task in tasks)
        bar = (BAR_WIDTH + 1) * self._wide
        return self._console.width - SPINNER_AND_TIMES - names - counts - bar

    def _poll(self) -> None:
        while not self._stop.wait(POLL_SECONDS):
            self._show_new()
            left = self._left(time.monotonic())
            said = f"about {_duration(left)} left" if left is not None and left >= 1 else ""
            why = ", as in an earlier run" if said and self._wide else ""
            self._progress.update(self._overall, description=f"{said}{why}")

    def _left(self, now: float) -> float | None:
        """Seconds left in all; None while a step runs, or is waited for, that nothing is known of.

        A step that takes longer than in the earlier run, or was not part of it, says by its own
        bar how long.
        """
        left = left_in_all(self._expected, self._counted, self._ended, now)
        current: dict[str, TaskID | None] = {step_of(n): bar for n, bar in self._bars.items()}
        current = current or {self._coming: None}
        for step, bar in current.items():
            expected = self._expected.get(step, 0.0)
            task = next((each for each in self._progress.tasks if each.id == bar), None)
            own = None if task is None or task.total is None else task.time_remaining
            if own is None and not expected and step not in self._ended:
                return None
            rest = max(0.0, expected - (now - self._counted.get(step, now)))
            left += max(0.0, (own or 0.0) - rest)
        return left

    def _show_new(self) -> None:
        for event in sorted(self._new_events(), key=lambda event: float(event["time"])):
            self._show(event)
            self._show_between()

    def _new_events(self) -> Iterator[dict[str, Any]]:
        for path in self._folder.glob("*.events.jsonl"):
            with path.open("rb") as stream:
                stream.seek(self._offsets.get(path, 0))
                for line in stream:
                    if not line.endswith(b"\n"):  # still being written
                        break
                    self._offsets[path] = self._offsets.get(path, 0) + len(line)
                    yield json.loads(line)

    def _show(self, event: dict[str, Any]) -> None:
        name, kind = event["step"], event["event"]
        if kind == "started":
            self._start(name)
        elif kind == "progress" and name in self._bars:
            self._progress.update(
                self._bars[name],
                description=event["description"],
                completed=event["done"],
                total=event["total"],
            )
        elif kind == "message":
            self._say(name, event["text"].removeprefix(f"{name}: "))
        elif kind in ("finished", "failed"):
            self._ended.add(step_of(name))
            if name in self._bars:
                self._progress.remove_task(self._bars.pop(name))
            done = "failed"
            if kind == "finished":
                came_to = outcome(name, read_result(self._run_dir, name) or {})
                done = f"done in {event['seconds']:.1f} s{came_to and ': '}{came_to}"
            self._say(name, done, "green" if kind == "finished" else "red")

    def _start(self, name: str) -> None:
        step = step_of(name)
        for skipped in self._steps[: self._steps.index(step) if step in self._steps else 0]:
            if skipped not in self._begun:
                self._begun[skipped] = time.monotonic()
                self._ended.add(skipped)
                self._say(skipped, f"{self._number(skipped)}not needed")
        self._begun.setdefault(step, time.monotonic())
        self._counted.setdefault(step, self._begun[step])
        self._ended.discard(step)  # of several tasks of one step, the next
        number = self._number(step)
        self._bars[name] = self._progress.add_task("running", step=name, number=number, total=None)
        if not self._console.is_terminal:
            self._say(name, f"{number}started")

    def _number(self, step: str) -> str:
        if step not in self._steps:
            return ""
        number, of = self._steps.index(step) + 1, len(self._steps)
        short = self._console.is_terminal and self._console.width < SPACIOUS
        return f"{number}/{of} " if short else f"step {number} of {of}: "

    def _show_between(self) -> None:
        """Name the step that comes next where none runs."""
        coming = next((step for step in self._steps if step not in self._begun), "")
        wanted = not self._bars and bool(coming)
        if wanted and coming != self._coming:
            self._coming = coming
            self._counted[coming] = time.monotonic()
            self._progress.reset(self._between)  # its clock
        self._progress.update(
            self._between,
            visible=wanted,
            step=coming,
            number=self._number(coming),
            description="starting",
        )

    def _say(self, name: str, text: str, colour: str = "") -> None:
        """One message; on a terminal its further lines stand below its first word."""
        if self._console.is_terminal:
            grid = Table.grid(padding=(0, 1, 0, 0))
            grid.add_column(width=NAME_WIDTH, no_wrap=True, style="bold")
            grid.add_column(overflow="fold")
            grid.add_row(Text(name), Text(text.strip("\n"), colour))
            self._console.print(grid)
            return
        for line in text.strip("\n").split("\n"):
            self._console.print(
                Text(f"{name:<{NAME_WIDTH}} {line}"), soft_wrap=True, highlight=False
            )


def left_in_all(
    expected: Mapping[str, float], begun: Mapping[str, float], ended: Set[str], now: float
) -> float:
    """Seconds left for all steps, if each takes as long as it did in an earlier run.

    Args:
        expected: Seconds that each step took.
        begun: Since when each step runs or is waited for, on the clock of ``now``.
        ended: Steps that are over.
        now: The time.
    """
    return sum(
        max(0.0, seconds - (now - begun[step] if step in begun else 0.0))
        for step, seconds in expected.items()
        if step not in ended
    )


def earlier_seconds(runs_dir: Path, name: str) -> dict[str, float]:
    """Seconds by step of the newest run of this name that computed all of it; empty without one.

    Between two steps it takes seconds to start the next one: they count as that step's.
    """
    for run_dir in sorted(runs_dir.glob(f"{name}-[0-9]*"), reverse=True):
        spans = _spans(run_dir)
        results = [read_result(run_dir, step) or {} for step in spans]
        if "promote" in spans and not any(result.get("reused_from") for result in results):
            return spans
    return {}


def _spans(run_dir: Path) -> dict[str, float]:
    """Seconds from the end of the step before to each step's own; of the first, from its start."""
    starts: dict[str, float] = {}
    ends: dict[str, float] = {}
    for task, events in _finished(run_dir).items():
        step = step_of(task)
        starts[step] = min(starts.get(step, events[0]["time"]), events[0]["time"])
        ends[step] = max(ends.get(step, 0.0), events[-1]["time"])
    spans, before = {}, min(starts.values(), default=0.0)
    for step in sorted(ends, key=ends.__getitem__):
        spans[step] = max(0.0, ends[step] - before)
        before = ends[step]
    return spans


def _duration(seconds: float) -> str:
    minutes, rest = divmod(int(seconds), 60)
    return f"{minutes}:{rest:02}" if minutes else f"{rest} s"


def outcome(step: str, result: Mapping[str, Any]) -> str:
    """What a step came to, in a few words; empty for one whose messages say it."""
    try:
        if step == "fit_head":
            return f"strategy {result['strategy']}"
        if step == "evaluate":
            test, promote = result["test"], result["verdict"]["promote"]
            images = counted(int(test["images"]), "test image")
            verdict = "promote" if promote else "do not promote"
            return f"{test['accuracy']:.1%} of {images} right, {verdict}"
        if step == "promote":
            state = f"alias {result['alias']}" if result["alias"] else "not promoted"
            if not result["alias"] and result.get("champion_before") == result["version"]:
                state = "the champion as before"
            return f"{result['name']} version {result['version']}, {state}"
    except (KeyError, TypeError):  # of an older run, or of another's step
        return ""
    return ""


def steps_of(strategy: str, *, retrain: bool = False) -> list[str]:
    """The steps of a run in their order; one that may turn out not to be needed is counted."""
    steps = ["ingest", "extract_features", "fit_head"]
    if strategy not in ("probe", "head"):
        steps.append("fine_tune")
    steps += ["evaluate", "export_onnx", "promote"]
    return ["watch", *steps] if retrain else steps


def step_of(task: str) -> str:
    """The step that a task of KFP is, or is a part of."""
    name = re.sub(r"_\d+$", "", task)
    return PARTS.get(name, name)


def failure_of(run_dir: Path) -> dict[str, Any] | None:
    """The first recorded failure of a run, or None: keys ``step``, ``what``, ``why``, ``fix``."""
    failures = []
    for path in (run_dir / "steps").glob("*.events.jsonl"):
        for line in path.read_text(encoding="utf-8").splitlines():
            event = json.loads(line)
            if event["event"] == "failed":
                failures.append(event)
    return min(failures, key=lambda event: float(event["time"]), default=None)


def unfinished_step(run_dir: Path) -> str | None:
    """A step that started and neither finished nor failed: it was killed from outside."""
    for path in sorted((run_dir / "steps").glob("*.events.jsonl")):
        events = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
        if events and not any(event["event"] in ("finished", "failed") for event in events):
            return str(events[0]["step"])
    return None


def seconds_by_step(run_dir: Path) -> dict[str, float]:
    """Seconds of each step that finished, in the order in which they started."""
    done = sorted(_finished(run_dir).items(), key=lambda each: float(each[1][0]["time"]))
    return {step: round(events[-1]["seconds"], 2) for step, events in done}


def _finished(run_dir: Path) -> dict[str, list[dict[str, Any]]]:
    """The events of each task that finished, up to that one."""
    done = {}
    for path in (run_dir / "steps").glob("*.events.jsonl"):
        events = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
        while events and events[-1]["event"] != "finished":
            events.pop()
        if events:
            done[str(events[0]["step"])] = events
    return done

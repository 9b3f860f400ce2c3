"""Shows the steps of a local run while they run: bars on a terminal, plain lines elsewhere."""

import json
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    SpinnerColumn,
    Task,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
)
from rich.text import Text

POLL_SECONDS = 0.2


class _Count(MofNCompleteColumn):
    """How many of how many are done; nothing where no one knows how many there will be."""

    def render(self, task: Task) -> Text:
        return super().render(task) if task.total is not None else Text()


class StepFollower:
    """Reads the events that the steps of a run record, and draws them.

    Use it as a context manager around the run. On leaving, everything recorded so far is shown.
    """

    def __init__(self, run_dir: Path, console: Console) -> None:
        self._folder = run_dir / "steps"
        self._console = console
        self._offsets: dict[Path, int] = {}
        self._bars: dict[str, TaskID] = {}
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._poll, name="follow-steps", daemon=True)
        self._progress = Progress(
            SpinnerColumn(),
            TextColumn("[bold]{task.fields[step]:<18}"),
            TextColumn("{task.description}"),
            BarColumn(bar_width=24),
            _Count(),
            TimeElapsedColumn(),
            console=console,
            transient=True,
            disable=not console.is_terminal,
        )

    def __enter__(self) -> "StepFollower":
        self._progress.start()
        self._thread.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self._stop.set()
        self._thread.join()
        self._show_new()
        self._progress.stop()

    def _poll(self) -> None:
        while not self._stop.wait(POLL_SECONDS):
            self._show_new()

    def _show_new(self) -> None:
        for event in sorted(self._new_events(), key=lambda event: float(event["time"])):
            self._show(event)

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
            self._bars[name] = self._progress.add_task("running", step=name, total=None)
            if not self._console.is_terminal:
                self._say(name, "started")
        elif kind == "progress" and name in self._bars:
            self._progress.update(
                self._bars[name],
                description=event["description"],
                completed=event["done"],
                total=event["total"],
            )
        elif kind == "message":
            self._say(name, event["text"])
        elif kind in ("finished", "failed"):
            if name in self._bars:
                self._progress.remove_task(self._bars.pop(name))
            done = f"done in {event['seconds']:.1f} s" if kind == "finished" else "failed"
            self._say(name, done, "green" if kind == "finished" else "red")

    def _say(self, name: str, text: str, colour: str | None = None) -> None:
        styled = f"[{colour}]{escape(text)}[/]" if colour else escape(text)
        self._console.print(f"[bold]{name:<18}[/] {styled}", highlight=False)


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
    rows: list[tuple[float, str, float]] = []
    for path in (run_dir / "steps").glob("*.events.jsonl"):
        events = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
        finished = [event for event in events if event["event"] == "finished"]
        if finished:
            rows.append((events[0]["time"], events[0]["step"], finished[-1]["seconds"]))
    return {step: round(seconds, 2) for _, step, seconds in sorted(rows)}

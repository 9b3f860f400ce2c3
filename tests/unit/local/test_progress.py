"""Following the steps of a local run by the events that they record."""

import io
import json
from pathlib import Path

from rich.console import Console

from graftline_pipelines.local.progress import (
    StepFollower,
    failure_of,
    seconds_by_step,
    unfinished_step,
)


def record(run_dir: Path, step: str, *events: dict[str, object]) -> Path:
    folder = run_dir / "steps"
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{step}.events.jsonl"
    with path.open("a") as stream:
        for event in events:
            stream.write(json.dumps({"step": step, **event}) + "\n")
    return path


STARTED = {"time": 1.0, "event": "started"}
FAILED = {"time": 3.0, "event": "failed", "what": "no", "why": None, "fix": "mend"}


def test_plain_lines_where_there_is_no_terminal(tmp_path: Path) -> None:
    stream = io.StringIO()
    with StepFollower(tmp_path, Console(file=stream, width=100)):
        record(tmp_path, "ingest", STARTED)
        record(tmp_path, "ingest", {"time": 1.5, "event": "message", "text": "12 [bold] files"})
        record(tmp_path, "ingest", {"time": 2.0, "event": "finished", "seconds": 1.25})
    lines = stream.getvalue().splitlines()
    assert [line.split(maxsplit=1)[1] for line in lines] == [
        "started",
        "12 [bold] files",
        "done in 1.2 s",
    ]


def test_half_a_line_is_left_until_it_is_whole(tmp_path: Path) -> None:
    stream = io.StringIO()
    path = record(tmp_path, "ingest", STARTED)
    follower = StepFollower(tmp_path, Console(file=stream))
    with path.open("a") as events:
        events.write('{"step": "ingest", "time": 2, "eve')
        events.flush()
        follower._show_new()
        assert "done" not in stream.getvalue()
        events.write('nt": "finished", "seconds": 2.0}\n')
    follower._show_new()
    assert "done in 2.0 s" in stream.getvalue()


def test_first_failure_and_times_are_found(tmp_path: Path) -> None:
    record(tmp_path, "ingest", STARTED, {"time": 2.0, "event": "finished", "seconds": 1.0})
    record(tmp_path, "evaluate", {"time": 2.5, "event": "started"}, FAILED)
    record(tmp_path, "promote", {"time": 4.0, "event": "failed", "what": "later"})
    failure = failure_of(tmp_path)
    assert failure is not None and failure["step"] == "evaluate" and failure["fix"] == "mend"
    assert seconds_by_step(tmp_path) == {"ingest": 1.0}
    assert unfinished_step(tmp_path) is None


def test_step_that_neither_ended_nor_failed_is_named(tmp_path: Path) -> None:
    record(tmp_path, "fine_tune", STARTED)
    assert unfinished_step(tmp_path) == "fine_tune"
    assert failure_of(tmp_path) is None

"""Following the steps of a local run by the events that they record."""

import io
import json
import re
import time
from pathlib import Path

import pytest
from rich.console import Console

from graftline_pipelines.local.progress import (
    StepFollower,
    earlier_seconds,
    failure_of,
    left_in_all,
    outcome,
    seconds_by_step,
    steps_of,
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


def shown(run_dir: Path, *, width: int, terminal: bool, strategy: str = "auto") -> str:
    """What a person sees in the end of all that a run recorded."""
    stream = io.StringIO()
    console = Console(
        file=stream, width=width, force_terminal=terminal, color_system=None, _environ={}
    )
    with StepFollower(run_dir, console, steps_of(strategy)):
        pass
    return re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", stream.getvalue())


@pytest.mark.parametrize("width", [80, 120])
def test_figures_stay_whole_beside_a_long_description(tmp_path: Path, width: int) -> None:
    doing = {"event": "progress", "description": "comparing the file with PyTorch on every image"}
    record(tmp_path, "extract_features", STARTED, {**doing, "time": 2, "done": 9, "total": 34567})
    lines = shown(tmp_path, width=width, terminal=True).splitlines()
    (line,) = {line.strip() for line in lines if "comparing" in line}
    named = "2/7 extract_features" if width == 80 else "step 2 of 7: extract_features"
    assert f"{named} comparing the file with " in line
    assert "9/34567 0:00" in line
    assert all(len(line) <= width for line in lines)


LONG = "The data is small: " + "the median class has 126 training images, " * 4 + "and so on."


def test_piped_lines_are_whole_and_numbered(tmp_path: Path) -> None:
    record(tmp_path, "ingest", STARTED, {"time": 1.1, "event": "message", "text": LONG})
    record(tmp_path, "ingest", {"time": 1.2, "event": "message", "text": "\n  a/  40\n  b/  1"})
    lines = shown(tmp_path, width=40, terminal=False).splitlines()
    assert lines == [
        f"{'ingest':<18} step 1 of 7: started",
        f"{'ingest':<18} {LONG}",
        f"{'ingest':<18}   a/  40",
        f"{'ingest':<18}   b/  1",
    ]


@pytest.mark.parametrize("width", [80, 120])
def test_on_a_terminal_further_lines_stand_below_the_first_word(tmp_path: Path, width: int) -> None:
    record(tmp_path, "fit_head", STARTED, {"time": 1.1, "event": "message", "text": LONG})
    lines = [line for line in shown(tmp_path, width=width, terminal=True).splitlines() if line]
    said = [line for line in lines if "median" in line or "and so on" in line]
    assert said[0].startswith("fit_head ") and len(said) > 1
    assert all(line.startswith(" " * 19) and line[19] != " " for line in said[1:])
    assert all(len(line) <= width for line in said)


def test_a_step_that_is_not_needed_is_said_and_counted(tmp_path: Path) -> None:
    for moment, step in enumerate(["ingest", "extract_features", "fit_head", "evaluate"]):
        record(tmp_path, step, {"time": moment, "event": "started"})
        record(tmp_path, step, {"time": moment + 0.5, "event": "finished", "seconds": 0.5})
    text = shown(tmp_path, width=100, terminal=False)
    assert f"{'fine_tune':<18} step 4 of 7: not needed" in text
    assert f"{'evaluate':<18} step 5 of 7: started" in text
    text = shown(tmp_path, width=100, terminal=False, strategy="probe")
    assert "fine_tune" not in text and "evaluate           step 4 of 6: started" in text


def test_shares_of_an_extraction_are_one_step(tmp_path: Path) -> None:
    for moment, task in enumerate(["plan_extraction", "extract_share_1", "extract_features"]):
        record(tmp_path, task, {"time": moment, "event": "started"})
    lines = shown(tmp_path, width=100, terminal=False, strategy="probe").splitlines()
    assert [line.split(maxsplit=1)[1] for line in lines if "not needed" not in line] == [
        "step 2 of 6: started"
    ] * 3


def test_a_reason_is_left_to_the_end_and_a_step_s_end_says_what_it_came_to(
    tmp_path: Path,
) -> None:
    record(tmp_path, "evaluate", STARTED, {"time": 1.1, "event": "reason", "text": LONG})
    record(tmp_path, "evaluate", {"time": 2.0, "event": "finished", "seconds": 1.0})
    result = {"test": {"accuracy": 0.5, "images": 1.0}, "verdict": {"promote": False}}
    (tmp_path / "steps" / "evaluate.json").write_text(json.dumps(result))
    text = shown(tmp_path, width=200, terminal=False)
    assert LONG not in text
    assert "done in 1.0 s: 50.0% of 1 test image right, do not promote" in text


def test_the_name_of_a_step_is_not_repeated(tmp_path: Path) -> None:
    text = {"time": 1.1, "event": "message", "text": "fit_head: reused from run r1"}
    record(tmp_path, "fit_head", STARTED, text)
    assert f"{'fit_head':<18} reused from run r1\n" in shown(tmp_path, width=90, terminal=False)


@pytest.mark.parametrize(
    ("step", "result", "words"),
    [
        ("fit_head", {"strategy": "probe"}, "strategy probe"),
        (
            "promote",
            {"name": "d", "version": "2", "alias": "champion"},
            "d version 2, alias champion",
        ),
        ("promote", {"name": "d", "version": "2", "alias": None}, "d version 2, not promoted"),
        (
            "promote",
            {"name": "d", "version": "2", "alias": None, "champion_before": "2"},
            "d version 2, the champion as before",
        ),
        ("evaluate", {}, ""),
        ("ingest", {"images": {}}, ""),
    ],
)
def test_what_a_step_came_to(step: str, result: dict[str, object], words: str) -> None:
    assert outcome(step, result) == words


def test_the_steps_of_a_run() -> None:
    assert steps_of("probe", retrain=True)[0] == "watch"
    assert "fine_tune" in steps_of("scratch") and "fine_tune" not in steps_of("head")


def test_the_time_left_in_all_is_that_of_an_earlier_run() -> None:
    expected = {"ingest": 10.0, "fit_head": 20.0, "evaluate": 30.0}
    assert left_in_all(expected, {}, set(), 100.0) == 60.0
    assert left_in_all(expected, {"ingest": 96.0}, set(), 100.0) == 56.0
    assert left_in_all(expected, {"ingest": 80.0}, set(), 100.0) == 50.0  # it takes longer
    assert left_in_all(expected, {"ingest": 80.0}, {"ingest"}, 100.0) == 50.0
    assert left_in_all({}, {}, set(), 100.0) == 0.0


def test_an_earlier_run_is_one_that_computed_everything(tmp_path: Path) -> None:
    def run(name: str, seconds: float, **result: object) -> None:
        for start, step in ((1.0, "fit_head"), (4.0 + seconds, "promote")):
            ended = {"time": start + seconds, "event": "finished", "seconds": seconds}
            record(tmp_path / name, step, {"time": start, "event": "started"}, ended)
        (tmp_path / name / "steps" / "fit_head.json").write_text(json.dumps(result))

    assert earlier_seconds(tmp_path, "digits") == {}
    run("digits-1", 5.0)
    run("digits-2", 7.0)
    run("digits-3", 0.1, reused_from="digits-2")
    run("other-9", 9.0)
    record(tmp_path / "digits-4", "fit_head", STARTED)  # failed early
    # Promote began 3 s after the end of fit_head: whoever waits for its end waits for these too.
    assert earlier_seconds(tmp_path, "digits") == {"fit_head": 7.0, "promote": 10.0}
    assert seconds_by_step(tmp_path / "digits-2") == {"fit_head": 7.0, "promote": 7.0}


def test_the_time_left_counts_a_step_that_the_earlier_run_had_not(tmp_path: Path) -> None:
    console = Console(file=io.StringIO(), force_terminal=True, width=100)
    steps, expected = ["fit_head", "fine_tune", "promote"], {"fit_head": 5.0, "promote": 7.0}
    with StepFollower(tmp_path, console, steps, expected) as it:
        record(tmp_path, "fit_head", STARTED, {"time": 2.0, "event": "finished", "seconds": 1.0})
        record(tmp_path, "fine_tune", {"time": 3.0, "event": "started"})
        it._show_new()
        assert it._left(time.monotonic()) is None  # nothing is known of it: no figure
        doing = {"event": "progress", "description": "training", "total": 10}
        record(tmp_path, "fine_tune", {**doing, "time": 4.0, "done": 1})
        it._show_new()
        time.sleep(0.3)
        record(tmp_path, "fine_tune", {**doing, "time": 5.0, "done": 2})
        it._show_new()
        task = next(each for each in it._progress.tasks if each.fields["step"] == "fine_tune")
        assert task.time_remaining
        left = it._left(time.monotonic())
        assert left is not None and abs(left - (7.0 + task.time_remaining)) < 1.0


def test_the_time_left_runs_on_while_the_next_step_starts(tmp_path: Path) -> None:
    console = Console(file=io.StringIO(), force_terminal=True, width=100)
    with StepFollower(tmp_path, console, ["ingest", "promote"], {"ingest": 1, "promote": 60}) as it:
        record(tmp_path, "ingest", STARTED, {"time": 2.0, "event": "finished", "seconds": 1.0})
        it._show_new()
        assert 59 < left_in_all(it._expected, it._counted, it._ended, time.monotonic()) <= 60
        assert left_in_all(it._expected, it._counted, it._ended, time.monotonic() + 20) < 41

"""A step's record: progress, result, and errors with and without a traceback."""

import json
import logging
from dataclasses import dataclass
from pathlib import Path

import pytest

from graftline.errors import DataError
from graftline.progress import Progress, progress
from graftline.steps.runtime import Recorder, StepResult, read_result


@dataclass(frozen=True, kw_only=True)
class Result(StepResult):
    folder: Path
    count: int


def events(run_dir: Path, step: str) -> list[dict[str, object]]:
    path = run_dir / "steps" / f"{step}.events.jsonl"
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_result_is_read_back_and_replaced_whole(tmp_path: Path) -> None:
    recorder = Recorder("ingest", tmp_path)
    assert read_result(tmp_path, "ingest") is None
    recorder.record(Result(folder=tmp_path, count=1))
    recorder.record(Result(folder=tmp_path, count=2))
    assert read_result(tmp_path, "ingest") == {"folder": str(tmp_path), "count": 2}
    assert [path.name for path in (tmp_path / "steps").iterdir()] == ["ingest.json"]


def test_recorder_without_a_run_dir_writes_nothing(tmp_path: Path) -> None:
    recorder = Recorder("ingest", None)
    recorder.event("started")
    recorder.record(Result(folder=tmp_path, count=1))
    assert list(tmp_path.iterdir()) == []


def test_progress_counts_and_takes_the_total_from_the_items(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("graftline.progress._listener", Recorder("ingest", tmp_path).event)
    assert list(progress([5, 6, 7], "reading")) == [5, 6, 7]
    told = events(tmp_path, "ingest")
    assert (told[0]["done"], told[0]["total"]) == (0, 3)
    assert (told[-1]["done"], told[-1]["description"]) == (3, "reading")


def test_pod_log_has_plain_lines(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("graftline.progress.PROGRESS_SECONDS", 0.0)
    with caplog.at_level(logging.INFO, "graftline"), Progress("reading", 2000, "files") as bar:
        bar.advance(1500)
    assert any("reading: 1,500 of 2,000 files" in record.message for record in caplog.records)


def test_error_says_what_why_and_what_to_do() -> None:
    text = str(DataError("'x' is empty", why="no files", fix="Add images."))
    assert text.splitlines() == ["'x' is empty", "Why: no files", "What to do: Add images."]

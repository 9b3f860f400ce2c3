"""What each step leaves in the store of how it ended, and what becomes of dead runs in MLflow."""

import json
import subprocess
import sys
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from graftline.errors import DataError
from graftline.records import run_records
from graftline.records.run_records import StepRecord, read_records, shown_name, write_record
from graftline.steps.runtime import Recorder, step
from graftline.tracking.client import connect
from graftline.tracking.dead_runs import close_lost, close_runs
from graftline.tracking.mlflow_run import RUN_ID_VARIABLE, start_run


@pytest.fixture(autouse=True)
def _no_run_dir(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.delenv("GRAFTLINE_RUN_DIR", raising=False)
    monkeypatch.delenv(RUN_ID_VARIABLE, raising=False)
    yield


def states(store: Path, run: str = "run-1") -> dict[str, str]:
    return {record.step: record.state for record in read_records(str(store), run)}


def as_earlier_versions(path: Path, **changes: Any) -> None:
    """Write a record again without sha256 and token, as earlier versions did."""
    content = json.loads(path.read_text())
    kept = {key: value for key, value in content.items() if key not in ("seal", "commit")}
    path.write_text(json.dumps({**kept, **changes}))


def test_a_step_leaves_its_error_and_a_later_try_writes_over_it(tmp_path: Path) -> None:
    with pytest.raises(SystemExit), step("ingest", str(tmp_path), "run-1"):
        assert states(tmp_path) == {"ingest": "running"}
        raise DataError("There are no images.", why="The prefix is empty.", fix="Name another.")
    (record,) = read_records(str(tmp_path), "run-1")
    assert record == StepRecord(
        step="ingest",
        state="failed",
        when=record.when,
        what="There are no images.",
        why="The prefix is empty.",
        fix="Name another.",
    )
    with step("ingest", str(tmp_path), "run-1"):
        pass
    assert states(tmp_path) == {"ingest": "done"}
    assert states(tmp_path, "run-2") == {}


def test_an_unforeseen_error_is_left_too(tmp_path: Path) -> None:
    with pytest.raises(ZeroDivisionError), step("fit_head", str(tmp_path), "run-1"):
        raise ZeroDivisionError("division by zero")
    (record,) = read_records(str(tmp_path), "run-1")
    assert record.what == "ZeroDivisionError: division by zero" and record.state == "failed"


def test_a_store_that_is_away_does_not_hide_the_steps_own_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """One that refuses, and one that never answers: the error is printed, and the step ends."""
    (tmp_path / "file").write_text("no folder")
    monkeypatch.setattr(run_records, "WRITE_SECONDS", 0.05)
    for opened in (None, lambda uri: time.sleep(30)):
        if opened is not None:
            monkeypatch.setattr(run_records, "open_store", opened)
        with pytest.raises(SystemExit) as ended, step("ingest", f"{tmp_path}/file/x", "run-1"):
            raise DataError("There are no images.")
        assert ended.value.code == 1
        assert "ERROR in step ingest: There are no images." in capsys.readouterr().out


def test_nothing_is_kept_without_a_run(tmp_path: Path) -> None:
    for run in ("", "{{$.pipeline_job_uuid}}"):
        with step("ingest", str(tmp_path), run):
            pass
        assert not write_record(str(tmp_path), run, "ingest", "done")
    assert list(tmp_path.iterdir()) == [] and read_records(str(tmp_path), "") == []


def test_records_of_another_schema_are_not_read(tmp_path: Path) -> None:
    write_record(str(tmp_path), "run-1", "watch", "done")
    path = tmp_path / "pipeline-runs" / "run-1" / "watch.json"
    as_earlier_versions(path)
    assert [record.step for record in read_records(str(tmp_path), "run-1")] == ["watch"]
    as_earlier_versions(path, schema_version=99)
    assert read_records(str(tmp_path), "run-1") == []


def test_a_damaged_record_is_left_out_and_named(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    for name in ("ingest", "fit_head"):
        write_record(str(tmp_path), "run-1", name, "done")
    path = tmp_path / "pipeline-runs" / "run-1" / "ingest.json"
    path.write_text(path.read_text().replace('"done"', '"gone"'))
    assert states(tmp_path) == {"fit_head": "done"}
    assert "run-1/ingest.json is damaged" in caplog.text


def test_a_long_step_gives_a_sign_of_life(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    recorder = Recorder("fine_tune", None, str(tmp_path), "run-1")
    recorder.event("progress", done=1)
    assert states(tmp_path) == {}
    monkeypatch.setattr("graftline.steps.runtime.SIGN_SECONDS", 0.0)
    recorder.event("progress", done=2)
    assert states(tmp_path) == {"fine_tune": "running"}


def test_names() -> None:
    assert shown_name("digits-1", "digits-xyz") == "digits-1"
    assert shown_name("", "digits-xyz") == "digits-xyz"
    assert shown_name("{{$.pipeline_job_name}}", "digits-xyz") == "digits-xyz"


def status(uri: str, run_id: str) -> str:
    return str(connect(uri).get_run(run_id).info.status)


def test_a_second_try_joins_the_first_ones_run(mlflow_sqlite: str) -> None:
    first = start_run(mlflow_sqlite, "digits", "a", pipeline_run="run-1")
    assert start_run(mlflow_sqlite, "digits", "a", pipeline_run="run-1") == first
    assert start_run(mlflow_sqlite, "digits", "a", pipeline_run="run-2") != first
    close_runs(mlflow_sqlite, "digits", "run-1", "FAILED")
    assert start_run(mlflow_sqlite, "digits", "a", pipeline_run="run-1") != first


def test_the_next_run_ends_what_dead_ones_left(
    mlflow_sqlite: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    long_ago = datetime.now(UTC) - timedelta(hours=3)

    def left(name: str, state: Any, when: datetime | None = None) -> str:
        if state is not None:
            write_record(str(tmp_path), name, "ingest", "done")
            write_record(str(tmp_path), name, "fit_head", state)
            for path in (tmp_path / "pipeline-runs" / name).glob("*.json"):
                if when is not None:
                    as_earlier_versions(path, when=when.isoformat())
        return start_run(mlflow_sqlite, "digits", name, pipeline_run=name)

    runs = {
        "failed": left("failed", "failed"),
        "lost": left("lost", "running", long_ago),
        "alive": left("alive", "running"),
        "elsewhere": left("elsewhere", None),
        "mine": left("mine", "running", long_ago),
        "somebody's": start_run(mlflow_sqlite, "digits", "not of a pipeline"),
    }
    assert close_lost(mlflow_sqlite, "digits", str(tmp_path), "mine") == 2
    assert {name: status(mlflow_sqlite, run) for name, run in runs.items()} == {
        "failed": "FAILED",
        "lost": "KILLED",
        "alive": "RUNNING",
        "elsewhere": "RUNNING",
        "mine": "RUNNING",
        "somebody's": "RUNNING",
    }


def test_a_local_run_is_ended_without_importing_mlflow(mlflow_sqlite: str) -> None:
    """Whoever pressed Ctrl-C waits for it, and the import takes seconds."""
    run = start_run(mlflow_sqlite, "digits", "one", pipeline_run="run-1")
    other = start_run(mlflow_sqlite, "letters", "one", pipeline_run="run-1")
    code = (
        "import sys; from graftline.tracking.dead_runs import close_runs\n"
        f"print(close_runs({mlflow_sqlite!r}, 'digits', 'run-1', 'KILLED', 'stopped'))\n"
        "print('mlflow' in sys.modules)"
    )
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert said.stdout.split() == ["1", "False"]
    ended = connect(mlflow_sqlite).get_run(run)  # by MLflow itself
    assert ended.info.status == "KILLED" and ended.info.end_time >= ended.info.start_time
    assert ended.data.tags["graftline.ended"] == "stopped"
    assert status(mlflow_sqlite, other) == "RUNNING"


def test_a_run_that_its_owner_named_is_its_owners_to_end(
    mlflow_sqlite: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    owned = start_run(mlflow_sqlite, "digits", "theirs")
    monkeypatch.setenv(RUN_ID_VARIABLE, owned)
    assert start_run(mlflow_sqlite, "digits", "ours", pipeline_run="run-1") == owned
    assert close_runs(mlflow_sqlite, "digits", "run-1", "FAILED") == 0
    assert status(mlflow_sqlite, owned) == "RUNNING"


def test_mlflow_that_is_away_is_a_warning_to_the_next_run(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level("INFO", logger="graftline"):
        assert close_lost("http://127.0.0.1:9", "digits", str(tmp_path), "mine") == 0
    assert "WARNING" in caplog.text

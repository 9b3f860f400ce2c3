"""`graftline decisions`: forecast beside outcome, over the runs here and in MLflow."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from graftline.records.decision import Decision, Forecast, Outcome, Pilot
from graftline.tracking.mlflow_run import open_tracking, start_run
from graftline_pipelines.cli.main import app

FORECAST = Forecast(
    gain=0.03, gain_interval=(0.01, 0.05), confidence=0.8, basis="a test", hours=0.5
)
OUTCOME = Outcome(
    fine_tuned_accuracy=0.84,
    probe_accuracy=0.80,
    gain=0.04,
    gain_interval=(0.02, 0.06),
    validation_images=500,
    used="fine_tune",
    agreed=True,
    sentence="It did.",
    hours=0.25,
)
DECISION = Decision(
    strategy="auto",
    choice="fine_tune",
    size="large",
    similarity="different",
    cell="large and different",
    advice="fine-tune",
    figures={},
    thresholds={},
    reasons=[],
    forecast=FORECAST,
)


@pytest.fixture
def put(tmp_path: Path) -> Callable[[str, str, dict[str, Any]], None]:
    def write(run: str, step: str, decision: dict[str, Any]) -> None:
        path = tmp_path / "runs" / run / "steps" / f"{step}.json"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps({"decision": decision}))

    return write


def listed(tmp_path: Path, *more: str) -> tuple[list[dict[str, Any]], str]:
    result = CliRunner().invoke(
        app,
        ["decisions", "--runs-dir", str(tmp_path / "runs"), "--json", *more],
        env={"MLFLOW_TRACKING_URI": None},
        catch_exceptions=False,
    )
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout), result.stderr


def test_runs_here(tmp_path: Path, put: Callable[..., None]) -> None:
    put("trained", "fit_head", DECISION.to_dict())
    put("trained", "fine_tune", DECISION.with_outcome(OUTCOME).to_dict())
    put("missed", "fine_tune", DECISION.with_outcome(replace(OUTCOME, gain=-0.02)).to_dict())
    pilot = Pilot(epochs=1, minutes=1, images=1, offset=0, slope=1, min_gain=0.01).measured(-0.07)
    put("piloted", "fine_tune", DECISION.with_pilot(pilot).to_dict())
    found, text = listed(tmp_path)
    by_run = {one["run"]: one for one in found}
    assert set(by_run) == {"trained", "missed", "piloted"}
    assert by_run["trained"]["outcome"]["gain"] == 0.04  # the later step's record
    assert "+3.0% (+1.0% to +5.0%)" in text and "+4.0% (+2.0% to +6.0%)" in text
    assert "-7.0%" in text and "0.25" in text
    assert "In 1 of 2 fine-tunings the gain was inside the forecast's interval." in text


def test_records_of_before_and_of_no_use(tmp_path: Path, put: Callable[..., None]) -> None:
    old = DECISION.to_dict() | {"schema_version": 1}
    del old["forecast"], old["pilot"]
    put("old", "fit_head", old)
    put("newer", "fit_head", DECISION.to_dict() | {"schema_version": 99})
    put("damaged", "fit_head", {"kind": "something else"})
    (tmp_path / "runs" / "unfinished" / "steps").mkdir(parents=True)
    found, text = listed(tmp_path)
    assert [one["run"] for one in found] == ["old"]
    assert "unknown" in text and "No fine-tuning has been compared" in text


def test_no_runs(tmp_path: Path) -> None:
    found, text = listed(tmp_path)
    assert found == [] and "No run with a decision" in text


@pytest.mark.slow
def test_runs_in_mlflow(tmp_path: Path, put: Callable[..., None]) -> None:
    uri = f"sqlite:///{tmp_path / 'mlflow.db'}"
    for name, step, decision in (
        ("first", "fit_head", DECISION),
        ("second", "fine_tune", DECISION.with_outcome(OUTCOME)),
    ):
        path = tmp_path / "decision.json"
        path.write_text(json.dumps(decision.to_dict()))
        open_tracking(uri, start_run(uri, "digits", name)).files({f"{step}/decision.json": path})
    start_run(uri, "digits", "unfinished")
    start_run(uri, "other", "elsewhere")
    put("second", "fit_head", DECISION.to_dict())  # here, too: listed once
    found, _ = listed(tmp_path, "--tracking", uri, "--experiment", "digits")
    assert sorted(one["run"] for one in found) == ["first", "second"]

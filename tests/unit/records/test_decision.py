"""The decision record on disk."""

import json
from pathlib import Path

import pytest

from graftline.errors import IntegrityError, SchemaVersionError, StoreNotFound
from graftline.records.decision import (
    Decision,
    Forecast,
    Outcome,
    Pilot,
    read_decision,
    write_decision,
)


@pytest.fixture
def decision() -> Decision:
    return Decision(
        strategy="auto",
        choice="fine_tune",
        size="large",
        similarity="different",
        cell="large and different",
        advice="fine-tune",
        figures={"probe": {"accuracy": 0.5, "interval": [0.4, 0.6]}, "folds": 5},
        thresholds={"good_enough": 0.97},
        reasons=["Because."],
        notes=["A note."],
        snapshot_id="abc",
        backbone="timm/test_resnet",
    )


@pytest.fixture
def outcome() -> Outcome:
    return Outcome(
        fine_tuned_accuracy=0.9,
        probe_accuracy=0.8,
        gain=0.1,
        gain_interval=(0.02, 0.18),
        validation_images=100,
        used="fine_tune",
        agreed=True,
        sentence="It did.",
    )


def test_round_trip(tmp_path: Path, decision: Decision, outcome: Outcome) -> None:
    path = tmp_path / "new" / "decision"
    write_decision(path, decision)
    assert read_decision(path) == decision
    write_decision(path, decision.with_outcome(outcome))
    assert read_decision(path) == decision.with_outcome(outcome)
    assert read_decision(path).outcome == outcome
    assert json.loads(path.read_text())["fine_tune"] is True


# As version 1 wrote it, with the outcome of a training.
OLD = """{"kind": "graftline.decision", "strategy": "auto", "choice": "fine_tune", "size": "large",
"similarity": "different", "cell": "large and different", "advice": "fine-tune", "figures":
{"folds": 5}, "thresholds": {"good_enough": 0.97}, "reasons": ["Because."], "notes": [],
"snapshot_id": "abc", "backbone": "timm/test_resnet", "outcome": {"fine_tuned_accuracy": 0.9,
"probe_accuracy": 0.8, "gain": 0.1, "gain_interval": [0.02, 0.18], "validation_images": 100,
"used": "fine_tune", "agreed": true, "sentence": "It did."}, "schema_version": 1,
"fine_tune": true}"""


def test_a_record_of_version_1_is_read(tmp_path: Path, outcome: Outcome) -> None:
    path = tmp_path / "decision.json"
    path.write_text(OLD)
    read = read_decision(path)
    assert read.outcome == outcome and read.outcome.hours is None
    assert read.forecast is None and read.pilot is None
    write_decision(path, read)
    assert read_decision(path) == read  # and is written as this version's


def test_the_forecast_and_the_pilot_are_kept(tmp_path: Path, decision: Decision) -> None:
    forecast = Forecast(
        gain=0.02,
        gain_interval=(-0.01, 0.05),
        confidence=0.8,
        basis="measurements",
        hours=0.5,
        hours_interval=(0.1, 2.0),
        device="pool gpu (2 GPUs)",
        accelerators=2,
        cost=1.5,
        cost_interval=(0.3, 6.0),
    )
    pilot = Pilot(epochs=3, minutes=5, images=300, offset=0.01, slope=0.5, min_gain=0.02)
    whole = Decision(**{**decision.__dict__, "forecast": forecast, "pilot": pilot})
    write_decision(tmp_path / "decision.json", whole)
    assert read_decision(tmp_path / "decision.json") == whole


@pytest.mark.parametrize(
    ("gain", "choice"), [(0.04, "fine_tune"), (0.02, "fine_tune"), (0.0, "probe")]
)
def test_the_pilot_decides(decision: Decision, gain: float, choice: str) -> None:
    pilot = Pilot(epochs=3, minutes=5, images=300, offset=0.01, slope=0.5, min_gain=0.02)
    after = decision.with_pilot(pilot.measured(gain))
    assert after.choice == choice
    assert after.pilot is not None and after.pilot.expected == pytest.approx(0.01 + gain / 2)
    assert f"{gain:+.1%}" in after.reasons[-1] and len(after.reasons) == len(decision.reasons) + 1


@pytest.mark.parametrize(
    ("choice", "expected"),
    [("probe", False), ("head", False), ("fine_tune", True), ("scratch", True)],
)
def test_which_choices_need_the_training_step(
    decision: Decision, choice: str, expected: bool
) -> None:
    changed = Decision(**{**decision.__dict__, "choice": choice})
    assert changed.fine_tune is expected


@pytest.mark.parametrize("version", [0, 3, None])
def test_another_version_is_refused(tmp_path: Path, decision: Decision, version: object) -> None:
    path = tmp_path / "decision.json"
    path.write_text(json.dumps({**decision.to_dict(), "schema_version": version}))
    with pytest.raises(SchemaVersionError, match=f"schema version {version}"):
        read_decision(path)


@pytest.mark.parametrize("text", ["", "nonsense", "[]", '{"kind": "x"}'])
def test_anything_else_is_refused(tmp_path: Path, text: str) -> None:
    path = tmp_path / "decision.json"
    path.write_text(text)
    with pytest.raises(IntegrityError, match="not a decision record"):
        read_decision(path)


@pytest.mark.parametrize("key", ["choice", "outcome", "figures"])
def test_a_missing_field_is_found(tmp_path: Path, decision: Decision, key: str) -> None:
    path = tmp_path / "decision.json"
    content = decision.to_dict()
    del content[key]
    path.write_text(json.dumps(content))
    with pytest.raises(IntegrityError, match=key):
        read_decision(path)


def test_no_file(tmp_path: Path) -> None:
    with pytest.raises(StoreNotFound):
        read_decision(tmp_path / "decision.json")


def test_numbers_that_json_lacks_are_not_written(tmp_path: Path, decision: Decision) -> None:
    decision.figures["odd"] = float("nan")
    with pytest.raises(ValueError, match="JSON"):
        write_decision(tmp_path / "decision.json", decision)
    assert not (tmp_path / "decision.json").exists()

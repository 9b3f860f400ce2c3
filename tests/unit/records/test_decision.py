"""The decision record on disk."""

import json
from pathlib import Path

import pytest

from graftline.errors import IntegrityError, SchemaVersionError, StoreNotFound
from graftline.records.decision import Decision, Outcome, read_decision, write_decision


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


@pytest.mark.parametrize(
    ("choice", "expected"),
    [("probe", False), ("head", False), ("fine_tune", True), ("scratch", True)],
)
def test_which_choices_need_the_training_step(
    decision: Decision, choice: str, expected: bool
) -> None:
    changed = Decision(**{**decision.__dict__, "choice": choice})
    assert changed.fine_tune is expected


@pytest.mark.parametrize("version", [0, 2, None])
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

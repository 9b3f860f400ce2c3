"""The pilot, on a sample or as the first epochs: does the whole training follow?"""

import html
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from graftline.classifier.bundle import load_classifier
from graftline.data.snapshot import read_snapshot
from graftline.records.decision import Pilot, read_decision, write_decision
from graftline.steps.fine_tune.pilot import subset
from graftline.steps.fine_tune.step import FineTuneResult, run

NAME, SIZE = "timm/test_resnet", 32


@pytest.fixture
def train_with(
    make_snapshot: Callable[..., tuple[Path, str]],
    make_probe: Callable[..., Path],
    tmp_path: Path,
) -> Callable[..., FineTuneResult]:
    """Fine-tune from a probe whose decision asks for this pilot."""
    snapshot, store = make_snapshot(30, 3)
    make_probe(snapshot, store, NAME, SIZE)

    def train(pilot: Pilot | None, **options: Any) -> FineTuneResult:
        decision = read_decision(tmp_path / "decision.json")
        write_decision(tmp_path / "decision.json", replace(decision, pilot=pilot))
        return run(
            snapshot_folder=snapshot,
            probe_folder=tmp_path / "probe",
            decision_file=tmp_path / "decision.json",
            store=store,
            classifier_folder=tmp_path / "out",
            decision_out=tmp_path / "out.json",
            probe_page=tmp_path / "decision.html",
            page_file=tmp_path / "out.html",
            **{"epochs": 3, "batch_size": 16, "learning_rate": 1e-3, **options},
        )

    return train


def pilot(min_gain: float, **changes: Any) -> Pilot:
    values = {"epochs": 1, "minutes": 5.0, "images": 20, "offset": 0.0, "slope": 1.0}
    return Pilot(**{**values, "min_gain": min_gain, **changes})


def test_a_pilot_that_shows_too_little_ends_the_training(
    train_with: Callable[..., FineTuneResult], tmp_path: Path
) -> None:
    result = train_with(pilot(1.0))
    assert (result.strategy, result.epochs) == ("probe", 1)
    decision = read_decision(tmp_path / "out.json")
    assert decision.to_dict() == result.decision
    assert decision.choice == "probe" and decision.outcome is None
    page = (tmp_path / "out.html").read_text("utf-8")
    assert page.count("Strategy: probe") == 1 and page.count(decision.reasons[-1]) == 1
    assert decision.pilot is not None and decision.pilot.gain is not None
    assert decision.pilot.gain == pytest.approx(result.val_accuracy - result.probe_val_accuracy)
    # The probe as it was, though the pilot has trained its network in place.
    before, after = load_classifier(tmp_path / "probe"), load_classifier(tmp_path / "out")
    assert before.strategy == after.strategy == "probe"
    for (name, one), (_, two) in zip(
        before.state_dict().items(), after.state_dict().items(), strict=True
    ):
        assert one.equal(two), name


def test_after_a_good_pilot_the_whole_training_starts_from_the_probe(
    train_with: Callable[..., FineTuneResult], tmp_path: Path
) -> None:
    after = train_with(pilot(-1.0))
    assert after.epochs == 3
    decision = read_decision(tmp_path / "out.json")
    assert decision.outcome is not None and decision.outcome.hours is not None
    assert decision.pilot is not None and decision.pilot.goes_on
    assert after.files()["fine_tune/decision.html"] == tmp_path / "out.html"
    page = html.unescape((tmp_path / "out.html").read_text("utf-8"))
    assert page.count(decision.outcome.sentence) == 1
    assert decision.outcome.sentence not in (tmp_path / "decision.html").read_text("utf-8")
    # The start is the probe's own accuracy again, not what the pilot left behind.
    assert after.start_val_accuracy == pytest.approx(after.probe_val_accuracy)


def test_with_few_images_the_first_epochs_are_the_pilot_and_nothing_is_trained_twice(
    train_with: Callable[..., FineTuneResult], tmp_path: Path
) -> None:
    """Against the same training without a pilot: alike to the last bit if the pilot passes."""
    plain = train_with(None)
    weights = load_classifier(tmp_path / "out").state_dict()
    passed = train_with(pilot(-1.0, images=1000))
    assert passed.history == plain.history and passed.epochs == 3
    for name, tensor in load_classifier(tmp_path / "out").state_dict().items():
        assert tensor.equal(weights[name]), name
    decision = read_decision(tmp_path / "out.json")
    assert decision.outcome is not None and decision.pilot is not None
    after_one = plain.history[0]["val_accuracy"] - plain.probe_val_accuracy
    assert decision.pilot.gain == pytest.approx(after_one) and decision.pilot.goes_on


def test_the_first_epochs_end_a_training_that_they_show_too_little_of(
    train_with: Callable[..., FineTuneResult], tmp_path: Path
) -> None:
    few = train_with(pilot(1.0, images=1000, epochs=2))
    assert (few.strategy, few.epochs) == ("probe", 2)
    decision = read_decision(tmp_path / "out.json")
    assert decision.choice == "probe" and decision.outcome is None
    assert load_classifier(tmp_path / "out").strategy == "probe"
    # Run again it ends there again, and does not stand in for the training that is asked for.
    again = train_with(pilot(1.0, images=1000, epochs=2))
    assert again.decision == few.decision and again.history == few.history
    assert train_with(None).epochs == 3


def test_the_minutes_of_a_pilot_end_it_too(
    train_with: Callable[..., FineTuneResult],
) -> None:
    assert train_with(pilot(1.0, images=1000, epochs=2, minutes=1e-9)).epochs == 1


def test_the_pilots_images_keep_the_classes_shares(
    make_snapshot: Callable[..., tuple[Path, str]],
) -> None:
    snapshot = read_snapshot(make_snapshot(60, 3, counts={0: 60, 1: 30, 2: 10})[0])
    few = subset(snapshot, 30, seed=1)
    assert few.id != snapshot.id  # its checkpoints are its own
    assert np.array_equal(few.rows("val"), snapshot.rows("val"))
    assert set(few.rows("train")) <= set(snapshot.rows("train"))
    whole, part = (np.bincount(s.labels()[s.rows("train")]) for s in (snapshot, few))
    assert part.sum() == 30
    assert np.abs(part - whole * 30 / whole.sum()).max() <= 1
    assert np.array_equal(subset(snapshot, 10**6, 0).rows("train"), snapshot.rows("train"))


def test_the_pilot_is_in_the_record_as_json(
    train_with: Callable[..., FineTuneResult], tmp_path: Path
) -> None:
    train_with(pilot(1.0, offset=0.25, slope=0.5))
    kept = json.loads((tmp_path / "out.json").read_text())["pilot"]
    assert kept["expected"] == pytest.approx(0.25 + 0.5 * kept["gain"])

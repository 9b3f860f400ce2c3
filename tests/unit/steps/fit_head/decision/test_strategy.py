"""The guide, the choice by expected gain and cost, and when a pilot decides."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from graftline.records.decision import Decision
from graftline.steps.fit_head.config import AutoSettings
from graftline.steps.fit_head.decision.cost import Cost
from graftline.steps.fit_head.decision.forecast import Calibration
from graftline.steps.fit_head.decision.guide import GUIDE, place
from graftline.steps.fit_head.decision.strategy import decide


def figures(median: float, accuracy: float) -> dict[str, Any]:
    return {
        "images_per_class": {"min": int(median // 2), "median": median, "max": int(median * 2)},
        "train_images": int(10 * median),
        "probe": {"accuracy": accuracy, "interval": [accuracy, accuracy], "family": "svm"},
        "knn": {"k": 5, "accuracy": accuracy - 0.2, "by_k": {}},
        "majority": 0.1,
    }


def mends(level: float, deviation: float = 1e-6) -> Calibration:
    """A forecast that fine-tuning mends this share of the probe's errors, on any data."""
    nothing = np.zeros(4)
    return Calibration(
        nothing, nothing + 1, nothing, 0.0, level, deviation, 0.0, 0.1, 1e6, "a test"
    )


def decided(data: dict[str, Any], forecast: Calibration, **options: Any) -> Decision:
    cost, validation = options.pop("cost", None), options.pop("validation_images", 10**6)
    strategy, epochs = options.pop("strategy", "auto"), options.pop("epochs", 10)
    backbone = options.pop("backbone", "")
    return decide(
        strategy,
        data,
        AutoSettings(**options),
        notes=[],
        snapshot_id="",
        backbone=backbone,
        validation_images=validation,
        epochs=epochs,
        cost=cost,
        calibrated=forecast,
    )


def test_the_guide_is_the_lectures() -> None:
    """Little data: the probe. Much data: fine-tune. From scratch: never without need."""
    said = {f"{size} and {like}": cell.strategy for (size, like), cell in GUIDE.items()}
    assert said == {
        "small and similar": "probe",
        "small and different": "probe",
        "large and similar": "fine_tune",
        "large and different": "fine_tune",
    }


@pytest.mark.parametrize(
    ("median", "accuracy", "cell"),
    [
        (5000, 0.90, "large and similar"),
        (500, 0.40, "large and different"),
        (499, 0.90, "small and similar"),
        (100, 0.80, "small and similar"),
        (100, 0.79, "small and different"),
    ],
)
def test_every_cell_of_the_guide(median: float, accuracy: float, cell: str) -> None:
    data = figures(median, accuracy)
    placed = place(data, AutoSettings())
    assert placed.name == cell
    decision = decided(data, mends(0.0))
    assert (decision.cell, decision.advice) == (cell, placed.cell.advice)
    assert all(sentence.endswith(".") for sentence in decision.reasons)
    assert f"{accuracy:.1%}" in " ".join(decision.reasons)


def test_the_limits_between_the_cells_are_the_users() -> None:
    loose = AutoSettings(large_images_per_class=10, similar_accuracy=0.1)
    assert place(figures(20, 0.2), loose).name == "large and similar"


@pytest.mark.parametrize("median", [20, 5000])
@pytest.mark.parametrize(
    ("accuracy", "corrected", "choice"),
    [
        (0.90, 0.3, "fine_tune"),  # 10% of errors, 3 points to gain
        (0.90, 0.03, "probe"),  # three tenths of a point
        (0.99, 0.4, "probe"),  # mends much, and that is four tenths of a point
        (0.50, 0.05, "fine_tune"),  # mends little of much
        (0.50, -0.2, "probe"),
    ],
)
def test_the_expected_gain_decides_whatever_the_accuracy_and_size(
    median: float, accuracy: float, corrected: float, choice: str
) -> None:
    decision = decided(figures(median, accuracy), mends(corrected))
    assert decision.choice == choice and decision.pilot is None
    assert decision.fine_tune == (choice == "fine_tune")
    assert decision.forecast is not None
    assert decision.forecast.gain == pytest.approx(corrected * (1 - accuracy))


def test_the_least_gain_is_the_users() -> None:
    data = figures(100, 0.9)
    assert decided(data, mends(0.05), min_gain=0.001).choice == "fine_tune"
    assert decided(data, mends(0.3), min_gain=0.05).choice == "probe"


def test_a_pilot_decides_where_the_gain_is_in_doubt() -> None:
    data, unsure = figures(100, 0.9), mends(0.11, deviation=0.3)
    decision = decided(data, unsure, pilot_minutes=2)
    assert decision.choice == "fine_tune" and decision.pilot is not None
    assert decision.pilot.minutes == 2
    better, worse = decision.pilot.measured(0.05), decision.pilot.measured(-0.2)
    assert decision.with_pilot(better).fine_tune and not decision.with_pilot(worse).fine_tune
    said = " ".join(decision.reasons)
    assert "so a pilot decides (at most 3 epochs, 2,000 images and 2 minutes: 30%" in said
    # Without a pilot what a training brings on average decides.
    assert decided(data, unsure, pilot=False).choice == "fine_tune"
    assert decided(data, mends(-0.4, 0.3), pilot=False).choice == "probe"


def test_a_pilot_that_would_not_change_the_choice_is_not_made() -> None:
    data, unsure = figures(100, 0.9), mends(-0.1, deviation=0.3)
    assert decided(data, unsure, min_gain=0.01).pilot is not None
    # Pilots that lie far from what a training gains say next to nothing.
    blind = decided(data, replace(unsure, pilot_deviation=2.0), min_gain=0.01)
    assert blind.pilot is None and blind.choice == "probe"
    assert "A pilot would not pay either." in " ".join(blind.reasons)


def test_the_longer_the_training_the_cheaper_its_pilot() -> None:
    data, unsure = figures(100, 0.9), mends(-0.15, deviation=0.3)
    short, long = (decided(data, unsure, epochs=epochs) for epochs in (3, 100))
    assert short.pilot is None and short.choice == "probe" and long.pilot is not None


def test_a_gain_that_validation_could_not_find_is_not_trained_for() -> None:
    """Losses are as likely as gains; whether it is one, few images cannot tell."""
    data, forecast = figures(100, 0.7), mends(-0.05, deviation=0.2)
    assert decided(data, forecast, validation_images=5000).fine_tune
    few = decided(data, forecast, validation_images=20)
    assert few.choice == "probe" and few.pilot is None
    assert "since the better of the two on 20 validation images is used" in few.reasons[-1]


def test_who_asks_for_a_training_whatever_it_gains_gets_it() -> None:
    decision = decided(figures(100, 0.9), mends(0.0), validation_images=10, min_gain=-1.0)
    assert decision.choice == "fine_tune"


COST = Cost(2.0, (1.0, 4.0), "pool gpu (2 GPUs)", 2, 3.5)


@pytest.mark.parametrize(
    ("options", "cost", "choice", "why"),
    [
        ({"max_hours": 1.9}, COST, "probe", "auto.max_hours"),
        ({"max_hours": 2.0}, COST, "fine_tune", ""),
        ({"max_cost": 6.9}, COST, "probe", "auto.max_cost"),
        ({"max_cost": 7.0}, COST, "fine_tune", ""),
        ({"max_cost": 0.1}, replace(COST, hourly_price=None), "fine_tune", ""),
        ({"max_cost": 0.1, "max_hours": 0.1}, None, "fine_tune", ""),
    ],
)
def test_a_gain_that_costs_too_much_is_not_bought(
    options: dict[str, float], cost: Cost | None, choice: str, why: str
) -> None:
    decision = decided(figures(100, 0.5), mends(0.5), cost=cost, **options)
    assert decision.choice == choice
    assert why in " ".join(decision.reasons)
    if cost is not None:
        assert decision.forecast is not None
        assert decision.forecast.cost == cost.money
        assert "4 GPU-hours on pool gpu" in " ".join(decision.reasons)


def test_a_training_of_seconds_is_not_said_in_hours() -> None:
    short = Cost(0.0005, (0.0002, 0.001), "this machine (2 CPU cores)", 0, None)
    decision = decided(figures(100, 0.5), mends(0.5), cost=short)
    said = " ".join(decision.reasons)
    assert "to take 1.8 seconds on this machine (2 CPU cores) (0.7 to 4)" in said
    assert "hours" not in said


@pytest.mark.parametrize("strategy", ["probe", "head", "fine_tune", "scratch"])
def test_an_order_is_obeyed_and_autos_opinion_kept(strategy: str) -> None:
    decision = decided(figures(20, 0.9), mends(0.0), strategy=strategy)
    assert decision.choice == strategy and decision.pilot is None
    opinion = "agrees" if strategy == "probe" else "would have chosen probe"
    assert opinion in decision.reasons[-1]
    assert decision.forecast is not None  # for the comparison with the outcome


def test_no_pilot_is_made_where_fine_tuning_is_asked_for() -> None:
    decision = decided(figures(100, 0.9), mends(0.1, 0.3), strategy="fine_tune")
    assert decision.pilot is None and "a pilot of fine_tune" in decision.reasons[-1]


def test_a_choice_against_the_guide_is_said() -> None:
    said = "guide for data that is {} would say otherwise"
    against = decided(figures(100, 0.5), mends(0.5))
    assert said.format("small and different") in against.reasons[-1]
    assert "otherwise" not in " ".join(decided(figures(5000, 0.5), mends(0.5)).reasons)


@pytest.mark.parametrize(
    ("median", "options", "choice"),
    [
        (100, {}, "probe"),  # small: the guide's probe, whatever the forecast of other features
        (2000, {}, "fine_tune"),
        (2000, {"max_hours": 0.5}, "probe"),
        (100, {"min_gain": 0}, "fine_tune"),
    ],
)
def test_with_features_of_all_blocks_the_guide_decides_without_a_forecast(
    median: float, options: dict[str, Any], choice: str
) -> None:
    cost = Cost(1.0, (0.5, 2.0), "a device", 1, None)
    decision = decided(
        figures(median, 0.5), mends(0.5), backbone="resnet18+blocks", cost=cost, **options
    )
    assert decision.choice == choice
    assert decision.forecast is None and decision.pilot is None
    assert "expected to change" not in " ".join(decision.reasons)
    assert decided(figures(100, 0.5), mends(0.5), backbone="resnet18").choice == "fine_tune"

"""Hours and money of a fine-tuning, against sums done by hand."""

from typing import Any

import pytest

from graftline import machine
from graftline.models.backbone import build
from graftline.steps.fit_head import cost
from graftline.steps.fit_head.config import TrainingPlan
from graftline.steps.fit_head.cost import forecast_cost, operations

FLOPS = 8e8
IMAGES = 10_000


def plan(**changes: Any) -> TrainingPlan:
    return TrainingPlan(**{"epochs": 10, "pool": "gpu", "cores": 4, **changes})


def test_hours_on_cpus() -> None:
    found = forecast_cost(plan(), IMAGES, FLOPS)
    seconds = IMAGES * 10 * 3 * FLOPS / (4 * cost.CORE_RATE) + IMAGES / (4 * 400)
    assert found.hours == pytest.approx(seconds / 3600)
    assert found.hours_interval == pytest.approx((found.hours / 2, found.hours * 2))
    assert (found.device, found.accelerators) == ("pool gpu (4 CPU cores)", 0)
    assert found.money is None and found.money_interval is None


def test_gpus_share_the_work_and_nodes_have_a_price() -> None:
    one = forecast_cost(plan(accelerators=1, hourly_price=3.0), IMAGES, FLOPS)
    two = forecast_cost(plan(accelerators=2, hourly_price=6.0), IMAGES, FLOPS)
    assert one.hours / 2 < two.hours < one.hours  # reading the images takes what it takes
    assert two.device == "pool gpu (2 GPUs)"
    assert one.money == pytest.approx(3.0 * one.hours)
    assert one.money_interval == pytest.approx(tuple(3.0 * h for h in one.hours_interval))


def test_a_training_ends_at_its_limit() -> None:
    found = forecast_cost(plan(max_minutes=1), IMAGES, FLOPS)
    assert found.hours == pytest.approx(1 / 60) and found.hours_interval[1] == found.hours


def test_this_machine_counts_its_own_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "cores", lambda: 3)
    monkeypatch.setattr(machine, "has_cuda", lambda: False)
    here = TrainingPlan(epochs=10, hourly_price=9.0)
    found = forecast_cost(here, IMAGES, FLOPS)
    assert found.device == "this machine (3 CPU cores)" and found.money is None
    monkeypatch.setattr(machine, "has_cuda", lambda: True)
    assert forecast_cost(here, IMAGES, FLOPS).device == "this machine (1 GPU)"


def test_operations_are_counted() -> None:
    """A network of 0.39 GMACs at 224 pixels; convolutions cost by the area of the image."""
    backbone = build("tf_efficientnet_lite0", weights="random", image_size=224)
    assert operations(backbone) == pytest.approx(2 * 0.385e9, rel=0.05)
    small = build("tf_efficientnet_lite0", weights="random", image_size=112)
    assert operations(small) == pytest.approx(operations(backbone) / 4, rel=0.1)

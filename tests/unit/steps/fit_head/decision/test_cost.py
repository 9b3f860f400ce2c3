"""Hours and money of a fine-tuning, against sums done by hand."""

from pathlib import Path
from typing import Any

import pytest

from graftline import machine
from graftline.models.backbone import BackboneSpec, build
from graftline.models.forward_cost import forward_cost
from graftline.records.training_forecast import DEVICES, Rate, write_rate
from graftline.steps.fit_head.config import TrainingPlan
from graftline.steps.fit_head.decision.cost import forecast_cost
from graftline.storage import open_store
from graftline.storage.base import Store

IMAGES = 10_000


@pytest.fixture(scope="module")
def spec() -> BackboneSpec:
    return build("timm/test_resnet", weights="random", image_size=64).spec


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return open_store(str(tmp_path))


def plan(**changes: Any) -> TrainingPlan:
    given = {"epochs": 10, "pool": "gpu", "devices": ("A100",), "accelerators": 1, **changes}
    return TrainingPlan(**given)


def test_hours_and_price_follow_from_the_work_and_the_device(
    spec: BackboneSpec, store: Store
) -> None:
    found = forecast_cost(plan(hourly_price=3.0), IMAGES, spec, store)
    work = forward_cost(spec.name, 64)
    operations = work.operations * 3  # all blocks: forward, and backward twice as much
    hours = IMAGES * 10 * operations / (DEVICES["A100"] * 1e12) / 3600
    assert found.hours == pytest.approx(hours)
    assert found.hours_interval == pytest.approx((hours / 2, hours * 2))
    assert found.money == pytest.approx(3 * hours)
    assert found.money_interval == pytest.approx((1.5 * hours, 6 * hours))
    assert (found.device, found.accelerators) == ("pool gpu (1 x A100)", 1)


def test_what_a_gpu_may_be_widens_the_interval(spec: BackboneSpec, store: Store) -> None:
    slow, fast, either = (
        forecast_cost(plan(devices=devices), IMAGES, spec, store)
        for devices in (("T4",), ("A100",), ("T4", "A100"))
    )
    assert fast.hours < either.hours < slow.hours
    assert either.hours_interval == (fast.hours_interval[0], slow.hours_interval[1])


def test_a_measured_rate_is_preferred(spec: BackboneSpec, store: Store) -> None:
    work = forward_cost(spec.name, 64)
    trained = work.trained(len(work.shares))
    write_rate(store, spec.name, 64, trained, Rate(500.0, "measured", "A100"))
    found = forecast_cost(plan(), IMAGES, spec, store)
    assert found.hours == pytest.approx(IMAGES * 10 / 500 / 3600)
    assert found.hours_interval == pytest.approx((found.hours / 1.5, found.hours * 1.5))


def test_a_gpu_that_no_table_knows_counts_as_the_slowest(spec: BackboneSpec, store: Store) -> None:
    unknown = forecast_cost(plan(devices=("TPU",)), IMAGES, spec, store)
    slowest = min(DEVICES, key=DEVICES.__getitem__)
    known = forecast_cost(plan(devices=(slowest,)), IMAGES, spec, store)
    assert unknown.hours == known.hours


def test_a_training_ends_at_its_limit(spec: BackboneSpec, store: Store) -> None:
    found = forecast_cost(plan(max_minutes=0.001), IMAGES, spec, store)
    assert found.hours == found.hours_interval[1] == pytest.approx(0.001 / 60)


def test_this_machine_has_no_price(
    spec: BackboneSpec, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(machine, "cores", lambda: 3)
    monkeypatch.setattr(machine, "has_cuda", lambda: False)
    found = forecast_cost(TrainingPlan(hourly_price=9.0), IMAGES, spec, store)
    assert found.device == "this machine (3 CPU cores)" and found.money is None

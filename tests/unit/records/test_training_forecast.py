"""Forecasts of training against sums done by hand."""

from pathlib import Path

import pytest

from graftline.records.training_forecast import (
    DEVICES,
    Rate,
    device_of,
    fine_tune_hours,
    forecast,
    read_rate,
    table_rate,
    training_operations,
    write_rate,
)
from graftline.storage import open_store


def test_hours_are_images_times_epochs_over_the_rate() -> None:
    assert fine_tune_hours(36_000, 10, 100) == pytest.approx(1.0)
    one = forecast(36_000, 10, Rate(100, "measured", "T4"))
    assert (one.hours, one.device_hours, one.speedup) == pytest.approx((1.0, 1.0, 1.0))
    assert one.cost(0.5) == pytest.approx(0.5)


def test_backwards_costs_twice_as_much_as_forwards_and_only_where_it_trains() -> None:
    assert training_operations(10, 0) == 10
    assert training_operations(10, 1) == 30
    assert training_operations(10, 0.5) == 20
    assert table_rate("CPU", 1e9, cores=4).images_per_second == pytest.approx(
        4 * table_rate("CPU", 1e9).images_per_second
    )


def test_a_second_device_halves_the_work_and_adds_the_exchange_of_gradients() -> None:
    rate = Rate(64, "table", "T4")  # a batch of 64 takes one second
    free = forecast(6400, 1, rate, devices=2, trained_bytes=0)
    assert free.speedup == pytest.approx(2.0)
    # 1.25 GB over 10 Gbit/s, once there and back halved: one second for each of 100 steps
    slow = forecast(6400, 1, rate, devices=2, trained_bytes=1.25e9, link="node")
    assert slow.hours * 3600 == pytest.approx(100 * (0.5 + 1.0))
    assert slow.speedup < 1
    assert slow.device_hours == pytest.approx(2 * slow.hours)
    assert forecast(6400, 1, rate, devices=2, trained_bytes=1.25e9).speedup > slow.speedup


@pytest.mark.parametrize(
    ("label", "device"),
    [
        ("nvidia-l4", "L4"),
        ("NVIDIA-L40S", "L40S"),
        ("nvidia-tesla-t4", "T4"),
        ("NVIDIA A100-SXM4-80GB", "A100"),
        ("Tesla V100-SXM2-16GB", "V100"),
        ("g4dn", "T4"),
        ("g5.2xlarge", "A10G"),
        ("g6", "L4"),
        ("g6e", "L40S"),
        ("p4d.24xlarge", "A100"),
        ("gpu-spot", None),
        ("true", None),
    ],
)
def test_a_device_is_known_by_its_label_or_its_instance_family(
    label: str, device: str | None
) -> None:
    assert device_of(label) == device
    assert device is None or device in DEVICES


def test_a_measured_rate_comes_back_for_the_work_that_is_asked(tmp_path: Path) -> None:
    store = open_store(str(tmp_path))
    assert read_rate(store, "timm/x", 224, 0.5, "T4") is None
    write_rate(store, "timm/x", 224, 0.5, Rate(120, "measured", "T4"))
    same = read_rate(store, "timm/x", 224, 0.5, "T4")
    assert same == Rate(120, "measured", "T4")
    less = read_rate(store, "timm/x", 224, 0.0, "T4")  # no backward pass: half of the work
    assert less is not None and less.images_per_second == pytest.approx(240)
    assert read_rate(store, "timm/x", 96, 0.5, "T4") is None
    write_rate(store, "timm/x", 224, 0.5, Rate(80, "measured", "CPU"), cores=8)
    more = read_rate(store, "timm/x", 224, 0.5, "CPU", cores=16)
    assert more is not None and more.images_per_second == pytest.approx(160)


def test_a_damaged_rate_is_no_rate(tmp_path: Path) -> None:
    store = open_store(str(tmp_path))
    write_rate(store, "timm/x", 224, 0.5, Rate(120, "measured", "T4"))
    key = next(info.key for info in store.list("training-rates/"))
    store.write(key, b"{}")
    assert read_rate(store, "timm/x", 224, 0.5, "T4") is None

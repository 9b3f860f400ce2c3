"""What the training graph hands to its steps."""

from typing import Any

import pytest

from graftline.steps.fit_head.config import TrainingPlan
from graftline_pipelines.graphs.training import _training_plan
from graftline_pipelines.runfile.settings import RunSettings


def settings(**changes: Any) -> RunSettings:
    return RunSettings(name="a", data={"source": "x"}, **changes)


@pytest.mark.parametrize(
    ("selectors", "devices"),
    [
        ({"nvidia.com/gpu.product": "NVIDIA-A100-SXM4-80GB"}, ["A100"]),
        ({"disk": "ssd"}, ["T4", "A100"]),  # nothing names it
    ],
)
def test_the_plan_of_a_fine_tuning_is_that_of_its_pool(
    selectors: dict[str, str], devices: list[str]
) -> None:
    pool = {
        "accelerator": "nvidia.com/gpu",
        "accelerator_count": 2,
        "cpu": "6",
        "hourly_price": 4.5,
        "node_selectors": selectors,
    }
    given = settings(
        pools={"gpu": pool}, assign={"fine_tune": "gpu"}, fine_tune={"epochs": 7, "max_minutes": 30}
    )
    plan = TrainingPlan(**_training_plan(given, on_cluster=True))
    assert plan == TrainingPlan(
        epochs=7,
        max_minutes=30,
        pool="gpu",
        devices=tuple(devices),
        accelerators=2,
        cores=6,
        hourly_price=4.5,
    )


def test_on_this_machine_pools_do_not_matter() -> None:
    plan = TrainingPlan(**_training_plan(settings(strategy="scratch"), on_cluster=False))
    assert plan.pool is None and plan.hourly_price is None and plan.epochs == 30

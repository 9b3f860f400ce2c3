"""What `graftline check` says of a training before it is asked for."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from graftline.models.forward_cost import forward_cost
from graftline.records.training_forecast import Rate, write_rate
from graftline.storage import open_store
from graftline_pipelines.preflight.forecast import training_forecast
from graftline_pipelines.runfile.settings import RunSettings

NAME = "timm/test_resnet"


def settings(tmp_path: Path, **more: Any) -> RunSettings:
    content = {
        "name": "x",
        "data": {"source": str(tmp_path)},
        "store": str(tmp_path / "store"),
        "tracking": {"uri": f"sqlite:///{tmp_path}/mlflow.db"},
        "backbone": NAME,
        "strategy": "fine_tune",
        **more,
    }
    return RunSettings.model_validate(content)


def entries(count: int) -> list[Any]:
    return [SimpleNamespace(problem=None, archive=None, split=None)] * count


def gpu(**more: Any) -> dict[str, Any]:
    pool = {"accelerator": "nvidia.com/gpu", **more}
    return {"pools": {"gpu": pool}, "assign": {"fine_tune": "gpu"}}


def test_the_measured_rate_gives_hours_and_cost(tmp_path: Path) -> None:
    pool = gpu(node_selectors={"gke-accelerator": "nvidia-l4"}, hourly_price=2.0)
    run = settings(tmp_path, fine_tune={"unfreeze": "all"}, **pool)
    size = forward_cost(NAME).image_size
    rate = Rate(2.0, "measured", "L4")
    write_rate(open_store(run.store), NAME, size, 1.0, rate)
    # 70% of 2,000 images, ten times, at two a second: 7,000 s
    said = training_forecast(run, entries(2000))
    assert "1,400 images x 10 epochs" in said
    assert "gpu (1 x L4): 1.9 h, cost 3.9 (measured)" in said
    assert "one more GPU: 2.0 times as fast" in said
    assert "a second node" in said


def test_without_a_measurement_the_table_says_how_far_it_may_be_off(tmp_path: Path) -> None:
    said = training_forecast(settings(tmp_path, **gpu()), entries(100))
    assert "T4 or A100" in said
    assert "within a factor of two" in said


@pytest.mark.parametrize("strategy", ["probe", "head"])
def test_where_nothing_is_trained_nothing_is_said(tmp_path: Path, strategy: str) -> None:
    assert training_forecast(settings(tmp_path, strategy=strategy), entries(100)) == ""
    assert training_forecast(settings(tmp_path), []) == ""


def test_without_a_pool_the_cpu_is_meant(tmp_path: Path) -> None:
    said = training_forecast(settings(tmp_path), entries(100))
    assert "CPU core" in said
    assert "GPU" not in said
    assert training_forecast(settings(tmp_path, strategy="auto"), entries(100)) == ""
    may_be = training_forecast(settings(tmp_path, strategy="auto", **gpu()), entries(100))
    assert "if the measurement asks for it" in may_be

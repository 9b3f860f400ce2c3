"""MLflow away, silent, failing or breaking off: told within 60 s, never a hang."""

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tests.service.fault_proxy import FaultProxy

from graftline.errors import TrackingError
from graftline.tracking.mlflow_run import open_tracking, start_run
from graftline.tracking.registry import open_registry

BOUND = 60.0


def requests(uri: str, run_id: str, file: Path) -> dict[str, Callable[[], Any]]:
    tracking = open_tracking(uri, run_id)
    return {
        "start": lambda: start_run(uri, "slow", "run"),
        "metrics": lambda: tracking.metrics({"a": 1.0}),
        "file": lambda: tracking.files({"a.txt": file}),
        "champion": lambda: open_registry(uri).champion("slow"),
    }


@pytest.mark.parametrize(
    ("fault", "method"),
    [
        ("reset", "start"),
        ("503", "metrics"),
        ("lost", "champion"),
        pytest.param("stall", "start", marks=pytest.mark.slow),
        pytest.param("stall", "metrics", marks=pytest.mark.slow),
        pytest.param("stall", "file", marks=pytest.mark.slow),
        pytest.param("stall", "champion", marks=pytest.mark.slow),
    ],
)
@pytest.mark.timeout(200)
def test_each_request_ends_within_a_minute(
    mlflow_uri: str, tmp_path: Path, fault: str, method: str, record_property: Any
) -> None:
    (tmp_path / "a.txt").write_text("a")
    run_id = start_run(mlflow_uri, "slow", "run")
    with FaultProxy(mlflow_uri, stall_seconds=200) as proxy:
        request = requests(proxy.url, run_id, tmp_path / "a.txt")[method]
        request()  # well at first
        # The health check passes: what comes after it does not answer, the hardest case.
        proxy.path = "/api/2.0/"
        proxy.faults = [(fault, 1000)]
        started = time.monotonic()
        with pytest.raises(TrackingError) as caught:
            request()
        took = time.monotonic() - started
        assert caught.value.fix and took < BOUND, took
        proxy.faults = []
        request()  # and well again
    record_property("points", 1)

"""MLflow away, silent, failing or breaking off: told within 60 s, never a hang."""

import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
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


def strike(uri: str, file: Path, fault: str, method: str) -> None:
    """Spoil one kind of request: an error with advice within a minute, and well again after it."""
    run_id = start_run(uri, "slow", "run")
    with FaultProxy(uri, stall_seconds=200) as proxy:
        request = requests(proxy.url, run_id, file)[method]
        request()  # well at first
        # The health check passes: what comes after it does not answer, the hardest case.
        proxy.path = "/api/2.0/"
        proxy.faults = [(fault, 1000)]
        started = time.monotonic()
        with pytest.raises(TrackingError) as caught:
            request()
        took = time.monotonic() - started
        assert caught.value.fix and took < BOUND, (method, took)
        proxy.faults = []
        request()  # and well again


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "a.txt"
    path.write_text("a")
    return path


@pytest.mark.parametrize(
    ("fault", "method"), [("reset", "start"), ("503", "metrics"), ("lost", "champion")]
)
@pytest.mark.timeout(200)
def test_each_request_ends_within_a_minute(
    mlflow_uri: str, file: Path, fault: str, method: str, record_property: Any
) -> None:
    strike(mlflow_uri, file, fault, method)
    record_property("points", 1)


@pytest.mark.slow
@pytest.mark.timeout(200)
def test_a_silent_server_keeps_no_request_for_more_than_a_minute(
    mlflow_uri: str, file: Path, record_property: Any
) -> None:
    """All at once: each waits for most of a minute."""
    methods = ("start", "metrics", "file", "champion")
    with ThreadPoolExecutor(len(methods)) as pool:
        for done in [pool.submit(strike, mlflow_uri, file, "stall", each) for each in methods]:
            done.result()
    record_property("points", len(methods))

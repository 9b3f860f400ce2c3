"""System metrics, read back from MLflow by its own client."""

import time
from pathlib import Path

import pytest

from graftline.tracking.client import connect
from graftline.tracking.mlflow_run import start_run
from graftline.tracking.system_metrics import system_metrics, watched


@pytest.fixture
def uri(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path}/mlflow.db"


def test_the_machine_is_in_the_run_while_the_step_works(uri: str) -> None:
    run = start_run(uri, "x", "y")
    client = connect(uri)

    def found() -> set[str]:
        return {name for name in client.get_run(run).data.metrics if name.startswith("system/")}

    with system_metrics(uri, run, seconds=0.2):
        until = time.monotonic() + 30
        while not found() and time.monotonic() < until:
            time.sleep(0.2)
    assert "system/cpu_utilization_percentage" in found()
    assert "system/system_memory_usage_percentage" in found()


def test_epochs_are_a_curve_of_the_run(uri: str) -> None:
    run = start_run(uri, "x", "y")
    with watched(uri, run, "fine_tune") as curves:
        for epoch, accuracy in ((1, 0.5), (2, 0.75)):
            curves({"epoch": epoch, "val_accuracy": accuracy})
    points = connect(uri).get_metric_history(run, "fine_tune.val_accuracy")
    assert [(point.step, point.value) for point in points] == [(1, 0.5), (2, 0.75)]


def test_a_server_that_is_away_and_no_server_stop_nothing() -> None:
    done = []
    for uri, run in (("http://127.0.0.1:9", "r"), ("", ""), ("http://127.0.0.1:9", "")):
        with system_metrics(uri, run):
            done.append(uri)
    assert len(done) == 3

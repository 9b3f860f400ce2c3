"""What a page says of its run: read back from real records and a real MLflow database."""

import json
from pathlib import Path

import pytest

from graftline.reports.html import Fact
from graftline.steps.run_page import RunPage, run_page
from graftline.steps.runtime import step
from graftline.tracking import run_description
from graftline.tracking.mlflow_run import open_tracking, start_run

RUN = "5a1d6f0e-6a2b-4d7b-9d9e-0f6d8f2f3a11"


def test_outside_a_pipeline_nothing_is_said() -> None:
    assert run_page() == RunPage()
    with step("evaluate"):
        found = run_page()
    assert [fact.name for fact in found.facts] == ["Date"]
    assert run_page() == RunPage()  # the step has ended


def test_name_date_links_times_and_settings(tmp_path: Path, mlflow_sqlite: str) -> None:
    run_id = start_run(mlflow_sqlite, "digits", "digits-<b>7</b>")
    open_tracking(mlflow_sqlite, run_id).params({"fit_head.strategy": "probe"})
    tracking = json.dumps({"uri": mlflow_sqlite, "ui": "https://kfp.example.org/pipeline/"})
    with step("ingest", str(tmp_path), RUN):
        pass
    with step("evaluate", str(tmp_path), RUN, tracking, run_id):
        found = run_page()
    run, date, mlflow, kfp = found.facts
    assert run == Fact("Run", "digits-<b>7</b>")
    assert date.text.endswith("UTC")
    assert run_id in mlflow.text and "mlflow ui --backend-store-uri sqlite:///" in mlflow.text
    assert mlflow.link == ""
    assert kfp.link == f"https://kfp.example.org/pipeline/#/runs/details/{RUN}"
    assert [row[0].text for row in found.steps] == ["ingest", "evaluate, until this page"]
    assert all(
        cell.value is not None and cell.value >= 0 for row in found.steps for cell in row[1:]
    )
    assert [(name.text, value) for name, value in found.settings] == [
        ("fit_head.strategy", "probe")
    ]


def test_an_mlflow_that_is_away_and_a_placeholder_stop_no_page(tmp_path: Path) -> None:
    tracking = json.dumps({"uri": "http://127.0.0.1:9", "ui": "https://kfp.example.org"})
    with step("evaluate", str(tmp_path), "{{$.pipeline_job_uuid}}", tracking, "abc"):
        found = run_page()
    assert [fact.name for fact in found.facts] == ["Date"]
    assert found.steps == [] and found.settings == []


@pytest.mark.parametrize(
    "uri", ["https://user:word@mlflow.example.org/a/", "https://mlflow.example.org/a?x=1#y"]
)
def test_a_link_holds_no_credentials(uri: str) -> None:
    link = run_description._page(uri, "3", "abc")
    assert (
        link
        == "https://mlflow.example.org/a/#/experiments/3/runs/abc?workflowType=machine_learning"
    )


def test_a_link_is_an_address_of_a_page() -> None:
    with pytest.raises(ValueError, match="is not the address of a page"):
        Fact("Run", "x", "javascript:alert(1)")

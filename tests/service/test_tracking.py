"""Runs on a real MLflow server: one run that all steps join, and no secret in any message."""

import sqlite3
import uuid
from pathlib import Path

import pytest

from graftline.errors import ConfigurationError, TrackingError
from graftline.records.verdict import GateTest, Verdict, write_verdict
from graftline.steps.promote import step as promote_step
from graftline.steps.runtime import StepResult
from graftline.tracking.client import absolute_uri, connect
from graftline.tracking.mlflow_run import RUN_ID_VARIABLE, log_result, open_tracking, start_run
from graftline.tracking.server_answers import redacted


class Result(StepResult):
    def __init__(self, accuracy: float, file: Path) -> None:
        self._accuracy, self._file = accuracy, file

    def metrics(self) -> dict[str, float]:
        return {"accuracy": self._accuracy}

    def params(self) -> dict[str, str]:
        return {"backbone": f"small {self._accuracy}"}

    def files(self) -> dict[str, Path]:
        return {"pages/report.html": self._file}


def runs_of(uri: str) -> set[str]:
    client = connect(uri)
    experiments = [e.experiment_id for e in client.search_experiments()]
    return {run.info.run_id for run in client.search_runs(experiments, max_results=1000)}


def test_steps_join_one_run(mlflow_uri, tmp_path):
    run_id = start_run(mlflow_uri, f"joined-{uuid.uuid4().hex}", "nightly", {"a": "b"})
    before = runs_of(mlflow_uri)
    (tmp_path / "other-name.html").write_text("<html></html>")
    for step, accuracy in (("fit_head", 0.8), ("evaluate", 0.9)):
        log_result(mlflow_uri, run_id, step, Result(accuracy, tmp_path / "other-name.html"))
    assert runs_of(mlflow_uri) == before
    client = connect(mlflow_uri)
    run = client.get_run(run_id)
    assert run.data.metrics == {"fit_head.accuracy": 0.8, "evaluate.accuracy": 0.9}
    assert run.data.params["evaluate.backbone"] == "small 0.9"
    assert run.data.tags["a"] == "b"
    assert [f.path for f in client.list_artifacts(run_id, "pages")] == ["pages/report.html"]
    open_tracking(mlflow_uri, run_id).finish()
    assert client.get_run(run_id).info.status == "FINISHED"


def test_a_step_that_is_run_again_with_another_value_keeps_both(mlflow_uri, tmp_path):
    """MLflow refuses to change a parameter; the step must not fail for it."""
    run_id = start_run(mlflow_uri, f"again-{uuid.uuid4().hex}", "run")
    for accuracy in (0.8, 0.9):
        log_result(mlflow_uri, run_id, "fit_head", Result(accuracy, tmp_path / "absent"))
    data = connect(mlflow_uri).get_run(run_id).data
    assert data.params["fit_head.backbone"] == "small 0.8"
    assert data.tags["graftline.changed.fit_head.backbone"] == "small 0.9"
    assert data.metrics["fit_head.accuracy"] == 0.9


def test_the_run_that_kubeflow_injects_is_used_and_no_second_one_is_started(
    mlflow_uri, tmp_path, monkeypatch, exported_model
):
    """With MLFLOW_RUN_ID set, a call of set_experiment would silently start another run."""
    client = connect(mlflow_uri)
    owner = client.create_experiment(f"kubeflow-{uuid.uuid4().hex}")
    given = client.create_run(owner).info.run_id
    before = runs_of(mlflow_uri)
    monkeypatch.setenv(RUN_ID_VARIABLE, given)
    monkeypatch.setenv("MLFLOW_EXPERIMENT_NAME", "another")
    experiment = f"ours-{uuid.uuid4().hex}"
    assert start_run(mlflow_uri, experiment, "nightly", {"graftline.source": "s3://b"}) == given
    log_result(mlflow_uri, given, "fit_head", Result(0.8, tmp_path / "absent"))
    folder, snapshot, _ = exported_model
    passed = [GateTest(name="floor", passed=True, reason="High enough.")]
    verdict = Verdict(promote=True, reasons=["Good."], tests=passed, snapshot_id=snapshot.id)
    write_verdict(tmp_path / "verdict.json", verdict)
    name = f"injected-{uuid.uuid4().hex}"
    result = promote_step.run(
        onnx_folder=folder / "onnx",
        verdict_file=tmp_path / "verdict.json",
        report_file=None,
        classifier_folder=folder / "classifier",
        snapshot_folder=folder / "snapshot",
        store=str(tmp_path / "store"),
        tracking_uri=mlflow_uri,
        tracking_run_id=given,
        registered_model=name,
    )
    assert runs_of(mlflow_uri) == before
    assert client.get_experiment_by_name(experiment) is None
    assert client.get_model_version(name, result.version).run_id == given
    run = client.get_run(given)
    assert run.info.experiment_id == owner
    assert run.data.tags["graftline.source"] == "s3://b"
    assert run.data.metrics["fit_head.accuracy"] == 0.8
    open_tracking(mlflow_uri, given).finish("FAILED")  # its owner ends it, not we
    assert client.get_run(given).info.status == "RUNNING"


def test_an_injected_run_that_does_not_exist_is_told(mlflow_uri, monkeypatch):
    monkeypatch.setenv(RUN_ID_VARIABLE, "0" * 32)
    with pytest.raises(TrackingError, match=r"0{32}"):
        start_run(mlflow_uri, "any", "run", {"a": "b"})


def test_a_deleted_experiment_is_told(mlflow_uri):
    name = f"gone-{uuid.uuid4().hex}"
    start_run(mlflow_uri, name, "run")
    client = connect(mlflow_uri)
    client.delete_experiment(client.get_experiment_by_name(name).experiment_id)
    with pytest.raises(TrackingError, match=r"was deleted") as caught:
        start_run(mlflow_uri, name, "run")
    assert "tracking.experiment" in str(caught.value)


def test_no_message_holds_a_credential(monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_TOKEN", "t0ken")
    uri = "https://user:p%40ss@mlflow.example.com"
    text = "cannot reach https://user:p%40ss@mlflow.example.com/api with t0ken, p@ss"
    shown = redacted(text, uri)
    for secret in ("p%40ss", "p@ss", "t0ken", "user:"):
        assert secret not in shown


def test_a_folder_as_uri_is_refused_with_the_remedy(tmp_path):
    for uri in ("mlruns", (tmp_path / "mlruns").as_uri()):
        with pytest.raises(ConfigurationError, match="sqlite:///"):
            connect(uri)


def test_a_relative_database_means_the_same_from_every_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert absolute_uri("sqlite:///a/b.db") == f"sqlite:///{tmp_path}/a/b.db"


def test_sqlite_leaves_no_folder_behind_in_the_working_directory(
    mlflow_sqlite, tmp_path, monkeypatch
):
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    monkeypatch.chdir(elsewhere)
    run_id = start_run(mlflow_sqlite, "quiet", "run")
    page = tmp_path / "report.html"
    page.write_text("<html></html>")
    open_tracking(mlflow_sqlite, run_id).files({"report.html": page})
    assert list(elsewhere.iterdir()) == []
    assert (tmp_path / "mlartifacts").is_dir()
    with sqlite3.connect(mlflow_sqlite.removeprefix("sqlite:///")) as database:
        (count,) = database.execute("select count(*) from runs").fetchone()
    assert count == 1

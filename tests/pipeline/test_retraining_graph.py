"""The retraining graph, whole, under KFP's local runner: what starts a training and what does not,
and that a webhook hears of it, however the webhook behaves."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from tests.support.http_server import Handler, serving

SECRET = "T0pSecretPath"
TRAINING = {"ingest", "extract_features", "fit_head", "evaluate", "export_onnx", "promote"}


@pytest.fixture
def webhook(monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[list[dict[str, Any]], list[int]]]:
    """A real server; what it was told, and the status that it answers."""
    told: list[dict[str, Any]] = []
    status = [200]

    class Webhook(Handler):
        def do_POST(self) -> None:
            told.append(self.read_json())
            self.answer(status[0])

    with serving(Webhook) as address:
        monkeypatch.setenv("GRAFTLINE_WEBHOOK_URL", f"{address}/{SECRET}")
        yield told, status


@pytest.fixture
def retrain(
    run_graftline: Callable[..., Any], make_digits_folder: Callable[..., Path]
) -> Callable[..., tuple[dict[str, Any], str]]:
    """`graftline retrain` as a user types it, on a folder of digits; its JSON, and what it says."""
    source = make_digits_folder(per_class=60, classes=3)
    run_file = {
        "data": {"source": str(source)},
        "backbone": "timm/test_resnet",
        "weights": "random",
        "image_size": 32,
        "strategy": "probe",
        "probe": {"c_grid": [0.01, 0.1]},
        "gate": {"max_ece": 1.0},  # two dozen test images say nothing of calibration
    }

    def call(*options: str, code: int = 0) -> tuple[dict[str, Any], str]:
        result, said = run_graftline(run_file, "--json", *options, code=code, command="retrain")
        assert SECRET not in json.dumps(result) + said
        return result, said

    call.source = source  # type: ignore[attr-defined]
    return call


def add_digits(folder: Path, count: int) -> None:
    """New images: known digits, shifted by a pixel."""
    for path in sorted(folder.rglob("*.png"))[:: 180 // count][:count]:
        pixels = np.roll(np.asarray(Image.open(path)), 1, axis=1)
        Image.fromarray(pixels).save(path.with_name(f"shifted-{path.name}"))


def test_trains_the_first_time_and_not_again_while_nothing_changes(
    retrain: Any, webhook: Any, mlflow_sqlite: str, tmp_path: Path
) -> None:
    told, _ = webhook
    first, said = retrain()
    assert first["trained"] and first["registered"]["alias"] == "champion"
    assert set(first["seconds"]) - {"total"} == {"watch", "notify", *TRAINING}
    assert first["watch"]["reasons"] == ["digits has no champion yet."]
    assert "Trained, because:" in said  # it has ended: `retrain` says so last
    assert told[0]["text"].endswith(": trained")
    assert "The champion of digits is version 1." in told[0]["attachments"][0]["text"]

    second, said = retrain()
    assert not second["trained"]
    assert set(second["seconds"]) - {"total"} == {"watch", "notify"}  # no other task was started
    assert second["watch"]["reasons"] == ["Nothing changed since the champion was trained."]
    assert second["watch"]["changes"]["unchanged"] == 180
    assert "Nothing to train" in said and "watch.html" in said
    assert "Nothing changed" in Path(second["watch"]["page"]).read_text(encoding="utf-8")
    assert told[1]["text"].endswith(": nothing to train")
    _check_mlflow(mlflow_sqlite)
    for path in (*tmp_path.rglob("*.log"), *tmp_path.rglob("*.json*"), *tmp_path.rglob("*.db")):
        assert SECRET.encode() not in path.read_bytes(), path


def _check_mlflow(uri: str) -> None:
    """Each look is a run of its own experiment, with why it did or did not and its page."""
    import mlflow

    client = mlflow.MlflowClient(uri)
    experiment = client.get_experiment_by_name("digits-watch")
    assert experiment is not None
    newest, oldest = client.search_runs(
        [experiment.experiment_id], order_by=["attributes.start_time DESC"]
    )
    assert [run.data.tags["graftline.start"] for run in (newest, oldest)] == ["false", "true"]
    assert [run.info.status for run in (newest, oldest)] == ["FINISHED", "FINISHED"]
    assert "Nothing changed" in str(newest.data.params)
    assert newest.data.metrics["watch.unchanged"] == 180
    assert "watch.html" in str(client.list_artifacts(newest.info.run_id))


def test_a_failed_training_is_told_and_a_webhook_that_is_out_of_order_changes_nothing(
    retrain: Any, webhook: Any, mlflow_sqlite: str
) -> None:
    told, status = webhook
    for folder in sorted(retrain.source.iterdir())[1:]:
        for path in folder.iterdir():
            path.write_bytes(b"not an image")  # only decoding tells that one class is left
    status[0] = 500
    _, said = retrain(code=1)
    assert "Step ingest failed" in said and "class" in said
    assert len(told) == 3  # tried again, then given up
    assert told[0]["text"].endswith(": failed")
    reasons = told[0]["attachments"][0]["text"]
    assert reasons.startswith("• Step ingest failed: ") and "Why: " in reasons
    assert "graftline logs" not in reasons, "a run on this machine has no page on a cluster"
    import mlflow

    client = mlflow.MlflowClient(mlflow_sqlite)
    experiment = client.get_experiment_by_name("digits")
    assert experiment is not None
    runs = client.search_runs([experiment.experiment_id])
    assert [run.info.status for run in runs] == ["FAILED"]


@pytest.mark.slow
def test_new_images_are_trained_on_and_a_model_that_does_not_win_is_not_trained_twice(
    retrain: Any, webhook: Any
) -> None:
    retrain()
    add_digits(retrain.source, 2)
    few, _ = retrain()
    assert not few["trained"] and few["watch"]["changes"]["new"] == 2
    assert any("training starts from 5.0%" in reason for reason in few["watch"]["reasons"])
    add_digits(retrain.source, 12)
    enough, _ = retrain()
    assert enough["trained"]
    assert enough["extracted"] == enough["watch"]["changes"]["new"]
    assert sum(enough["images"].values()) == 180 + enough["watch"]["changes"]["new"]
    assert enough["registered"]["version"] == "2"
    again, _ = retrain()
    assert not again["trained"]
    if not enough["verdict"]["promote"]:
        assert "trained on exactly these images" in again["watch"]["reasons"][0]
    always, _ = retrain("--set", "retrain.when.always=true")
    assert always["trained"]

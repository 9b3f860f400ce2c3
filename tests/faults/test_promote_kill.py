"""SIGKILL before and after every write of a promotion: nothing, or all; a second call finishes."""

import multiprocessing
import os
import signal
import uuid
from pathlib import Path

import pytest

from graftline.records.verdict import GateTest, Verdict, write_verdict
from graftline.steps.promote import step as promote_step
from graftline.storage import open_store
from graftline.tracking.champion_alias import ALIAS
from graftline.tracking.champion_log import ChampionLog
from graftline.tracking.client import connect
from graftline.tracking.mlflow_run import start_run
from graftline.tracking.registry import open_registry

FORK = multiprocessing.get_context("fork")
WRITES = (
    ("mlflow.tracking.client.MlflowClient", "log_artifacts"),
    ("mlflow.tracking.client.MlflowClient", "create_registered_model"),
    ("mlflow.tracking.client.MlflowClient", "create_model_version"),
    ("graftline.tracking.champion_log.ChampionLog", "append"),
    ("mlflow.tracking.client.MlflowClient", "set_registered_model_alias"),
    ("graftline.tracking.champion_log.ChampionLog", "settle"),
    ("mlflow.tracking.client.MlflowClient", "set_model_version_tag"),
)


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


@pytest.fixture
def call(exported_model, mlflow_uri, tmp_path, monkeypatch):
    monkeypatch.setattr("graftline.tracking.champion_alias.PATIENCE_SECONDS", 0.1)
    folder, snapshot, _ = exported_model
    passed = [GateTest(name="floor", passed=True, reason="It is high enough.")]
    verdict = Verdict(promote=True, reasons=["Good."], tests=passed, snapshot_id=snapshot.id)
    write_verdict(tmp_path / "verdict.json", verdict)

    def run(name: str, run_id: str, store: Path):
        return promote_step.run(
            onnx_folder=folder / "onnx",
            verdict_file=tmp_path / "verdict.json",
            report_file=None,
            classifier_folder=folder / "classifier",
            snapshot_folder=folder / "snapshot",
            store=str(store),
            tracking_uri=mlflow_uri,
            tracking_run_id=run_id,
            registered_model=name,
        )

    return run


def test_killed_anywhere_it_is_nothing_or_all_and_a_second_call_finishes(
    call, at_write_edge, mlflow_uri, tmp_path, record_property
):
    import mlflow.onnx  # noqa: F401 -- once, before the children are forked

    killed = 0
    for moment in range(1, 40):
        name = f"kill-{moment}-{uuid.uuid4().hex[:6]}"
        run_id = start_run(mlflow_uri, "kills", name)
        store = tmp_path / f"store-{moment}"

        def child(moment=moment, name=name, run_id=run_id, store=store) -> None:
            at_write_edge(moment, WRITES, die, setattr)
            call(name, run_id, store)

        process = FORK.Process(target=child)
        process.start()
        process.join(timeout=120)
        if process.exitcode == 0:
            break
        assert process.exitcode == -signal.SIGKILL
        killed += 1
        registry = open_registry(mlflow_uri)
        champion = registry.champion(name)
        decided = ChampionLog(open_store(str(store)), name).last() is not None
        assert (champion is not None) == decided
        if champion is not None:  # what is champion is whole
            assert champion.download_onnx(tmp_path / f"down-{moment}").stat().st_size > 0

        result = call(name, run_id, store)
        assert (result.version, result.alias) == ("1", ALIAS)
        aliases = connect(mlflow_uri).get_registered_model(name).aliases
        assert str(aliases[ALIAS]) == "1"
        assert len(registry.history(name)) == 1
        assert len(connect(mlflow_uri).search_model_versions(f"name='{name}'")) == 1
        assert registry.champion(name).tags["graftline.promoted"] == "true"
    assert killed >= 2 * len(WRITES)
    record_property("points", killed)

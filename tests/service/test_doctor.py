"""``graftline doctor``: what works is said, what does not fails closed with advice."""

import json
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from PIL import Image

from graftline.errors import GraftlineError
from graftline.steps.doctor.component import doctor
from graftline.steps.doctor.findings import Examination, Finding, Problem
from graftline.steps.doctor.store_probes import examine_store
from graftline.storage import open_store
from graftline_pipelines.graphs.doctor import doctor_pipeline
from graftline_pipelines.runfile.load import load

Run = Callable[..., Any]


@pytest.fixture
def healthy(tmp_path: Path, s3_bucket: str, mlflow_uri: str, run_file: Callable[..., Path]) -> Path:
    """A run file of which everything works."""
    Image.new("RGB", (8, 8)).save(tmp_path / "one.png")
    open_store(f"{s3_bucket}/images").upload(tmp_path / "one.png", "a/one.png")
    return run_file(
        data={"source": f"{s3_bucket}/images"},
        store=f"{s3_bucket}/store",
        tracking={"uri": mlflow_uri},
    )


def of(findings: list[dict[str, Any]], words: str) -> dict[str, Any]:
    return next(each for each in findings if words in each["tried"])


def test_all_that_a_run_relies_on_is_tried_and_nothing_is_left(
    graftline: Run, healthy: Path, kfp: Any, s3_bucket: str
) -> None:
    said = graftline("doctor", healthy, "--json")
    assert said.code == 0, said.err
    found = said.json["here"]
    assert not [each for each in found if each["state"] == "failed"]
    for words in (
        "remove an object",
        "create the same object",
        "replace the same version",
        "upload and download",
        "compare clocks",
        "read the first file",
        "alias",
        "fetch a file",
        "free disk",
        "memory",
        "/dev/shm",
        "GPU",
        "engines",
        "list runs",
    ):
        assert of(found, words)["state"] in ("ok", "note"), words
    assert "3." in of(found, "reach it")["came"]
    assert [info.key for info in open_store(s3_bucket).list()] == ["images/a/one.png"]


@pytest.mark.parametrize("kind", ["ignores", "races"])
def test_a_store_that_loses_races_is_refused(proxy: Any, s3_bucket: str, kind: str) -> None:
    proxy.careless = kind
    store = f"{s3_bucket}/store"
    if kind == "races":
        open_store(store).check_writable()  # one writer alone sees nothing wrong
    found = Examination()
    examine_store(found, store)
    failed = [each.tried for each in found.failed]
    assert any("create the same object" in tried for tried in failed), failed
    assert any("replace the same version" in tried for tried in failed), failed
    assert all("atomic" in each.fix for each in found.failed if "writers" in each.tried)


def test_a_store_that_may_only_be_read_is_refused(proxy: Any, s3_bucket: str) -> None:
    proxy.only, proxy.faults = "PUT", [("403", 1000)]
    found = Examination()
    examine_store(found, f"{s3_bucket}/store")
    assert [each.tried for each in found.failed] == ["write, read, list and remove an object"]
    assert "s3:PutObject" in found.failed[0].fix


def test_damage_on_the_way_is_found(proxy: Any, s3_bucket: str) -> None:
    proxy.only, proxy.faults = "GET", [("flip", 1000)]
    found = Examination()
    examine_store(found, f"{s3_bucket}/store")
    assert found.failed


def test_what_does_not_answer_fails_closed(
    graftline: Run, healthy: Path, kfp: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    content = yaml.safe_load(healthy.read_text())
    content["tracking"]["uri"] = "http://127.0.0.1:9"
    content["store"] = "s3://no-such-bucket-here/store"
    healthy.write_text(yaml.safe_dump(content))
    monkeypatch.setenv("KF_PIPELINES_ENDPOINT", "http://127.0.0.1:9")
    said = graftline("doctor", healthy, "--json")
    assert said.code == 1
    failed = [each for each in said.json["here"] if each["state"] == "failed"]
    assert {each["area"] for each in failed} == {"store", "mlflow", "kfp"}
    assert all(each["fix"] for each in failed)
    assert "would stop a run" in said.err


def test_any_failure_of_a_probe_is_a_finding() -> None:
    found = Examination()

    def raising(error: Exception) -> Callable[[], str]:
        def work() -> str:
            raise error

        return work

    assert not found.probe("store", "a", raising(ZeroDivisionError("x")))
    assert not found.probe("store", "b", raising(GraftlineError("y", fix="z")))
    assert found.probe("store", "c", raising(Problem("d", "e", note=True)))
    assert [each.state for each in found.findings] == ["failed", "failed", "note"]


def test_what_the_pods_of_each_pool_see(
    graftline: Run,
    healthy: Path,
    kfp: Any,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The log is that of the component itself; one pool's pod never gets a node."""
    monkeypatch.setattr("graftline_pipelines.cluster.doctor.POLL_SECONDS", 0.1)
    settings = load(healthy, ())
    spec, platform = compiled(settings)
    tasks = {
        name: task["inputs"]["parameters"]["pool"]["runtimeValue"]["constant"]
        for name, task in spec["root"]["dag"]["tasks"].items()
    }
    assert set(tasks.values()) >= {"default", "small"} and len(tasks) == len(set(tasks.values()))
    labels = {
        executor["podMetadata"]["labels"]["graftline.dev/pool"]
        for executor in platform["platforms"]["kubernetes"]["deploymentSpec"]["executors"].values()
    }
    assert labels == set(tasks.values())
    first = next(iter(tasks))
    config = spec["root"]["dag"]["tasks"][first]["inputs"]["parameters"]["config"]
    capsys.readouterr()
    failures = doctor(config=config["runtimeValue"]["constant"], pool=tasks[first])
    log = capsys.readouterr().out
    assert failures == 0 and log.count("GRAFTLINE-DOCTOR") > 10

    def play() -> None:
        while not (runs := kfp.table("runs")):
            time.sleep(0.05)
        run_id = runs[0]["run_id"]
        steps = [{"step": "doctor", "phase": "Succeeded"}]
        kfp.control("run", run_id=run_id, state="RUNNING", steps=steps)
        kfp.control("log", run_id=run_id, step="doctor", text=log)
        kfp.control("run", run_id=run_id, state="SUCCEEDED", steps=steps)

    thread = threading.Thread(target=play)
    thread.start()
    said = graftline("doctor", healthy, "--on-cluster", "--json")
    thread.join()
    pods = said.json["pods"]
    seen = {each["pool"] for each in pods if each["state"] == "ok"}
    assert seen == {tasks[first]}
    silent = {each["pool"] for each in pods if each["state"] == "failed"}
    assert silent == set(tasks.values()) - seen and said.code == 1


def compiled(settings: Any) -> tuple[dict[str, Any], dict[str, Any]]:
    import tempfile

    from kfp import compiler

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "doctor.yaml"
        compiler.Compiler().compile(doctor_pipeline(settings), str(path))
        spec, platform = yaml.safe_load_all(path.read_text())
    return spec, platform


def test_findings_survive_json() -> None:
    finding = Finding("store", "a", "ok", "b", "c", 0.1)
    assert Finding(**json.loads(json.dumps(finding.as_dict()))) == finding

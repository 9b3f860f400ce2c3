"""What starts a retraining from outside: the handler of S3 events, and the GitHub workflow."""

import importlib.util
import json
import shlex
import time
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import yaml

EXAMPLES = Path(__file__).parents[2] / "examples" / "events"


@pytest.fixture
def lambda_function(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    spec = importlib.util.spec_from_file_location("s3_lambda", EXAMPLES / "s3_lambda.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    monkeypatch.setenv("GRAFTLINE_PIPELINE", "flowers-retrain")
    monkeypatch.setenv("GRAFTLINE_PREFIX", "flowers/")
    monkeypatch.setenv("GRAFTLINE_SERVICE_ACCOUNT", "trainer")
    return module


def message(*keys: str, name: str = "m1") -> dict[str, Any]:
    """A notification as S3 writes it and SQS hands it on; keys are encoded as in a form."""
    records = [{"eventName": "ObjectCreated:Put", "s3": {"object": {"key": key}}} for key in keys]
    return {"messageId": name, "body": json.dumps({"Records": records})}


def test_an_upload_starts_the_newest_version_one_run_at_a_time(
    kfp: Any, graftline: Callable[..., Any], run_file: Callable[..., Path], lambda_function: Any
) -> None:
    for seed in (1, 2):
        time.sleep(1.1)  # the server's times are in whole seconds
        done = graftline(
            "submit", run_file(seed=seed), "--pipeline", "retrain", "--no-registry", "--json"
        )
        assert done.code == 0, done.err
        kfp.control("run", run_id=done.json["run_id"], state="SUCCEEDED")
    newest = done.json
    event = {"Records": [message("flowers/rose/a+b.jpg"), message("flowers/c.jpg", name="m2")]}

    first = lambda_function.handler(event)
    assert first["batchItemFailures"] == [] and first["said"].startswith("started flowers-retrain-")
    run = kfp.table("runs")[-1]
    reference = run["pipeline_version_reference"]
    assert reference["pipeline_version_id"] == newest["version_id"]
    assert run["description"] == "Triggered by: 2 objects in S3, the first flowers/rose/a b.jpg"
    assert run["service_account"] == "trainer"

    again = lambda_function.handler(event)  # its look may be over: the messages must come again
    assert again["batchItemFailures"] == [{"itemIdentifier": "m1"}, {"itemIdentifier": "m2"}]
    assert len(kfp.table("runs")) == 3
    kfp.control("run", run_id=run["run_id"], state="FAILED")
    assert lambda_function.handler(event)["said"].startswith("started")


def test_other_keys_and_the_test_message_of_s3_ask_nobody(kfp: Any, lambda_function: Any) -> None:
    own_test = {"messageId": "m0", "body": json.dumps({"Event": "s3:TestEvent"})}
    for records in ([own_test], [message("logs/a.txt")], []):
        assert lambda_function.handler({"Records": records})["batchItemFailures"] == []
    assert kfp.requests() == []


def test_its_token_is_sent_and_a_missing_pipeline_is_named(
    kfp: Any, lambda_function: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    kfp.control("settings", token="s3cret")
    event = {"Records": [message("flowers/a.jpg")]}
    with pytest.raises(OSError, match="401"):
        lambda_function.handler(event)
    monkeypatch.setenv("GRAFTLINE_KFP_TOKEN", "s3cret")
    with pytest.raises(LookupError, match="'flowers-retrain' is not on the server"):
        lambda_function.handler(event)


def test_the_workflow_runs_trigger_and_its_secret_reaches_only_that_step(
    kfp: Any,
    graftline: Callable[..., Any],
    run_file: Callable[..., Path],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    workflow = yaml.safe_load((EXAMPLES / "github-retrain.yaml").read_text())
    events = workflow[True]  # YAML 1.1 reads `on` so
    assert set(events) == {"push", "repository_dispatch", "workflow_dispatch"}
    assert workflow["permissions"] == {"contents": "read"}
    assert workflow["concurrency"]["cancel-in-progress"] is False
    (job,) = workflow["jobs"].values()
    holding = [step for step in job["steps"] if "secrets." in json.dumps(step)]
    assert len(holding) == 1 and "secrets." not in json.dumps(job["env"])
    for step in job["steps"]:
        assert "${{" not in step.get("run", ""), "free text in a shell line"
        assert "@" in step.get("uses", "@")

    command = shlex.split(holding[0]["run"])
    assert command[:3] == ["graftline", "trigger", "run.yaml"]
    arguments = ["labels mended" if part == "$REASON" else part for part in command[3:]]
    done = graftline("trigger", run_file(), *arguments)
    assert done.code == 0, done.err
    assert done.json["started"]
    assert kfp.table("runs")[0]["description"] == "Triggered by: labels mended"

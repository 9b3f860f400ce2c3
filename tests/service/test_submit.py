"""Submitting a run file: what is checked, what is sent, what is told; through the commands."""

import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from graftline_pipelines.cluster.runs import monitor
from graftline_pipelines.cluster.server import connect

Run = Callable[..., Any]
UPLOAD = "POST /apis/v2beta1/pipelines/upload_version"
MIDNIGHT = "2026-03-01T12:00:00Z"


@pytest.fixture(autouse=True)
def _no_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        monitor.follow,
        "__kwdefaults__",
        {**(monitor.follow.__kwdefaults__ or {}), "poll_seconds": 0.01},
    )


def submit(graftline: Run, *arguments: object) -> Any:
    return graftline("submit", *arguments, "--no-registry")


def test_uploads_once_and_starts_each_time(
    kfp: Any, graftline: Run, run_file: Callable[..., Path]
) -> None:
    first = submit(graftline, run_file(), "--json")
    assert first.code == 0, first.err
    assert first.json["uploaded"] and first.json["state"] == "PENDING"
    link = f"{kfp.url}/#/runs/details/{first.json['run_id']}"
    assert first.json["link"] == link and link in first.err
    second = submit(graftline, run_file(), "--json")
    assert not second.json["uploaded"] and "is there already" in second.err
    assert second.json["version_id"] == first.json["version_id"]
    assert len(kfp.requests(UPLOAD)) == 1 and len(kfp.table("runs")) == 2
    assert {run["experiment_id"] for run in kfp.table("runs")} == {
        kfp.table("experiments")[0]["experiment_id"]
    }


def test_other_content_is_another_version_of_the_same_pipeline(
    kfp: Any, graftline: Run, run_file: Callable[..., Path]
) -> None:
    first = submit(graftline, run_file(), "--json").json
    second = submit(graftline, run_file(), "--set", "seed=1", "--json").json
    assert first["pipeline_id"] == second["pipeline_id"]
    assert first["version"] != second["version"] and second["uploaded"]
    retrain = submit(graftline, run_file(), "--pipeline", "retrain", "--json").json
    assert retrain["pipeline_id"] != first["pipeline_id"]
    assert {one["name"] for one in kfp.table("pipelines")} == {"flowers", "flowers-retrain"}


def test_the_version_is_named_by_what_it_holds(
    kfp: Any, graftline: Run, run_file: Callable[..., Path]
) -> None:
    """Settings that the pipeline does not carry, such as the schedule, make no new version."""
    first = submit(graftline, run_file(), "--json").json
    second = submit(graftline, run_file(), "--set", "schedule.cron=0 0 4 * * *", "--json").json
    assert first["version_id"] == second["version_id"]


def test_an_upload_that_somebody_else_was_quicker_with(
    kfp: Any, graftline: Run, run_file: Callable[..., Path]
) -> None:
    """The version is looked for, made by another in between, refused, and found."""
    done = submit(graftline, run_file(), "--json").json
    listing = f"/apis/v2beta1/pipelines/{done['pipeline_id']}/versions"
    kfp.control("settings", hidden_once=[f"GET {listing}"])
    again = submit(graftline, run_file(), "--json")
    assert again.code == 0 and again.json["version_id"] == done["version_id"]
    assert not again.json["uploaded"] and len(kfp.requests(UPLOAD)) == 2


def test_an_experiment_that_somebody_else_was_quicker_with(
    kfp: Any, graftline: Run, run_file: Callable[..., Path]
) -> None:
    submit(graftline, run_file())
    kfp.control("settings", hidden_once=["GET /apis/v2beta1/experiments"])
    assert submit(graftline, run_file()).code == 0
    assert len(kfp.table("experiments")) == 1


def test_a_run_whose_answer_is_lost_is_not_started_twice(
    kfp: Any, graftline: Run, run_file: Callable[..., Path]
) -> None:
    kfp.control("settings", fail={"POST /apis/v2beta1/runs": "drop"})
    done = submit(graftline, run_file(), "--json")
    assert done.code == 0, done.err
    (run,) = kfp.table("runs")
    assert done.json["run_id"] == run["run_id"]
    kfp.control("settings", fail={"POST /apis/v2beta1/runs": 503})
    refused = submit(graftline, run_file())
    assert refused.code == 1 and "no server behind it" in refused.err


def test_what_is_sent_carries_the_service_account_and_no_parameters(
    kfp: Any, graftline: Run, run_file: Callable[..., Path]
) -> None:
    submit(graftline, run_file(cluster={"service_account": "graftline-pipeline"}))
    run = kfp.table("runs")[0]
    assert run["service_account"] == "graftline-pipeline"
    assert run["runtime_config"] == {"parameters": {}} or not run["runtime_config"]


def test_parameters_of_the_pipeline_make_no_new_version(
    kfp: Any, graftline: Run, run_file: Callable[..., Path]
) -> None:
    plain = submit(graftline, run_file(), "--json").json
    other = submit(graftline, run_file(), "--param", "source=s3://bucket/other", "--json").json
    assert other["version_id"] == plain["version_id"]
    given = [run["runtime_config"].get("parameters") for run in kfp.table("runs")]
    assert {"source": "s3://bucket/other"} in given
    for option, said in (
        ("colour=red", "--param colour: the pipeline has no such parameter; it has source"),
        ("source=/data/flowers", "'/data/flowers' is on this machine"),
        ("source=3", "--param source: 3 is not a string"),
        ("source", "'source' is not name=value"),
    ):
        refused = submit(graftline, run_file(), "--param", option)
        assert refused.code == 2 and said in " ".join(refused.err.split())
    assert len(kfp.table("runs")) == 2


# --- what is refused before anything is sent ----------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"images": {"registry": "r.example.com", "tag": "latest"}}, "the tag 'latest' moves"),
        ({"images": {"registry": "r.example.com", "tag": "main"}}, "the tag 'main' moves"),
        ({"images": {"registry": ""}}, "images.registry is missing"),
        ({"images": {"registry": "r", "require_digest": True}}, "named by a tag, and"),
        ({"images": {"registry": "r", "tag": "sha256:abc"}}, "is not a sha256 digest"),
        ({"store": ".graftline/store"}, "store: '.graftline/store' is on this machine"),
        ({"data": {"source": "/data/flowers"}}, "data.source: '/data/flowers' is on this machine"),
        ({"tracking": {"uri": "sqlite:///x.db"}}, "tracking.uri: 'sqlite:///x.db' is on this"),
    ],
)
def test_refused_before_anything_is_sent(
    kfp: Any, graftline: Run, run_file: Callable[..., Path], changes: Any, said: str
) -> None:
    done = submit(graftline, run_file(**changes))
    assert done.code == 2 and said in done.err
    assert not kfp.requests("POST")


def test_all_problems_are_told_at_once(
    kfp: Any, graftline: Run, run_file: Callable[..., Path]
) -> None:
    done = submit(graftline, run_file(store="here", images={"registry": "r", "tag": "dev"}))
    assert done.code == 2 and "2 problems stop this before anything is sent" in done.err
    assert "'here' is on this machine" in done.err and "the tag 'dev' moves" in done.err


def test_a_digest_is_taken(kfp: Any, graftline: Run, run_file: Callable[..., Path]) -> None:
    images = {"registry": "r.example.com", "tag": f"sha256:{'0' * 64}", "require_digest": True}
    assert submit(graftline, run_file(images=images)).code == 0


def test_a_mistake_in_the_run_file_asks_no_server(
    kfp: Any, graftline: Run, run_file: Callable[..., Path]
) -> None:
    done = submit(graftline, run_file(assign={"fine_tune": "gpus"}))
    assert done.code == 2 and "there is no pool 'gpus'" in done.err
    assert kfp.requests() == []


# --- following ----------------------------------------------------------------------------------


def step(name: str, phase: str = "Succeeded", **rest: Any) -> dict[str, Any]:
    return {"step": name, "phase": phase, "started": MIDNIGHT, "finished": None, **rest}


def test_follows_each_step_to_the_end(
    kfp: Any, graftline: Run, run_file: Callable[..., Path]
) -> None:
    done = {"finished": "2026-03-01T12:00:41Z"}
    skipped = step("fine_tune", "Skipped", started="2026-03-01T12:00:42Z")
    kfp.control(
        "script",
        looks=[
            {"state": "PENDING"},
            {"state": "RUNNING", "steps": [step("ingest", "Running")]},
            {"state": "RUNNING", "steps": [step("ingest", **done), skipped]},
            {"state": "RUNNING", "steps": [step("ingest", **done), step("fit_head", "Running")]},
            {"state": "SUCCEEDED", "steps": [step("ingest", **done), step("fit_head", **done)]},
        ],
    )
    followed = submit(graftline, run_file(), "--follow", "--json")
    assert followed.code == 0 and followed.json["state"] == "SUCCEEDED"
    lines = [" ".join(line.split()) for line in followed.err.splitlines()]
    assert lines[-5:] == [
        "ingest started",
        "ingest done in 41 s",
        "fine_tune not needed",
        "fit_head started",
        "fit_head done in 41 s",
    ]


def test_tells_what_the_nodes_cost(kfp: Any, graftline: Run, run_file: Callable[..., Path]) -> None:
    pools = {"default": {"hourly_price": 0.5}, "small": {"hourly_price": 0.1}}
    hours = {"finished": "2026-03-01T14:00:00Z"}
    steps = [step("ingest", **hours), step("promote", **hours), step("fine_tune", "Skipped")]
    kfp.control("script", looks=[{"state": "SUCCEEDED", "steps": steps}])
    followed = submit(graftline, run_file(pools=pools), "--follow")
    assert "The nodes cost about 1.20." in followed.out  # 2 h at 0.5 and 2 h at 0.1
    kfp.control("script", looks=[{"state": "SUCCEEDED", "steps": steps}])
    del pools["small"]
    followed = submit(graftline, run_file(pools=pools), "--follow")
    assert "about 1.00, those of the pool small not counted." in followed.out
    kfp.control("script", looks=[{"state": "SUCCEEDED", "steps": steps}])
    assert "cost" not in submit(graftline, run_file(), "--follow").out


def fail(kfp: Any, graftline: Run, path: Path, log: str | None, **failed: Any) -> Any:
    """Submit, let fine_tune fail with a log, and follow."""
    started = submit(graftline, path, "--json").json
    late = {"started": "2026-03-01T12:01:00Z", "finished": "2026-03-01T12:02:00Z"}
    steps = [step("ingest"), step("fine_tune", "Failed", **{**late, **failed})]
    kfp.control("run", run_id=started["run_id"], state="FAILED", steps=steps)
    if log is not None:
        kfp.control("log", run_id=started["run_id"], step="fine_tune", text=log)
    return graftline("follow", started["run_id"]), started["run_id"]


def test_a_failing_step_says_why_in_its_own_words(
    kfp: Any, graftline: Run, run_file: Callable[..., Path]
) -> None:
    log = (
        "fine_tune: epoch 1\nERROR in step fine_tune: The loss is not a number.\n"
        "Why: The learning rate is too high.\nWhat to do: Lower `fine_tune.learning_rate`.\n"
        "Traceback (most recent call last):\n"
    )
    done, run_id = fail(kfp, graftline, run_file(), log, tries=2)
    assert done.code == 1
    assert "Step fine_tune failed: The loss is not a number.\nWhy: The learning rate is" in done.err
    assert "Traceback" not in done.err and f"graftline logs {run_id} fine_tune" in done.err
    assert f"{kfp.url}/#/runs/details/{run_id}" in done.err


@pytest.mark.parametrize(
    ("message", "said"),
    [
        ("OOMKilled (exit code 137)", "ran out of memory"),
        ("Pod was active on the node longer than the specified deadline", "longer than its pool"),
        ("pod deleted", "The node vanished"),
        ("The node was low on resource: ephemeral-storage. Evicted", "The node vanished"),
        ("ImagePullBackOff: Back-off pulling image", "The image could not be pulled"),
        ('secret "graftline-s3" not found', "secret or config map that the step needs is missing"),
    ],
)
def test_a_killed_step_is_explained_by_what_the_controller_saw(
    kfp: Any, graftline: Run, run_file: Callable[..., Path], message: str, said: str
) -> None:
    done, _ = fail(kfp, graftline, run_file(), None, message=message)
    assert done.code == 1 and said in done.err and message in done.err


def test_a_failure_without_words_shows_the_end_of_the_log(
    kfp: Any, graftline: Run, run_file: Callable[..., Path]
) -> None:
    log = "".join(f"line {number}\n" for number in range(200))
    done, _ = fail(kfp, graftline, run_file(), log, tries=0, labels=3)
    assert "line 199" in done.err and "line 160" in done.err and "line 159" not in done.err


def test_a_driver_that_fails_is_not_a_step_that_does(
    kfp: Any, graftline: Run, run_file: Callable[..., Path]
) -> None:
    started = submit(graftline, run_file(), "--json").json
    steps = [step("ingest", "Omitted", driver="Error", message="Error (exit code 1)")]
    kfp.control("run", run_id=started["run_id"], state="FAILED", steps=steps)
    log = 'failed to get ConfigMap: configmaps "kfp-launcher" is forbidden\n'
    kfp.control("log", run_id=started["run_id"], step="ingest", driver=True, text=log)
    done = graftline("follow", started["run_id"])
    assert done.code == 1 and "could not prepare the step ingest" in done.err
    assert '"kfp-launcher" is forbidden' in done.err


def test_a_stopped_run_is_no_success(
    kfp: Any, graftline: Run, run_file: Callable[..., Path]
) -> None:
    kfp.control("script", looks=[{"state": "CANCELED"}])
    done = submit(graftline, run_file(), "--follow")
    assert done.code == 1 and "was stopped" in done.err


def test_a_server_that_goes_away_for_a_while_is_waited_for(
    kfp: Any, graftline: Run, run_file: Callable[..., Path]
) -> None:
    started = submit(graftline, run_file(), "--json").json
    path = f"GET /apis/v2beta1/runs/{started['run_id']}"
    kfp.control("script", looks=[{"state": "RUNNING"}, {"state": "SUCCEEDED"}])
    kfp.control("settings", fail_after={path: [1, 503]})
    found = graftline("follow", started["run_id"])
    assert found.code == 0 and found.out.count("does not answer; waiting for it") == 1


def test_a_step_whose_pod_waits_is_explained_once(
    kfp: Any, graftline: Run, run_file: Callable[..., Path]
) -> None:
    started = submit(graftline, run_file(), "--json").json
    message = "Unschedulable: 0/3 nodes are available: 3 Insufficient nvidia.com/gpu."
    steps = [step("fine_tune", "Running", pod="Pending", message=message)]
    kfp.control("run", run_id=started["run_id"], state="RUNNING", steps=steps)
    stream = io.StringIO()
    server = connect(kfp.url)
    console = Console(file=stream, width=300)
    waiting = monitor.Waiting(server, console, waiting_seconds=0, look_seconds=0)
    for _ in range(3):
        waiting.check(server.run(started["run_id"]))
    said = stream.getvalue()
    assert said.count("fine_tune waits for its pod") == 1
    assert "No node fits the step's pool." in said and "3 Insufficient nvidia.com/gpu" in said


# --- runs, logs, stop ---------------------------------------------------------------------------


def test_runs_are_listed_newest_first(
    kfp: Any, graftline: Run, run_file: Callable[..., Path]
) -> None:
    assert "No runs." in graftline("runs").out
    first = submit(graftline, run_file(), "--json").json
    kfp.control("run", run_id=first["run_id"], state="SUCCEEDED")
    submit(graftline, run_file(name="cars"))
    everything = graftline("runs", "--json")
    assert {one["name"].partition("-")[0] for one in everything.json} == {"flowers", "cars"}
    mine = graftline("runs", "--experiment", "flowers")
    assert first["run_name"] in mine.out and "SUCCEEDED" in mine.out and "cars" not in mine.out
    assert "No runs." in graftline("runs", "--experiment", "nothing").out


def test_logs_of_every_try_of_a_step(
    kfp: Any, graftline: Run, run_file: Callable[..., Path]
) -> None:
    _, run_id = fail(kfp, graftline, run_file(), "the second try\n", tries=2)
    said = graftline("logs", run_id[:8])
    assert said.code == 0 and "the second try" in said.out
    assert "this pod is gone" in said.out, "the first try's log was not kept"
    assert said.out.count("==> ") == 2
    assert graftline("logs", run_id, "fine-tune").out == said.out


def test_logs_show_no_secret_of_this_shell_nor_a_login(
    kfp: Any, graftline: Run, run_file: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A pod prints what it likes: Kubeflow's launcher, another version of Graftline, a library."""
    monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", "planted+s3cret/value")
    log = "of https://me:hunter2-long@h/\nAuthorization: Bearer planted-token\n"
    log += "and planted%2Bs3cret/value\n"
    done, run_id = fail(kfp, graftline, run_file(), log, tries=0)
    said = graftline("logs", run_id, "fine_tune"), graftline("logs", run_id, "fine_tune", "--raw")
    for text in (done.out + done.err, *(each.out + each.err for each in said)):
        assert "planted" not in text and "hunter2" not in text and "***" in text


def test_logs_that_cannot_be_had(kfp: Any, graftline: Run, run_file: Callable[..., Path]) -> None:
    started = submit(graftline, run_file(), "--json").json
    said = graftline("logs", started["run_name"])
    assert said.code == 1 and "has not started a step yet" in said.err
    kfp.control("run", run_id=started["run_id"], steps=[step("ingest"), step("watch", "Skipped")])
    said = graftline("logs", started["run_id"], "promote")
    assert said.code == 1 and "has no step 'promote'" in said.err and "ingest" in said.err
    said = graftline("logs", started["run_id"], "ingest")
    assert said.code == 1 and "The log of ingest is gone" in said.err
    said = graftline("logs", started["run_id"], "watch")
    assert said.code == 1 and "has no pod: it has not run" in said.err
    said = graftline("logs", "nonsense")
    assert said.code == 1 and "has no run 'nonsense'" in said.err


def test_stop(kfp: Any, graftline: Run, run_file: Callable[..., Path]) -> None:
    started = submit(graftline, run_file(), "--json").json
    assert "is being stopped" in graftline("stop", started["run_id"][:8]).out
    assert kfp.table("runs")[0]["state"] == "CANCELING"
    kfp.control("run", run_id=started["run_id"], state="CANCELED")
    said = graftline("stop", started["run_name"])
    assert said.code == 0 and "has already ended: stopped" in said.out


def test_trigger_starts_one_at_a_time(
    kfp: Any, graftline: Run, run_file: Callable[..., Path]
) -> None:
    first = graftline("trigger", run_file(), "--json")
    assert first.code == 0, first.err
    assert first.json["started"]
    second = graftline("trigger", run_file(), "--json")
    assert second.json == {"started": False, "run_id": first.json["run_id"]}
    kfp.control("run", run_id=first.json["run_id"], state="SUCCEEDED")
    assert graftline("trigger", run_file(), "--json").json["started"]


def test_json_is_the_only_thing_on_standard_output(
    kfp: Any, graftline: Run, run_file: Callable[..., Path]
) -> None:
    submitted = json.loads(graftline("submit", run_file(), "--no-registry", "--json").out)
    listed = json.loads(graftline("runs", "--json").out)
    assert [run["run_id"] for run in listed] == [submitted["run_id"]]
    assert json.loads(graftline("schedule", "list", "--json").out) == []


# --- the cluster's nodes ------------------------------------------------------------------------


@pytest.fixture
def nodes(monkeypatch: pytest.MonkeyPatch) -> None:
    """What --kube-context sees: one node without a GPU (reading nodes has tests of its own)."""
    from graftline_pipelines.cluster import nodes as module

    small = module.Node("cpu-1", {}, {"cpu": "4", "memory": "16Gi"}, ())
    monkeypatch.setattr(module, "read_nodes", lambda context: [small])


GPU_POOL = {
    "pools": {"gpu": {"accelerator": "nvidia.com/gpu"}},
    "assign": {"fine_tune": "gpu"},
}


@pytest.mark.usefixtures("nodes")
def test_a_pool_that_asks_for_what_the_cluster_lacks(
    kfp: Any, graftline: Run, run_file: Callable[..., Path]
) -> None:
    path = run_file(strategy="fine_tune", **GPU_POOL)
    said = submit(graftline, path, "--kube-context", "mine")
    assert said.code == 2 and "pools.gpu: no node fits (1 in the cluster)" in said.err
    assert "1 nvidia.com/gpu, it offers 0" in said.err and not kfp.requests("POST")
    unseen = submit(graftline, path)
    assert unseen.code == 0 and "--kube-context NAME checks them" in unseen.out


@pytest.mark.usefixtures("nodes")
def test_a_pool_that_the_graph_does_not_use_is_not_missed(
    kfp: Any, graftline: Run, run_file: Callable[..., Path]
) -> None:
    said = submit(graftline, run_file(**GPU_POOL), "--kube-context", "mine")  # strategy: probe
    assert said.code == 0, said.err


def test_a_pod_that_may_not_see_nodes_submits_all_the_same(
    kfp: Any, graftline: Run, run_file: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """As the pod of a trigger, which has no token for Kubernetes."""
    monkeypatch.setenv("KUBERNETES_SERVICE_HOST", "10.0.0.1")
    monkeypatch.setenv("KUBERNETES_SERVICE_PORT", "443")
    said = submit(graftline, run_file())
    assert said.code == 0, said.err
    assert "the pools were not compared with the cluster's nodes" in said.out
    assert graftline("trigger", run_file()).code == 0

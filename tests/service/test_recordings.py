"""The contract with a real Kubeflow Pipelines: its recorded answers through the commands.

``tests/data/kfp-recorded`` holds what KFP 2.17.0 answered; its README says what happened in each
run. The expectations here are of what happened there, not of what our code makes of it.
"""

import importlib.util
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from kfp.dsl import PipelineTaskFinalStatus

from graftline.records.retrain_notice import write_notice
from graftline.records.run_records import shown_name, write_record
from graftline.tracking import dead_runs
from graftline.tracking.client import connect
from graftline.tracking.dead_runs import close_runs
from graftline.tracking.mlflow_run import start_run
from graftline_pipelines.cluster.runs import monitor

DATA = Path(__file__).parents[1] / "data" / "kfp-recorded"
TRAINING = ["ingest", "extract_features", "fit_head", "evaluate", "export_onnx", "promote"]
RUNS = sorted(path.stem for path in DATA.glob("*.json") if path.stem != "notify-status")
Run = Callable[..., Any]


def recording(name: str) -> dict[str, Any]:
    return json.loads((DATA / f"{name}.json").read_text())


def pod_at(recorded: dict[str, Any], path: str) -> str:
    """The name of the pod whose node's name ends with a path, as Kubernetes has it."""
    workflow = recorded["workflow"]["metadata"]["name"]
    nodes = recorded["workflow"]["status"]["nodes"].values()
    (node,) = [n for n in nodes if n["type"] == "Pod" and n["name"].endswith(f".{path}")]
    return f"{workflow}-{node['templateName']}-{node['id'].rpartition('-')[2]}"


# Which pod each recorded log is of.
LOGS = {
    "step-failed": [("extract-features(0).executor(0)", "step-failed")],
    "retrain-out-of-memory": [("fit-head(0).executor(0)", "step-out-of-memory")],
    "pod-deleted-then-terminated": [("fine-tune(1).executor(0)", "step-terminated")],
    "retrain-nothing-changed": [("notify(0).executor(0)", "notify-nothing-changed")],
}


@pytest.fixture
def replay(kfp: Any, monkeypatch: pytest.MonkeyPatch) -> Callable[..., str]:
    """Put a recorded run into the test server. Returns its id."""
    monkeypatch.setitem(monitor.follow.__kwdefaults__, "poll_seconds", 0.01)

    def put(name: str, **changes: Any) -> str:
        recorded = recording(name)
        logs = {
            pod_at(recorded, path): (DATA / f"{log}.log").read_text()
            for path, log in LOGS.get(name, [])
        }
        run = {**recorded["v2beta1_run"], **changes}
        # The recording of this run was made a moment before its end.
        if name == "pod-deleted-with-our-rule" and not changes:
            run["state"] = "FAILED"
        kfp.control("replay", run=run, workflow=recorded["workflow"], logs=logs)
        return str(run["run_id"])

    return put


SUCCEEDED = [
    "probe-run-succeeded",
    "fan-out-auto-succeeded",
    "retrain-nothing-changed",
    "retrain-trained",
    "scheduled-run",
]


@pytest.mark.parametrize("name", SUCCEEDED)
def test_follow_a_run_that_went_well(replay: Run, graftline: Run, name: str) -> None:
    done = graftline("follow", replay(name))
    assert done.code == 0, done.err
    assert "has ended: SUCCEEDED" in done.out
    for word in ("failed", "waits", "tried again"):
        assert word not in done.out


FAILURES = {
    "driver-killed": (
        ["could not prepare the step fit_head", "ran out of memory", "OOMKilled"],
        ["ingest:", "Step ingest", "extract_features failed"],
    ),
    "step-failed": (
        [
            "Step extract_features failed",
            'secrets "graftline-s3" is forbidden',
            "failed to execute component",
        ],
        ["out of memory", "preempt"],
    ),
    "pod-deleted-then-terminated": (
        [
            "Step fine_tune failed",
            "preempted",
            "exit code 143",
            "Attempt 1 ended with: pod deleted",
        ],
        ["out of memory"],
    ),
    "pod-deleted-with-our-rule": (
        [
            "Step fine_tune failed",
            "The node vanished",
            "pod deleted",
            "Max duration limit exceeded",
        ],
        ["out of memory"],
    ),
    "retrain-failed": (["Step ingest failed", "exit code 1"], ["out of memory", "watch failed"]),
    "retrain-out-of-memory": (
        ["Step fit_head failed", "ran out of memory", "exit status 137"],
        ["preempt", "vanished"],
    ),
    "stopped": (["digits-20261125-192804-6780 was stopped"], ["failed: ", "longer than its pool"]),
}


@pytest.mark.parametrize("name", FAILURES)
def test_follow_blames_what_failed(replay: Run, graftline: Run, name: str) -> None:
    run_id = replay(name)
    done = graftline("follow", run_id)
    assert done.code == 1
    said, unsaid = FAILURES[name]
    text = " ".join(done.err.split())
    assert [part for part in said if part not in text] == []
    assert [part for part in unsaid if part in text] == []
    if name != "stopped":
        assert f"/#/runs/details/{run_id}" in text
    # What Argo omitted has not begun, and does not wait.
    assert "waits" not in done.out and "evaluate" not in done.out


def test_follow_tells_of_a_lost_pod_and_the_next_attempt(replay: Run, graftline: Run) -> None:
    done = graftline("follow", replay("pod-deleted-then-terminated"))
    assert "fine_tune is tried again, attempt 2." in done.out
    assert "Attempt 1: The node vanished, as spot nodes do (pod deleted)." in done.out
    stopped = graftline("follow", replay("stopped")).out
    assert "driver of root is tried again, attempt 2" in stopped
    assert "Argo could not save the pod's log" in stopped


def test_attempts_are_counted_against_those_that_the_pipeline_allows(
    kfp: Any, graftline: Run, run_file: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(monitor.follow.__kwdefaults__, "poll_seconds", 0.01)
    path = run_file(strategy="fine_tune", pools={"default": {"retries": 3}})
    run_id = graftline("submit", path, "--no-registry", "--json").json["run_id"]
    tries = {"tries": 2, "phases": ["Error", "Succeeded"], "messages": ["pod deleted", ""]}
    steps = [{"step": "fine_tune", "phase": "Succeeded", **tries}]
    kfp.control("run", run_id=run_id, state="SUCCEEDED", steps=steps)
    assert "fine_tune is tried again, attempt 2 of 4." in graftline("follow", run_id).out


def test_logs_are_the_steps_own_lines(replay: Run, graftline: Run) -> None:
    own = graftline("logs", replay("pod-deleted-then-terminated"), "fine_tune").out
    assert "training: 27 of 1,600 steps" in own
    assert "Going on from a checkpoint: epoch 7, step 0 of 4." in own
    for foreign in ("argo=true", '"uri"', "outputFile", "KFP Executor", "Error: exit status"):
        assert foreign not in own
    nothing = graftline("logs", replay("retrain-nothing-changed"), "notify").out
    assert "KFP gives no reason; see the run's page." in nothing
    for foreign in ("main.go", "launcher_v2.go", "executor-logs", "parameterValues", "Looking for"):
        assert foreign not in nothing
    killed = graftline("logs", replay("retrain-out-of-memory")).out  # the step that failed
    assert killed.splitlines() == ["Killed"]


@pytest.mark.parametrize("name", sorted(LOGS))
def test_raw_logs_are_the_servers_word_for_word(replay: Run, graftline: Run, name: str) -> None:
    path, log = LOGS[name][0]
    step = path.partition("(")[0]
    said = graftline("logs", replay(name), step, "--raw").out
    assert (DATA / f"{log}.log").read_text().rstrip() in said


def test_a_step_that_printed_nothing_shows_the_launchers_error(replay: Run, graftline: Run) -> None:
    said = graftline("logs", replay("step-failed"), "extract_features").out
    assert 'secrets "graftline-s3" is forbidden' in said and "--raw" in said
    assert len(said.splitlines()) == 1


def test_logs_belong_to_their_step(kfp: Any, replay: Run, graftline: Run) -> None:
    """The driver of fit_head hangs under extract_features' pod in the tree, and is not its."""
    run_id = replay("driver-killed")
    recorded = recording("driver-killed")
    for path, text in (
        ("extract-features(0).executor(0)", "the features\n"),
        ("fit-head-driver(0)", "the driver of fit_head\n"),
    ):
        kfp.control("log", run_id=run_id, pod=pod_at(recorded, path), text=text)
    assert graftline("logs", run_id, "extract_features").out == "the features\n"
    for said in (graftline("logs", run_id, "fit_head").out, graftline("logs", run_id).out):
        assert "the driver of fit_head" in said and "OOMKilled" in said
    unrun = graftline("logs", run_id, "promote")
    assert unrun.code == 1 and "it has not run" in unrun.err


def test_what_is_archived_outlives_the_pods(kfp: Any, replay: Run, graftline: Run) -> None:
    run_id = replay("driver-killed")
    recorded = recording("driver-killed")
    for path, archived in (
        ("ingest(0).executor(0)", True),
        ("extract-features(0).executor(0)", False),
    ):
        pod = pod_at(recorded, path)
        kfp.control("log", run_id=run_id, pod=pod, text="text\n", archived=archived)
    kfp.control("expire", run_id=run_id)
    assert graftline("logs", run_id, "ingest").out == "text\n"
    gone = graftline("logs", run_id, "extract_features")
    assert gone.code == 1 and "The log of extract_features is gone" in gone.err
    assert "could not prepare the step fit_head" in graftline("follow", run_id).err


def test_a_fan_outs_shares_are_found(kfp: Any, replay: Run, graftline: Run) -> None:
    run_id = replay("fan-out-auto-succeeded")
    recorded = recording("fan-out-auto-succeeded")
    nodes = recorded["workflow"]["status"]["nodes"].values()
    shares = [n for n in nodes if "extract-share(0).executor(0)" in n["name"]]
    assert len(shares) == 2
    for node in shares:
        pod = pod_at(recorded, node["name"].partition("for-loop-1(0).")[2])
        kfp.control("log", run_id=run_id, pod=pod, text=f"share {pod}\n")
    both = graftline("logs", run_id, "extract_share").out
    assert both.count("==> ") == 2 and both.count("\nshare ") == 2
    assert both in graftline("logs", run_id, "extract_features").out or "share " in both


def test_runs_lists_them_whole(
    kfp: Any, replay: Run, graftline: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    ids = {name: replay(name) for name in RUNS}
    listed = graftline("runs", "--limit", 50)
    lines = {name: next(li for li in listed.out.splitlines() if ids[name] in li) for name in RUNS}
    for name, line in lines.items():
        assert recording(name)["v2beta1_run"]["display_name"] in line
    assert "stopped" in lines["stopped"] and "FAILED" not in lines["stopped"]
    assert "FAILED" in lines["step-failed"] and "SUCCEEDED" in lines["scheduled-run"]
    as_json = {one["run_id"]: one for one in graftline("runs", "--json", "--limit", 50).json}
    assert as_json[ids["stopped"]]["stopped"] and not as_json[ids["step-failed"]]["stopped"]


def test_a_narrow_terminal_breaks_no_name_and_no_id(
    replay: Run, graftline: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    run_id = replay("retrain-nothing-changed")
    monkeypatch.setattr("rich.console.Console.width", property(lambda _: 24))
    (line,) = [li for li in graftline("runs").out.splitlines() if run_id in li]
    assert line.startswith("digits-retrain-20261125-193636-9a56  SUCCEEDED")


def test_a_run_needs_no_namespace_by_its_id(kfp: Any, replay: Run, graftline: Run) -> None:
    kfp.control("settings", multi_user=True)
    run_id = replay("probe-run-succeeded")
    assert graftline("follow", run_id).code == 0
    assert "has already ended: SUCCEEDED" in graftline("stop", run_id).out
    assert "is gone" in graftline("logs", run_id, "ingest").err
    by_name = graftline("follow", "digits-20261125-192942-5d15")
    assert by_name.code == 1 and "--namespace" in by_name.err
    named = graftline("follow", "digits-20261125-192942-5d15", "--namespace", "graftline")
    assert named.code == 0
    assert graftline("runs").code != 0, "a list is of one namespace"


def test_logs_go_on_while_a_step_runs(
    kfp: Any, replay: Run, graftline: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The log grows by whole lines; then a second pod takes over, and the step ends."""
    from graftline_pipelines.cluster.runs import run_logs

    recorded = recording("pod-deleted-then-terminated")
    run_id = replay("pod-deleted-then-terminated", state="RUNNING", run_details=None)
    nodes = recorded["workflow"]["status"]["nodes"]
    text = (DATA / "step-terminated.log").read_text()
    pod = pod_at(recorded, "fine-tune(1).executor(0)")
    looks = [text[: text.index("training: 26")], text[: text.index("training: 27") + 5], text]
    for node in nodes.values():
        if "fine-tune(1)" in node["name"]:
            node.update(phase="Running", finishedAt=None)

    def move(_: float) -> None:
        if looks:
            kfp.control("log", run_id=run_id, pod=pod, text=looks.pop(0))
        else:
            kfp.control("run", run_id=run_id, state="FAILED")

    kfp.control(
        "replay",
        run=dict(recorded["v2beta1_run"], state="RUNNING", run_details=None),
        workflow=recorded["workflow"],
    )
    monkeypatch.setattr(run_logs.time, "sleep", move)
    said = graftline("logs", run_id, "fine_tune", "--follow")
    kfp.control("run", run_id=run_id, state="RUNNING")
    unknown = graftline("logs", run_id, "fine_tunes", "--follow")
    assert unknown.code == 1 and "no step 'fine_tunes'" in unknown.err
    lines = said.out.splitlines()
    assert [line.partition("training: ")[2] for line in lines if "training: " in line] == [
        "25 of 1,600 steps, 0/s",
        "26 of 1,600 steps, 0/s",
        "27 of 1,600 steps, 0/s",
    ]
    assert len(lines) == len(set(lines)) and "argo=true" not in said.out


# --- the notice ----------------------------------------------------------------------------------

STATUSES = {
    one["recording"]: one["status"] for one in json.loads((DATA / "notify-status.json").read_text())
}
EARLIER = ["watch", "ingest", "extract_features", "fit_head"]  # that had begun, in order


@pytest.fixture
def exit_handler(
    kfp: Any,
    graftline: Run,
    run_file: Callable[..., Path],
    tmp_path: Path,
    mlflow_sqlite: str,
    monkeypatch: pytest.MonkeyPatch,
) -> Callable[..., dict[str, Any]]:
    """Run the component as KFP's executor does, with the recorded status; the body it sends."""
    from graftline.steps.notify import step as notify_step
    from graftline.steps.notify.component import notify

    bodies: list[dict[str, Any]] = []
    monkeypatch.setattr(notify_step, "post", lambda url, body, sleep: bodies.append(body) or "")
    monkeypatch.setenv(notify_step.URL_VARIABLE, "http://webhook.example.com")

    def end(name: str, run_id: str) -> dict[str, Any]:
        status = STATUSES[name]
        final = PipelineTaskFinalStatus(
            state=status["state"],
            pipeline_job_resource_name=status["pipelineJobResourceName"],
            pipeline_task_name=status["pipelineTaskName"],
            error_code=status["error"].get("code"),
            error_message=status["error"].get("message"),
        )
        tracking = {"uri": mlflow_sqlite, "experiment": "digits", "registered_model": "digits"}
        config = {"quiet": False, "ui": "https://kubeflow.example.com/pipeline/"}
        notify(
            store=str(tmp_path / "store"),
            config=json.dumps(config),
            tracking=json.dumps(tracking),
            status=final,
            pipeline_run=run_id,
            run_name=recording(name)["v2beta1_run"]["display_name"],
            run_resource=recording(name)["workflow"]["metadata"]["name"],
        )
        return bodies[-1]

    return end


def leave(store: Path, run_id: str, steps: dict[str, str], **error: str) -> None:
    for step, state in steps.items():
        write_record(str(store), run_id, step, state, **(error if state == "failed" else {}))


def test_the_notice_says_what_happened(
    exit_handler: Run, tmp_path: Path, mlflow_sqlite: str
) -> None:
    store = tmp_path / "store"
    said = {}
    for name in STATUSES:
        run_id = str(recording(name)["v2beta1_run"]["run_id"])
        start = name != "retrain-nothing-changed"
        reasons = ["150 new images."] if start else ["Nothing changed."]
        write_notice(str(store), "digits", start, reasons, run_id)
        done = dict.fromkeys(["watch", *TRAINING] if start else ["watch"], "done")
        if name == "retrain-failed":
            done = {"watch": "done", "ingest": "failed"}
        elif name == "retrain-out-of-memory":
            done = {**dict.fromkeys(EARLIER, "done"), "fit_head": "running"}
        error = {"what": "The source has no images.", "why": "It is empty.", "fix": "Fill it."}
        leave(store, run_id, done, **error)
        said[name] = exit_handler(name, run_id)
    titles = {name: body["text"].rpartition(": ")[2] for name, body in said.items()}
    assert titles == {
        "retrain-nothing-changed": "nothing to train",
        "retrain-trained": "trained",
        "retrain-failed": "failed",
        "retrain-out-of-memory": "failed",
    }
    names = {name: recording(name)["v2beta1_run"]["display_name"] for name in STATUSES}
    assert all(said[name]["text"].startswith(names[name]) for name in STATUSES)
    failed = said["retrain-failed"]["attachments"][0]["text"]
    run_id = recording("retrain-failed")["v2beta1_run"]["run_id"]
    assert failed.startswith("• Step ingest failed: The source has no images.\nWhy: It is empty.")
    assert f"https://kubeflow.example.com/pipeline/#/runs/details/{run_id}" in failed
    assert f"graftline logs {run_id} ingest" in failed
    killed = said["retrain-out-of-memory"]["attachments"][0]["text"]
    assert "Step fit_head ended without a message" in killed and "memory" in killed


def test_running_is_no_success_where_training_did_not_end(
    exit_handler: Run, tmp_path: Path
) -> None:
    """A lost driver publishes nothing: the exit handler is told RUNNING then too."""
    write_notice(str(tmp_path / "store"), "digits", True, ["150 new images."], "run-9")
    leave(tmp_path / "store", "run-9", {"watch": "done", "ingest": "done"})
    body = exit_handler("retrain-nothing-changed", "run-9")
    assert body["text"].endswith(": failed")
    assert "The last that ended well is ingest" in body["attachments"][0]["text"]
    leave(tmp_path / "store", "run-9", {"promote": "done"})
    assert exit_handler("retrain-nothing-changed", "run-9")["text"].endswith(": trained")


def test_a_record_of_another_night_is_not_this_ones(exit_handler: Run, tmp_path: Path) -> None:
    write_notice(str(tmp_path / "store"), "digits", False, ["Nothing changed."], "last-night")
    body = exit_handler("retrain-nothing-changed", "tonight")
    assert body["text"].endswith(": ended"), "what happened tonight is not known"


def test_the_exit_handler_ends_the_run_in_mlflow(
    exit_handler: Run, tmp_path: Path, mlflow_sqlite: str
) -> None:
    ended = {}
    for name in ("retrain-failed", "retrain-trained"):
        run_id = str(recording(name)["v2beta1_run"]["run_id"])
        tracked = start_run(mlflow_sqlite, "digits", name, pipeline_run=run_id)
        other = start_run(mlflow_sqlite, "digits", "another", pipeline_run=f"not-{name}")
        exit_handler(name, run_id)
        get = connect(mlflow_sqlite).get_run
        ended[name] = get(tracked).info.status
        assert get(other).info.status == "RUNNING"
    assert ended == {"retrain-failed": "FAILED", "retrain-trained": "FINISHED"}


# --- names ---------------------------------------------------------------------------------------


def test_names_reach_the_steps(kfp: Any, graftline: Run, run_file: Callable[..., Path]) -> None:
    """The compiled pipeline under the server's rule: only a whole constant is replaced."""
    path = run_file()
    started = graftline("submit", path, "--pipeline", "retrain", "--no-registry", "--json").json
    for task in ("watch", "ingest", "fit_head", "promote", "notify"):
        shown = task.replace("_", "-")
        given = kfp.control("inputs", run_id=started["run_id"], task=shown, status="COMPLETE")
        assert "{{" not in json.dumps(given), "a placeholder that KFP does not replace"
        assert given["pipeline_run"] == started["run_id"]
        if task in ("watch", "ingest", "notify"):
            assert given["run_name"] == started["run_name"]
            assert given["run_resource"].startswith("flowers-retrain-")
    assert given["status"].keys() == STATUSES["retrain-trained"].keys()
    # The recorded input of the same component: the literal stood inside the JSON.
    log = (DATA / "notify-nothing-changed.log").read_text()
    start = log.index("{\n", log.index("Got executor_input:"))
    recorded, _ = json.JSONDecoder().raw_decode(log[start:])
    before = recorded["inputs"]["parameterValues"]
    assert "{{$.pipeline_job_name}}" in before["tracking"]
    assert before.keys() <= given.keys()


def test_a_scheduled_run_is_named_by_its_resource(
    kfp: Any, graftline: Run, run_file: Callable[..., Path]
) -> None:
    path = run_file()
    started = graftline("submit", path, "--pipeline", "retrain", "--no-registry", "--json").json
    recorded = recording("scheduled-run")
    run = {**recorded["v2beta1_run"]}
    run["pipeline_version_reference"] = kfp.table("runs")[0]["pipeline_version_reference"]
    kfp.control("replay", run=run, workflow=recorded["workflow"])
    given = kfp.control("inputs", run_id=run["run_id"], task="watch")
    assert given["run_name"] == "", "as there: the workflow has no annotation with a name"
    annotations = recorded["workflow"]["metadata"]["annotations"]
    assert not any("run_name" in key for key in annotations)
    name = shown_name(given["run_name"], given["run_resource"])
    assert name == recorded["v2beta1_run"]["display_name"] and name != started["run_name"]


# --- MLflow, by the commands ---------------------------------------------------------------------


@pytest.mark.parametrize(
    ("command", "state", "status"),
    [("stop", "RUNNING", "KILLED"), ("follow", "FAILED", "FAILED"), ("stop", "FAILED", "FAILED")],
)
def test_commands_end_a_dead_run_in_mlflow(
    kfp: Any,
    graftline: Run,
    run_file: Callable[..., Path],
    mlflow_sqlite: str,
    monkeypatch: pytest.MonkeyPatch,
    command: str,
    state: str,
    status: str,
) -> None:
    monkeypatch.setitem(monitor.follow.__kwdefaults__, "poll_seconds", 0.01)
    started = graftline("submit", run_file(), "--no-registry", "--json").json
    tracked = start_run(mlflow_sqlite, "flowers", "a run", pipeline_run=started["run_id"])
    asked: list[str] = []

    def close(uri: str, *arguments: Any) -> int:
        asked.append(uri)
        return close_runs(mlflow_sqlite, *arguments)

    monkeypatch.setattr(dead_runs, "close_runs", close)  # a database cannot be submitted
    kfp.control("run", run_id=started["run_id"], state=state)
    graftline(command, started["run_id"])
    assert asked == ["http://mlflow.graftline.svc:5000"], "where the compiled pipeline says"
    assert connect(mlflow_sqlite).get_run(tracked).info.status == status


# --- the test server against the recordings ------------------------------------------------------


@pytest.fixture(scope="module")
def controller() -> Any:
    path = Path(__file__).parent / "kfp_controller.py"
    assert "graftline_pipelines" not in path.read_text().replace("``graftline_pipelines``", "")
    spec = importlib.util.spec_from_file_location("kfp_controller_here", path)
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


def shape(nodes: dict[str, dict[str, Any]], workflow: str) -> set[tuple[str, ...]]:
    """Of each node: its name, kind, display name, and the name of the DAG that holds it."""
    return {
        (
            node["name"].removeprefix(workflow),
            node["type"],
            node["displayName"].replace(workflow, "W"),
            nodes[node["boundaryID"]]["name"].removeprefix(workflow)
            if node.get("boundaryID")
            else "",
        )
        for node in nodes.values()
    }


@pytest.mark.parametrize(
    ("name", "steps"),
    [
        (
            "probe-run-succeeded",
            TRAINING,
        ),
        (
            "retrain-trained",
            ["watch", *TRAINING, "notify"],
        ),
    ],
)
def test_the_test_servers_tree_is_argos(controller: Any, name: str, steps: list[str]) -> None:
    recorded = recording(name)["workflow"]
    workflow = recorded["metadata"]["name"]
    made = controller.nodes_of(workflow, [{"step": s, "phase": "Succeeded"} for s in steps])
    assert shape(made, workflow) == shape(recorded["status"]["nodes"], workflow)


def test_the_test_servers_pods_have_the_recorded_names(controller: Any) -> None:
    """Argo makes a node's id, and so its pod's name, of the node's name by FNV-1a."""
    for name in RUNS:
        workflow = recording(name)["workflow"]
        for key, node in workflow["status"]["nodes"].items():
            if "." in node["name"]:
                made = f"{workflow['metadata']['name']}-{controller.fnv(node['name'])}"
                assert key == made, node["name"]


@pytest.mark.parametrize("one", json.loads((DATA / "notify-status.json").read_text()))
def test_the_test_server_tells_the_exit_handler_the_recorded_state(
    controller: Any, one: dict[str, Any]
) -> None:
    nodes = recording(one["recording"])["workflow"]["status"]["nodes"]
    assert controller.final_state(nodes) == one["status"]["state"]


def test_the_test_server_tries_again_as_argo_did(controller: Any) -> None:
    # Fine-tuning's pod deleted in minute 11 under maxDuration 600s: Argo's word is recorded.
    again = controller.tried_again("Error", "pod deleted", 689, longest=600)
    assert again == (False, "Max duration limit exceeded")
    nodes = recording("pod-deleted-then-terminated")["workflow"]["status"]["nodes"].values()
    assert again[1] in {node.get("message") for node in nodes}
    assert controller.tried_again("Error", "pod deleted", 100, longest=600)[0]
    assert not controller.tried_again("Failed", "main: Error (exit code 1)", 6)[0]

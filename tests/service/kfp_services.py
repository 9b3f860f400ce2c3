"""The services of the test server: what they keep, check and answer; see `kfp_server`."""

import json
import threading
import uuid
from datetime import datetime

import kfp_controller
from kfp_rules import (
    EXISTS,
    ID_OF,
    INTERNAL,
    INVALID,
    NOT_FOUND,
    ApiError,
    check_body,
    check_cron,
    check_parameters,
    inputs_of,
    parse_package,
)

ACTIVE = ("PENDING", "RUNNING", "PAUSED", "RUNTIME_STATE_UNSPECIFIED")
HIDDEN = ("last_triggered", "index", "workflow", "nodes")  # not part of the API
now = kfp_controller.stamp


class State:
    def __init__(self) -> None:
        self.lock = threading.RLock()
        self.tables: dict[str, dict[str, dict]] = {kind: {} for kind in ID_OF}
        self.specs: dict[str, list[dict]] = {}
        self.logs: dict[tuple[str, str], str] = {}  # of pods, and what is archived of them
        self.archived: set[tuple[str, str]] = set()  # logs that outlive their pods
        self.orphans: list[dict] = []  # in Kubernetes, without a row in the database
        self.recorded: dict[str, str] = {}  # run id -> the workflow of a replayed recording
        self.script: list[dict] = []
        self.requests: list[str] = []
        self.killed: list[str] = []
        self.settings = {
            "token": None,
            "cookie": None,
            "login_page": False,
            "forbidden": [],  # "METHOD path-prefix" that the account may not do
            "version": "2.17.0",
            "multi_user": False,
            "time_zone": "UTC",  # of the schedules' controller
            "fail": {},  # "METHOD path-prefix" -> status; "drop": do it and answer nothing
            "fail_after": {},  # the same -> [so many requests that go well, status], once
            "hidden_once": [],  # the same: a listing that finds nothing, once
        }

    def get(self, kind: str, key: str, what: str) -> dict:
        try:
            return self.tables[kind][key]
        except KeyError:
            raise ApiError(NOT_FOUND, f"{what} {key} not found") from None


STATE = State()


# --- the services --------------------------------------------------------------------------------


def create_experiment(body: dict) -> dict:
    check_body(body, "V2beta1Experiment")
    name, namespace = body.get("display_name") or "", body.get("namespace") or ""
    if not name:
        raise ApiError(INTERNAL, "Experiment must have a non-empty name")
    if len(name) > 128:
        raise ApiError(INTERNAL, "Experiment.Name length cannot exceed 128")
    if STATE.settings["multi_user"] and not namespace:
        raise ApiError(INVALID, "Namespace cannot be empty")
    for other in STATE.tables["experiments"].values():
        if (other["display_name"], other.get("namespace", "")) == (name, namespace):
            raise ApiError(
                EXISTS,
                f"Failed to create a new experiment. The name {name} already exists. Please "
                "specify a new name",
            )
    made = {
        "experiment_id": str(uuid.uuid4()),
        "display_name": name,
        "namespace": namespace,
        "created_at": now(),
        "last_run_created_at": "1970-01-01T00:00:00Z",
        "storage_state": "AVAILABLE",
    }
    STATE.tables["experiments"][made["experiment_id"]] = made
    return made


def upload(query: dict[str, str], file_name: str, content: bytes, *, version: bool) -> dict:
    if not file_name.endswith((".yaml", ".yml", ".json")):
        raise ApiError(
            INVALID, "Unexpected pipeline file format. Support .zip, .tar.gz, .json or YAML"
        )
    documents = parse_package(content)
    name = query.get("name") or query.get("display_name") or file_name
    if len(name) > (127 if version else 128):
        kind = "PipelineVersion" if version else "Pipeline"
        raise ApiError(INVALID, f"{kind}.Name length cannot exceed {127 if version else 128}")
    if version:
        pipeline_id = query.get("pipelineid", "")
        pipeline = STATE.tables["pipelines"].get(pipeline_id)
        if pipeline is None or f"upload {pipeline['namespace']}" in STATE.settings["forbidden"]:
            raise ApiError(INVALID, "Failed to create a pipeline version")  # says no more
        for other in STATE.tables["versions"].values():
            if (other["pipeline_id"], other["name"]) == (pipeline_id, name):
                raise ApiError(EXISTS, "Failed to create a pipeline version")
        return add_version(pipeline_id, name, query.get("description", ""), documents)
    namespace = query.get("namespace", "")
    if STATE.settings["multi_user"] and not namespace:
        raise ApiError(INVALID, "namespace cannot be empty in multi-user mode")
    for other in STATE.tables["pipelines"].values():
        if (other["name"], other.get("namespace", "")) == (name, namespace):
            raise ApiError(EXISTS, "Failed to create a pipeline and a pipeline version")
    made = {
        "pipeline_id": str(uuid.uuid4()),
        "name": name,
        "display_name": name,
        "description": query.get("description", ""),
        "namespace": namespace,
        "created_at": now(),
    }
    STATE.tables["pipelines"][made["pipeline_id"]] = made
    add_version(made["pipeline_id"], name, made["description"], documents)
    return made


def create_pipeline(body: dict) -> dict:
    check_body(body, "V2beta1Pipeline")
    name = body.get("name") or body.get("display_name") or ""
    namespace = body.get("namespace") or ""
    if len(name) > 128:
        raise ApiError(INTERNAL, "Pipeline.Name length cannot exceed 128")
    if STATE.settings["multi_user"] and not namespace:
        raise ApiError(INVALID, "Namespace cannot be empty in multi-user mode")
    if not name:
        raise ApiError(INVALID, "name is required")
    for other in STATE.tables["pipelines"].values():
        if (other["name"], other.get("namespace", "")) == (name, namespace):
            raise ApiError(
                EXISTS,
                f"Failed to create a new pipeline. The name {name} already exist. Please specify "
                "a new name",
            )
    made = {
        "pipeline_id": str(uuid.uuid4()),
        "name": name,
        "display_name": body.get("display_name") or name,
        "description": body.get("description") or "",
        "namespace": namespace,
        "created_at": now(),
    }
    STATE.tables["pipelines"][made["pipeline_id"]] = made
    return made


def add_version(pipeline_id: str, name: str, description: str, documents: list[dict]) -> dict:
    made = {
        "pipeline_id": pipeline_id,
        "pipeline_version_id": str(uuid.uuid4()),
        "name": name,
        "display_name": name,
        "description": description,
        "created_at": now(),
        "pipeline_spec": documents[0]
        if len(documents) == 1
        else {"pipeline_spec": documents[0], "platform_spec": documents[1]},
    }
    STATE.tables["versions"][made["pipeline_version_id"]] = made
    STATE.specs[made["pipeline_version_id"]] = documents
    return made


def source_of(body: dict, what: str) -> tuple[dict, dict]:
    """The reference and the spec that a run or schedule names, its parameters checked."""
    reference = body.get("pipeline_version_reference") or {}
    version_id = reference.get("pipeline_version_id")
    if version_id:
        version = STATE.tables["versions"].get(version_id)
        if version is None:
            # A missing version surfaces wrapped, and as an internal error.
            raise ApiError(
                INTERNAL,
                f"Failed to create a {what}: Failed to fetch a template due to error retrieving "
                f"pipeline version: ResourceNotFoundError: PipelineVersion {version_id} not found",
            )
        documents = STATE.specs[version_id]
        reference = {"pipeline_id": version["pipeline_id"], "pipeline_version_id": version_id}
    elif reference.get("pipeline_id"):
        versions = [
            v
            for v in STATE.tables["versions"].values()
            if v["pipeline_id"] == reference["pipeline_id"]
        ]
        if not versions:
            raise ApiError(NOT_FOUND, f"PipelineVersion {reference['pipeline_id']} not found")
        newest = max(versions, key=lambda v: v["created_at"])
        documents = STATE.specs[newest["pipeline_version_id"]]
    elif body.get("pipeline_spec"):
        spec = body["pipeline_spec"]
        documents = parse_package(json.dumps(spec.get("pipeline_spec", spec)).encode())
    else:
        raise ApiError(INTERNAL, "Failed to fetch a template with an empty pipeline spec manifest")
    parameters = (body.get("runtime_config") or {}).get("parameters") or {}
    check_parameters(documents[0], parameters)
    return reference, documents[0]


def experiment_of(body: dict) -> dict:
    experiment = body.get("experiment_id") or ""
    if not experiment:
        if STATE.settings["multi_user"]:
            raise ApiError(INVALID, "Experiment id can not be empty in multi-user mode")
        for item in STATE.tables["experiments"].values():
            if item["display_name"] == "Default":
                return item
        return create_experiment({"display_name": "Default"})
    return STATE.get("experiments", experiment, "Experiment")


def create_run(body: dict) -> dict:
    check_body(body, "V2beta1Run")
    if not body.get("display_name"):
        raise ApiError(INTERNAL, "Run name cannot be empty")
    experiment = experiment_of(body)
    reference, spec = source_of(body, "run due to error fetching manifest")
    check_columns(body, "Failed to create a run: ", f"run {body['display_name']}")
    return add_run(body, experiment["experiment_id"], reference, spec["pipelineInfo"]["name"])


def check_columns(body: dict, doing: str, what: str) -> None:
    """As MySQL in strict mode does, after the Kubernetes object is made: that one stays."""
    for field, name in (("display_name", "DisplayName"), ("description", "Description")):
        if len(body.get(field) or "") > 255:
            STATE.orphans.append({"kind": what.partition(" ")[0], **body})
            raise ApiError(
                INTERNAL,
                f"Failed to store {what} to table: Error 1406 (22001): Data too long for column "
                f"'{name}' at row 1",
                before=doing,
            )


def add_run(body: dict, experiment: str, reference: dict, name: str, recurring: str = "") -> dict:
    made = {
        "run_id": str(uuid.uuid4()),
        "experiment_id": experiment,
        "recurring_run_id": recurring,
        "display_name": body["display_name"],
        "description": body.get("description") or "",
        "service_account": body.get("service_account") or "pipeline-runner",
        "runtime_config": body.get("runtime_config") or {},
        "pipeline_version_reference": reference,
        "storage_state": "AVAILABLE",
        "state": "PENDING",
        "state_history": [{"update_time": now(), "state": "PENDING"}],
        "created_at": now(),
        "scheduled_at": now(),
        "finished_at": "1970-01-01T00:00:00Z",
    }
    made["workflow"] = body["display_name"] if recurring else f"{name}-{made['run_id'][:5]}"
    made["nodes"] = {}
    STATE.tables["runs"][made["run_id"]] = made
    return made


def create_recurring_run(body: dict) -> dict:
    check_body(body, "V2beta1RecurringRun")
    name = body.get("display_name") or ""
    if not name:
        raise ApiError(INTERNAL, "Recurring run's name cannot be empty")
    concurrency = int(body.get("max_concurrency") or 0)
    if not 1 <= concurrency <= 10:
        raise ApiError(
            INVALID,
            "Max concurrency of a recurring run must be at least 1 and at most 10. "
            f"Received {concurrency}",
        )
    trigger = body.get("trigger") or {}
    if trigger.get("cron_schedule") is not None:
        check_cron(trigger["cron_schedule"].get("cron") or "")
    periodic = trigger.get("periodic_schedule") or {}
    if periodic and int(periodic.get("interval_second") or 0) < 1:
        raise ApiError(INVALID, "Found invalid period schedule interval 0. Set at interval to 1")
    experiment = experiment_of(body)
    reference, _ = source_of(body, "recurring run with an invalid pipeline spec manifest")
    check_columns(body, "", f"job {name}")
    on = body.get("mode") == "ENABLE"
    made = {
        "recurring_run_id": str(uuid.uuid4()),
        "experiment_id": experiment["experiment_id"],
        "namespace": experiment["namespace"] or "kubeflow",
        "display_name": name,
        "description": body.get("description") or "",
        "service_account": body.get("service_account") or "pipeline-runner",
        "runtime_config": body.get("runtime_config") or {},
        "pipeline_version_reference": reference,
        "max_concurrency": str(concurrency),
        "no_catchup": bool(body.get("no_catchup", False)),
        "trigger": trigger,
        "mode": "ENABLE" if on else "DISABLE",
        "status": "ENABLED" if on else "DISABLED",
        "created_at": now(),
        "updated_at": now(),
        "last_triggered": None,
        "index": 0,
    }
    STATE.tables["recurringruns"][made["recurring_run_id"]] = made
    return made


def terminate(run: dict) -> dict:
    if run["state"] not in ACTIVE:
        raise ApiError(INVALID, f"Failed to terminate a run {run['run_id']}. Row not found")
    run["state"] = "CANCELING"
    run["state_history"].append({"update_time": now(), "state": "CANCELING"})
    return {}


def set_mode(schedule: dict, on: bool) -> dict:
    schedule["mode"] = "ENABLE" if on else "DISABLE"
    schedule["status"] = "ENABLED" if on else "DISABLED"
    schedule["updated_at"] = now()
    return {}


def of_namespace(kind: str, query: dict[str, str]) -> list[dict]:
    items = list(STATE.tables[kind].values())
    if query.get("experiment_id"):
        STATE.get("experiments", query["experiment_id"], "Experiment")
        return [i for i in items if i["experiment_id"] == query["experiment_id"]]
    namespace = query.get("namespace", "")
    if not STATE.settings["multi_user"]:
        return items
    if not namespace and kind != "pipelines":
        raise ApiError(INVALID, "Namespace cannot be empty in multi-user mode")
    spaces = {
        e["experiment_id"]: e.get("namespace", "") for e in STATE.tables["experiments"].values()
    }
    return [
        i
        for i in items
        if spaces.get(i.get("experiment_id", ""), i.get("namespace", "")) == namespace
    ]


def look_at(run: dict) -> dict:
    """A run as it is reported; a script moves it on at each look."""
    if STATE.script:
        change(run, **STATE.script.pop(0))
    return run


def change(run: dict, state: str | None = None, steps: list[dict] | None = None) -> dict:
    if state:
        if state != run["state"]:
            run["state_history"].append({"update_time": now(), "state": state})
        run["state"] = state
        if state in ("SUCCEEDED", "FAILED", "CANCELED"):
            run["finished_at"] = now()
    if steps is not None:
        run["nodes"] = kfp_controller.nodes_of(run["workflow"], steps)
        details = kfp_controller.task_details(run["run_id"], run["nodes"])
        run["run_details"] = {"task_details": details}
    return run


def with_manifest(run: dict) -> dict:
    """The run's detail of the v1beta1 API."""
    shown = "" if run["recurring_run_id"] else run["display_name"]
    manifest = STATE.recorded.get(run["run_id"]) or kfp_controller.manifest(
        run["workflow"], run["nodes"], shown, run["run_id"]
    )
    return {"run": {"id": run["run_id"]}, "pipeline_runtime": {"workflow_manifest": manifest}}


def fire(moment: str) -> list[dict]:
    """What the controller of schedules does at a moment; it starts pinned versions as it has them
    in its own object, whether or not the API server still knows the version.
    """
    made = []
    for orphan in STATE.orphans:
        if orphan["kind"] == "job":
            orphan["fired"] = orphan.get("fired", 0) + 1  # seen by nobody
    for schedule in STATE.tables["recurringruns"].values():
        while True:
            own = schedule["recurring_run_id"]
            runs = [r for r in STATE.tables["runs"].values() if r["recurring_run_id"] == own]
            active = sum(r["state"] in ACTIVE for r in runs)
            at = datetime.fromisoformat(moment)
            chosen = kfp_controller.due(schedule, at, STATE.settings["time_zone"], active)
            if chosen is None:
                break
            schedule["last_triggered"] = now(chosen)
            schedule["index"] += 1
            name = f"{schedule['display_name'][:25]}{own[:5]}-{schedule['index']}"
            body = {**schedule, "display_name": f"{name}-{kfp_controller.fnv(name)}"}
            reference = schedule["pipeline_version_reference"]
            run = add_run(body, schedule["experiment_id"], reference, name, recurring=own)
            run["scheduled_at"] = now(chosen)
            made.append(run)
    return made


def delete(kind: str, key: str) -> dict:
    STATE.get(kind, key, {"recurringruns": "Job"}.get(kind, kind))
    del STATE.tables[kind][key]
    if kind == "pipelines":
        versions = STATE.tables["versions"]
        for version in [k for k, v in versions.items() if v["pipeline_id"] == key]:
            del versions[version]
    return {}


def delete_recurring_run(key: str, query: dict[str, str]) -> dict:
    """Without the policy ORPHAN, Kubernetes deletes the workflows that the schedule started."""
    answer = delete("recurringruns", key)
    if query.get("propagation_policy") != "ORPHAN":
        runs = STATE.tables["runs"].values()
        mine = [r for r in runs if r["recurring_run_id"] == key and r["state"] in ACTIVE]
        STATE.killed += [run["run_id"] for run in mine]
    return answer


def replay(body: dict) -> dict:
    """Put a recorded run into the tables, with its workflow and logs, as the real server had it."""
    run = {"recurring_run_id": "", "nodes": {}, "finished_at": "1970-01-01T00:00:00Z"}
    run |= {k: v for k, v in body["run"].items() if k != "plugins_output"}
    run["workflow"] = body["workflow"]["metadata"]["name"]
    namespace = body["workflow"]["metadata"].get("namespace", "")
    experiments = STATE.tables["experiments"]
    experiments.setdefault(
        run["experiment_id"],
        {
            "experiment_id": run["experiment_id"],
            "display_name": "recorded",
            "namespace": namespace,
            "created_at": now(),
            "storage_state": "AVAILABLE",
        },
    )
    STATE.tables["runs"][run["run_id"]] = run
    STATE.recorded[run["run_id"]] = json.dumps(body["workflow"])
    for pod, text in (body.get("logs") or {}).items():
        STATE.logs[run["run_id"], pod] = text
    return {"run_id": run["run_id"]}


def executor_input(run: dict, task: str, status: str | None = None) -> dict:
    """The parameters that the driver hands to a task of a run: constants as it resolves them.

    It replaces a placeholder only where it is the whole constant. A scheduled run has no display
    name.
    """
    version = run["pipeline_version_reference"]["pipeline_version_id"]
    places = {
        "{{$.pipeline_job_name}}": "" if run["recurring_run_id"] else run["display_name"],
        "{{$.pipeline_job_resource_name}}": run["workflow"],
        "{{$.pipeline_job_uuid}}": run["run_id"],
    }
    found: dict = {}
    for name, given in inputs_of(STATE.specs[version][0], task).items():
        if "runtimeValue" in given:
            constant = given["runtimeValue"]["constant"]
            found[name] = places.get(constant, constant) if isinstance(constant, str) else constant
        elif "taskFinalStatus" in given:
            found[name] = {
                "error": {},
                "pipelineJobResourceName": run["workflow"],
                "pipelineTaskName": given["taskFinalStatus"]["producerTask"],
                "state": status or kfp_controller.final_state(run["nodes"]),
            }
    return found


def set_log(body: dict) -> dict:
    run = STATE.get("runs", body["run_id"], "Run")
    pod = body.get("pod")
    if pod is None:
        shown = body["step"].replace("_", "-")
        wanted = body.get("driver") and f"{shown}-driver"
        nodes = [
            node
            for node in run["nodes"].values()
            if node["type"] == "Pod"
            and (
                node["displayName"] == f"{wanted}(0)"
                if wanted
                else f".{shown}(0).executor(" in node["name"]
            )
        ]
        last = max(nodes, key=lambda node: node["name"])
        pod = kfp_controller.pod_name(run["workflow"], last)
    STATE.logs[body["run_id"], pod] = body["text"]
    if body.get("archived"):
        STATE.archived.add((body["run_id"], pod))
    return {"pod": pod}


def expire(run_id: str) -> dict:
    """The workflow's time to live is over: its pods go, and their logs that are not archived.

    The database keeps the run and the workflow's manifest.
    """
    for key in [key for key in STATE.logs if key[0] == run_id and key not in STATE.archived]:
        del STATE.logs[key]
    return {}

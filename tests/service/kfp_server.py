"""A server that keeps the rules of the Kubeflow Pipelines API, v2beta1, for the tests.

Written from the published API (the routes and models of kfp-server-api) and from the behaviour of
the API server: which fields are required, which types and limits are checked, how filters, sorting
and page tokens work, which HTTP code and which body an error has. It runs no pipeline. A test
moves runs and time on through ``/control/...``:

    POST /control/settings   token, cookie, login_page, version, multi_user, fail (see `Faults`)
    POST /control/run        run_id, state, tasks: as the API would report them
    POST /control/script     a list of (state, tasks) that each look at the newest run moves on by
    POST /control/log        run_id, node, text
    POST /control/fire       now (ISO time): lets the enabled schedules fire, returns the runs
    POST /control/delete     kind, id: as a colleague would in the UI
    GET  /control/requests   every API request so far, as "METHOD path"

Run as ``python kfp_server.py PORT``.
"""

import datetime
import json
import re
import sys
import threading
import urllib.parse
import uuid
from email.parser import BytesParser
from email.policy import HTTP
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from kfp_rules import (
    CODES,
    EXISTS,
    ID_OF,
    INTERNAL,
    INVALID,
    NOT_FOUND,
    UNAUTHENTICATED,
    ApiError,
    check_cron,
    check_parameters,
    int_field,
    listing,
    parse_package,
    text_field,
)

ACTIVE = ("PENDING", "RUNNING", "PAUSED", "RUNTIME_STATE_UNSPECIFIED")


def now() -> str:
    return datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


class State:
    def __init__(self) -> None:
        self.lock = threading.RLock()
        self.tables: dict[str, dict[str, dict]] = {kind: {} for kind in ID_OF}
        self.specs: dict[str, list[dict]] = {}
        self.logs: dict[tuple[str, str], str] = {}
        self.script: list[dict] = []
        self.requests: list[str] = []
        self.settings = {
            "token": None,
            "cookie": None,
            "login_page": False,
            "version": "2.17.0",
            "multi_user": False,
            "fail": {},  # "METHOD path-prefix" -> status, or "drop": answer nothing, do the work
        }
        self.last_fired: dict[str, str] = {}

    def get(self, kind: str, key: str, what: str) -> dict:
        try:
            return self.tables[kind][key]
        except KeyError:
            raise ApiError(NOT_FOUND, f"{what} {key} not found") from None


STATE = State()


# --- the services --------------------------------------------------------------------------------


def create_experiment(body: dict) -> dict:
    name, namespace = text_field(body, "display_name"), text_field(body, "namespace")
    if not name:
        raise ApiError(INTERNAL, "Internal Server Error")
    if len(name) > 128:
        raise ApiError(INVALID, "Experiment.Name length cannot exceed 128")
    if STATE.settings["multi_user"] and not namespace:
        raise ApiError(INVALID, "Experiment's namespace cannot be empty in multi-user mode")
    for other in STATE.tables["experiments"].values():
        if (other["display_name"], other.get("namespace", "")) == (name, namespace):
            raise ApiError(
                EXISTS, f"Failed to create a new experiment. The name {name} already exists."
            )
    made = {
        "experiment_id": str(uuid.uuid4()),
        "display_name": name,
        "namespace": namespace,
        "created_at": now(),
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
        if pipeline_id not in STATE.tables["pipelines"]:
            raise ApiError(INVALID, "Failed to create a pipeline version")
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
    name = text_field(body, "name") or text_field(body, "display_name")
    namespace = text_field(body, "namespace")
    if not name:
        raise ApiError(INVALID, "name is required")
    for other in STATE.tables["pipelines"].values():
        if (other["name"], other.get("namespace", "")) == (name, namespace):
            raise ApiError(
                EXISTS, f"Failed to create a new pipeline. The name {name} already exists."
            )
    made = {
        "pipeline_id": str(uuid.uuid4()),
        "name": name,
        "display_name": text_field(body, "display_name") or name,
        "description": text_field(body, "description"),
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


def source_of(body: dict) -> tuple[dict, dict]:
    """The reference and the spec that a run or schedule names, its parameters checked."""
    reference = body.get("pipeline_version_reference") or {}
    if body.get("pipeline_spec"):
        spec = body["pipeline_spec"]
        spec = spec.get("pipeline_spec", spec)
        documents = parse_package(json.dumps(spec).encode())
        reference = {}
    elif reference.get("pipeline_version_id"):
        version = STATE.tables["versions"].get(reference["pipeline_version_id"])
        if version is None:
            # As the real server: a missing version surfaces wrapped, and as an internal error.
            raise ApiError(
                INTERNAL,
                "Failed to create due to error fetching manifest: ResourceNotFoundError: "
                f"PipelineVersion {reference['pipeline_version_id']} not found",
            )
        documents = STATE.specs[reference["pipeline_version_id"]]
    elif reference.get("pipeline_id"):
        versions = [
            v
            for v in STATE.tables["versions"].values()
            if v["pipeline_id"] == reference["pipeline_id"]
        ]
        if not versions:
            raise ApiError(
                NOT_FOUND, f"PipelineVersion of pipeline {reference['pipeline_id']} not found"
            )
        newest = max(versions, key=lambda v: v["created_at"])
        documents = STATE.specs[newest["pipeline_version_id"]]
    else:
        raise ApiError(
            INVALID, "Failed to parse the pipeline source: Pipeline spec source is missing"
        )
    parameters = (body.get("runtime_config") or {}).get("parameters") or {}
    check_parameters(documents[0], parameters)
    return reference, documents[0]


def experiment_of(body: dict) -> str:
    experiment = text_field(body, "experiment_id")
    if not experiment:
        if STATE.settings["multi_user"]:
            raise ApiError(INVALID, "Experiment id can not be empty in multi-user mode")
        for item in STATE.tables["experiments"].values():
            if item["display_name"] == "Default":
                return item["experiment_id"]
        return create_experiment({"display_name": "Default"})["experiment_id"]
    STATE.get("experiments", experiment, "Experiment")
    return experiment


def create_run(body: dict, recurring_run_id: str = "") -> dict:
    if not text_field(body, "display_name"):
        raise ApiError(INVALID, "The run name is empty. Please specify a valid name")
    experiment = experiment_of(body)
    reference, _ = source_of(body)
    made = {
        "run_id": str(uuid.uuid4()),
        "experiment_id": experiment,
        "recurring_run_id": recurring_run_id,
        "display_name": body["display_name"],
        "description": text_field(body, "description"),
        "service_account": text_field(body, "service_account") or "pipeline-runner",
        "runtime_config": body.get("runtime_config") or {},
        "pipeline_version_reference": reference,
        "storage_state": "AVAILABLE",
        "state": "PENDING",
        "created_at": now(),
        "scheduled_at": now(),
        "finished_at": "1970-01-01T00:00:00Z",
    }
    STATE.tables["runs"][made["run_id"]] = made
    return made


def create_recurring_run(body: dict) -> dict:
    if not text_field(body, "display_name"):
        raise ApiError(INTERNAL, "Internal Server Error")
    mode = body.get("mode", "MODE_UNSPECIFIED")
    if mode not in ("ENABLE", "DISABLE", "MODE_UNSPECIFIED"):
        raise ApiError(INVALID, f"proto: invalid value for enum field mode: {mode!r}")
    concurrency = int_field(body, "max_concurrency")
    if not 1 <= concurrency <= 10:
        raise ApiError(
            INVALID,
            "Max concurrency of a recurring run must be at least 1 and at most 10. "
            f"Received {concurrency}",
        )
    trigger = body.get("trigger") or {}
    if trigger.get("cron_schedule"):
        check_cron(text_field(trigger["cron_schedule"], "cron"))
    experiment = experiment_of(body)
    reference, _ = source_of(body)
    made = {
        "recurring_run_id": str(uuid.uuid4()),
        "experiment_id": experiment,
        "namespace": STATE.tables["experiments"][experiment].get("namespace", ""),
        "display_name": body["display_name"],
        "description": text_field(body, "description"),
        "service_account": text_field(body, "service_account"),
        "runtime_config": body.get("runtime_config") or {},
        "pipeline_version_reference": reference,
        "max_concurrency": str(concurrency),
        "no_catchup": bool(body.get("no_catchup", False)),
        "trigger": trigger,
        "mode": "ENABLE" if mode == "ENABLE" else "DISABLE",
        "status": "ENABLED" if mode == "ENABLE" else "DISABLED",
        "created_at": now(),
        "updated_at": now(),
    }
    STATE.tables["recurringruns"][made["recurring_run_id"]] = made
    return made


def terminate(run: dict) -> dict:
    if run["state"] not in ACTIVE:
        raise ApiError(INVALID, f"Failed to terminate a run {run['run_id']}. Row not found")
    run["state"] = "CANCELING"
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
        entry = STATE.script.pop(0)
        change(run, entry["state"], entry.get("tasks"))
    return run


def change(run: dict, state: str | None, tasks: list[dict] | None) -> None:
    if state:
        run["state"] = state
        if state in ("SUCCEEDED", "FAILED", "CANCELED"):
            run["finished_at"] = now()
    if tasks is not None:
        for task in tasks:
            task.setdefault("run_id", run["run_id"])
            task.setdefault("task_id", str(uuid.uuid5(uuid.NAMESPACE_OID, task["display_name"])))
        run["run_details"] = {"task_details": tasks}


def fire(moment: str) -> list[dict]:
    """Let every enabled schedule that started by then make a run, as its controller would."""
    made = []
    for schedule in STATE.tables["recurringruns"].values():
        start = (schedule["trigger"].get("cron_schedule") or {}).get("start_time")
        if schedule["mode"] != "ENABLE" or (start and start > moment):
            continue
        runs = STATE.tables["runs"].values()
        active = [
            r
            for r in runs
            if r["recurring_run_id"] == schedule["recurring_run_id"] and r["state"] in ACTIVE
        ]
        if len(active) >= int(schedule["max_concurrency"]):
            continue
        body = {key: schedule[key] for key in ("experiment_id", "runtime_config", "display_name")}
        body["pipeline_version_reference"] = schedule["pipeline_version_reference"]
        made.append(create_run(body, schedule["recurring_run_id"]))
    return made


# --- HTTP ----------------------------------------------------------------------------------------

ROUTES = [
    ("POST", r"/experiments", lambda m, q, b: create_experiment(b)),
    (
        "GET",
        r"/experiments",
        lambda m, q, b: listing("experiments", of_namespace("experiments", q), q),
    ),
    ("GET", r"/experiments/([^/:]+)", lambda m, q, b: STATE.get("experiments", m[1], "Experiment")),
    ("POST", r"/pipelines", lambda m, q, b: create_pipeline(b)),
    ("GET", r"/pipelines", lambda m, q, b: listing("pipelines", of_namespace("pipelines", q), q)),
    ("GET", r"/pipelines/([^/:]+)", lambda m, q, b: STATE.get("pipelines", m[1], "Pipeline")),
    (
        "GET",
        r"/pipelines/([^/:]+)/versions",
        lambda m, q, b: listing(
            "versions",
            [v for v in STATE.tables["versions"].values() if v["pipeline_id"] == m[1]],
            q,
        ),
    ),
    (
        "GET",
        r"/pipelines/([^/:]+)/versions/([^/:]+)",
        lambda m, q, b: STATE.get("versions", m[2], "PipelineVersion"),
    ),
    (
        "DELETE",
        r"/pipelines/([^/:]+)/versions/([^/:]+)",
        lambda m, q, b: delete("versions", m[2]),
    ),
    ("POST", r"/runs", lambda m, q, b: create_run(b)),
    ("GET", r"/runs", lambda m, q, b: listing("runs", of_namespace("runs", q), q)),
    ("GET", r"/runs/([^/:]+)", lambda m, q, b: look_at(STATE.get("runs", m[1], "Run"))),
    (
        "POST",
        r"/runs/([^/:]+):terminate",
        lambda m, q, b: terminate(STATE.get("runs", m[1], "Run")),
    ),
    ("POST", r"/recurringruns", lambda m, q, b: create_recurring_run(b)),
    (
        "GET",
        r"/recurringruns",
        lambda m, q, b: listing("recurringruns", of_namespace("recurringruns", q), q),
    ),
    ("GET", r"/recurringruns/([^/:]+)", lambda m, q, b: STATE.get("recurringruns", m[1], "Job")),
    ("DELETE", r"/recurringruns/([^/:]+)", lambda m, q, b: delete("recurringruns", m[1])),
    (
        "POST",
        r"/recurringruns/([^/:]+):(enable|disable)",
        lambda m, q, b: set_mode(STATE.get("recurringruns", m[1], "Job"), m[2] == "enable"),
    ),
]


def delete(kind: str, key: str) -> dict:
    STATE.get(kind, key, {"recurringruns": "Job"}.get(kind, kind))
    del STATE.tables[kind][key]
    return {}


def control(path: str, body: dict) -> object:
    if path == "settings":
        STATE.settings.update(body)
        return STATE.settings
    if path == "run":
        run = STATE.get("runs", body["run_id"], "Run")
        change(run, body.get("state"), body.get("tasks"))
        return run
    if path == "script":
        STATE.script = body["looks"]
        return {}
    if path == "log":
        STATE.logs[body["run_id"], body["node"]] = body["text"]
        return {}
    if path == "fire":
        return fire(body["now"])
    if path == "delete":
        return delete(body["kind"], body["id"])
    if path == "requests":
        return STATE.requests
    if path == "tables":
        return {kind: list(table.values()) for kind, table in STATE.tables.items()}
    if path == "reset":
        fresh = State()
        for name in ("tables", "specs", "logs", "script", "requests", "settings", "last_fired"):
            setattr(STATE, name, getattr(fresh, name))
        return {}
    raise ApiError(NOT_FOUND, path)


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *args: object) -> None:
        pass

    def handle_any(self) -> None:
        url = urllib.parse.urlsplit(self.path)
        query = dict(urllib.parse.parse_qsl(url.query))
        length = int(self.headers.get("Content-Length") or 0)
        content = self.rfile.read(length)
        if url.path.startswith("/control/"):
            with STATE.lock:
                answer = control(url.path.removeprefix("/control/"), json.loads(content or b"{}"))
            self.send(200, answer)
            return
        with STATE.lock:
            STATE.requests.append(f"{self.command} {url.path}")
            fault = self.fault(url.path)
            if isinstance(fault, int):
                self.send(fault, {"code": 14, "message": "planned failure", "details": []})
                return
            if not self.allowed():
                return
            try:
                status, answer = 200, self.dispatch(url.path, query, content)
            except ApiError as error:
                status = CODES[error.code]
                answer = self.error_body(url.path, error)
        if fault == "drop":  # the work is done, the answer is lost
            self.close_connection = True
            self.connection.close()
            return
        self.send(status, answer)

    do_GET = do_POST = do_DELETE = handle_any

    def fault(self, path: str) -> object:
        faults = STATE.settings["fail"]
        key = next((k for k in faults if f"{self.command} {path}".startswith(k)), None)
        return faults.pop(key) if key else None

    def allowed(self) -> bool:
        settings = STATE.settings
        token, cookie = settings["token"], settings["cookie"]
        if settings["login_page"]:
            self.send(200, "<!doctype html><title>Log in to Your Account</title>", "text/html")
            return False
        if token and self.headers.get("Authorization") != f"Bearer {token}":
            self.send(
                401, {"code": UNAUTHENTICATED, "message": "Request header error", "details": []}
            )
            return False
        if cookie and cookie not in (self.headers.get("Cookie") or ""):
            self.send(403, "RBAC: access denied", "text/plain")
            return False
        return True

    def dispatch(self, path: str, query: dict[str, str], content: bytes) -> object:
        log = re.fullmatch(r"/apis/v1alpha1/runs/([^/]+)/nodes/([^/]+)/log", path)
        if log:
            STATE.get("runs", log[1], "Run")
            if (log[1], log[2]) not in STATE.logs:
                raise ApiError(INTERNAL, f'pods "{log[2]}" not found')
            return STATE.logs[log[1], log[2]]
        if not path.startswith("/apis/v2beta1"):
            raise ApiError(NOT_FOUND, "Not Found")
        path = path.removeprefix("/apis/v2beta1")
        if path == "/healthz":
            settings = STATE.settings
            return {
                "commit_sha": "unknown",
                "tag_name": settings["version"],
                "multi_user": settings["multi_user"],
            }
        if path in ("/pipelines/upload", "/pipelines/upload_version"):
            name, file = self.form_file(content)
            return upload(query, name, file, version=path.endswith("version"))
        try:
            body = json.loads(content or b"{}")
        except ValueError as error:
            raise ApiError(INVALID, f"proto: syntax error: {error}") from None
        for method, pattern, action in ROUTES:
            match = re.fullmatch(pattern, path)
            if match and method == self.command:
                return action(match, query, body)
        raise ApiError(NOT_FOUND, "Not Found")

    def form_file(self, content: bytes) -> tuple[str, bytes]:
        head = f"Content-Type: {self.headers['Content-Type']}\r\n\r\n".encode()
        for part in BytesParser(policy=HTTP).parsebytes(head + content).iter_parts():
            if part.get_param("name", header="content-disposition") == "uploadfile":
                return part.get_filename() or "", part.get_payload(decode=True)
        raise ApiError(INVALID, "Failed to read pipeline from file")

    def error_body(self, path: str, error: ApiError) -> object:
        if "/pipelines/upload" in path or path.endswith("/log"):
            return {"error_message": error.message, "error_details": error.message}
        return {
            "error": error.message,
            "code": error.code,
            "message": error.message,
            "details": [
                {
                    "@type": "type.googleapis.com/google.rpc.Status",
                    "code": error.code,
                    "message": error.message,
                }
            ],
        }

    def send(self, status: int, answer: object, kind: str = "application/json") -> None:
        data = answer.encode() if isinstance(answer, str) else json.dumps(answer).encode()
        if isinstance(answer, str) and kind == "application/json":
            kind = "text/plain"
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)


if __name__ == "__main__":
    ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1])), Handler).serve_forever()

"""A server that keeps the rules of the Kubeflow Pipelines API, v2beta1, for the tests.

Written after the API server of KFP 2.17.0: which fields are required, which types and limits are
checked, how filters, sorting and page tokens work, which HTTP code and which body an error has.
It runs no pipeline. A test moves runs and time on through ``/control/...``:

    POST /control/settings   token, cookie, login_page, version, multi_user, forbidden, fail
    POST /control/run        run_id, state, steps: see `kfp_controller.nodes_of`
    POST /control/script     a list of (state, steps) that each look at the newest run moves on by
    POST /control/log        run_id, step, text: the log of the step's last pod (or pod: its
                             name); archived: it outlives its pod
    POST /control/expire     run_id: the pods go after the workflow's time to live
    POST /control/replay     run, workflow, logs (pod -> text): a recording of a real server
    POST /control/inputs     run_id, task, status: the parameters that the driver hands to a task
    GET  /control/orphans    what is in Kubernetes though its creation was refused
    POST /control/fire       now (ISO time): what the schedules' controller does then
    POST /control/delete     kind, id: as a colleague would in the UI
    GET  /control/requests   every API request so far, as "METHOD path?query"
    GET  /control/tables     everything that it holds
    GET  /control/killed     runs whose workflow went with their schedule

Run as ``python kfp_server.py PORT``; it prints its address, and takes a free port for 0.
"""

import json
import re
import sys
import urllib.parse
from email.parser import BytesParser
from email.policy import HTTP
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from kfp_rules import (
    CODES,
    FORBIDDEN,
    INTERNAL,
    INVALID,
    NOT_FOUND,
    UNAUTHENTICATED,
    ApiError,
    BadBody,
    listing,
)
from kfp_services import (
    HIDDEN,
    STATE,
    State,
    change,
    create_experiment,
    create_pipeline,
    create_recurring_run,
    create_run,
    delete,
    delete_recurring_run,
    executor_input,
    expire,
    fire,
    look_at,
    of_namespace,
    replay,
    set_log,
    set_mode,
    terminate,
    upload,
    with_manifest,
)

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
    ("DELETE", r"/recurringruns/([^/:]+)", lambda m, q, b: delete_recurring_run(m[1], q)),
    (
        "POST",
        r"/recurringruns/([^/:]+):(enable|disable)",
        lambda m, q, b: set_mode(STATE.get("recurringruns", m[1], "Job"), m[2] == "enable"),
    ),
]


NOT_AUTHORIZED = (
    "Failed to authorize the request: PermissionDenied: User 'me' is not authorized with reason: "
    "(request: &ResourceAttributes{Namespace:team,Verb:create,Group:pipelines.kubeflow.org,})"
)
DOING = {
    ("POST", "runs"): "Failed to create a new run",
    ("POST", "recurringruns"): "Failed to create a recurring run",
    ("POST", "experiments"): "Failed to create an experiment",
    ("POST", "pipelines"): "Failed to create a pipeline due to server error",
    ("DELETE", "recurringruns"): "Failed to delete a recurring run",
}


def control(path: str, body: dict) -> object:
    actions = {
        "settings": lambda: STATE.settings.update(body) or STATE.settings,
        "run": lambda: change(
            STATE.get("runs", body["run_id"], "Run"), body.get("state"), body.get("steps")
        ),
        "script": lambda: setattr(STATE, "script", body["looks"]),
        "log": lambda: set_log(body),
        "expire": lambda: expire(body["run_id"]),
        "replay": lambda: replay(body),
        "inputs": lambda: executor_input(
            STATE.get("runs", body["run_id"], "Run"), body["task"], body.get("status")
        ),
        "orphans": lambda: STATE.orphans,
        "fire": lambda: fire(body["now"]),
        "delete": lambda: delete(body["kind"], body["id"]),
        "requests": lambda: STATE.requests,
        "killed": lambda: STATE.killed,
        "tables": lambda: {kind: list(table.values()) for kind, table in STATE.tables.items()},
    }
    if path == "reset":
        fresh = State()
        for name in (
            "tables",
            "specs",
            "logs",
            "script",
            "requests",
            "killed",
            "settings",
            "orphans",
            "archived",
            "recorded",
        ):
            setattr(STATE, name, getattr(fresh, name))
        return {}
    answer = actions[path]()
    return {} if answer is None else answer


def public(answer: object) -> object:
    """Without what only this server keeps."""
    if isinstance(answer, dict):
        return {k: public(v) for k, v in answer.items() if k not in HIDDEN}
    return [public(item) for item in answer] if isinstance(answer, list) else answer


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *args: object) -> None:
        pass

    def handle_any(self) -> None:
        url = urllib.parse.urlsplit(self.path)
        query = dict(urllib.parse.parse_qsl(url.query))
        content = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        if url.path.startswith("/control/"):
            with STATE.lock:
                answer = control(url.path.removeprefix("/control/"), json.loads(content or b"{}"))
            self.send(200, answer)
            return
        with STATE.lock:
            STATE.requests.append(f"{self.command} {self.path}")
            fault = self.fault(url.path)
            if isinstance(fault, int):
                self.send(fault, {"code": 14, "message": "planned failure", "details": []})
                return
            if not self.allowed(url.path):
                return
            status, answer = self.answer(url.path, query, content)
            if f"{self.command} {url.path}" in STATE.settings["hidden_once"]:
                STATE.settings["hidden_once"].remove(f"{self.command} {url.path}")
                answer = {}
        if fault == "drop":  # the work is done, the answer is lost
            self.close_connection = True
            self.connection.close()
            return
        self.send(status, answer)

    def answer(self, path: str, query: dict[str, str], content: bytes) -> tuple[int, object]:
        try:
            return 200, self.dispatch(path, query, content)
        except ApiError as error:
            status, shown = CODES[error.code], error
        if path.endswith("/log"):
            return status, json.dumps({"error_message": shown.message, "error_details": "..."})
        if "/pipelines/upload" in path:
            if "length cannot exceed" in shown.message:
                return status, shown.message  # as plain text
            return status, {"error_message": shown.public, "error_details": shown.public}
        resource = path.removeprefix("/apis/v2beta1/").partition("/")[0]
        return status, shown.body(DOING.get((self.command, resource), ""))

    do_GET = do_POST = do_DELETE = handle_any

    def fault(self, path: str) -> object:
        request = f"{self.command} {path}"
        for key, entry in STATE.settings["fail_after"].items():
            if request.startswith(key):
                entry[0] -= 1
                if entry[0] == -1:
                    return entry[1]
        faults = STATE.settings["fail"]
        key = next((k for k in faults if f"{self.command} {path}".startswith(k)), None)
        return faults.pop(key) if key else None

    def allowed(self, path: str) -> bool:
        settings = STATE.settings
        token, cookie = settings["token"], settings["cookie"]
        if settings["login_page"]:
            self.send(200, "<!doctype html><title>Log in to Your Account</title>", "text/html")
            return False
        if token and self.headers.get("Authorization") != f"Bearer {token}":
            error = ApiError(
                UNAUTHENTICATED,
                "Failed to authorize the request: Request header error: there is no user identity "
                "header",
            )
            self.send(401, error.body(""))
            return False
        if cookie and cookie not in (self.headers.get("Cookie") or ""):
            self.send(403, "RBAC: access denied", "text/plain")
            return False
        if any(f"{self.command} {path}".startswith(what) for what in settings["forbidden"]):
            self.send(403, ApiError(FORBIDDEN, NOT_AUTHORIZED).body(""))
            return False
        return True

    def dispatch(self, path: str, query: dict[str, str], content: bytes) -> object:
        log = re.fullmatch(r"/apis/v1alpha1/runs/([^/]+)/nodes/([^/]+)/log", path)
        if log:
            STATE.get("runs", log[1], "Run")
            if (log[1], log[2]) not in STATE.logs:  # neither in the pod nor in the archive
                raise ApiError(
                    INTERNAL,
                    f'Failed to read logs: pods "{log[2]}" not found: failed to read the archive: '
                    "rpc error: code = NotFound desc = The specified key does not exist.",
                )
            return STATE.logs[log[1], log[2]]
        detail = re.fullmatch(r"/apis/v1beta1/runs/([^/:]+)", path)
        if detail:
            return with_manifest(STATE.get("runs", detail[1], "Run"))
        if not path.startswith("/apis/v2beta1"):
            raise ApiError(NOT_FOUND, "Not Found")
        path = path.removeprefix("/apis/v2beta1")
        if path == "/healthz":
            settings = STATE.settings
            return {
                "commit_sha": "unknown",
                "tag_name": settings["version"],
                "multi_user": settings["multi_user"],
                "pipeline_store": "database",
            }
        if path in ("/pipelines/upload", "/pipelines/upload_version"):
            name, file = self.form_file(content)
            return upload(query, name, file, version=path.endswith("version"))
        try:
            body = json.loads(content or b"{}")
        except ValueError as error:
            raise BadBody(INVALID, f"syntax error: {error}") from None
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

    def send(self, status: int, answer: object, kind: str = "application/json") -> None:
        data = answer.encode() if isinstance(answer, str) else json.dumps(public(answer)).encode()
        if isinstance(answer, str) and kind == "application/json":
            kind = "text/plain"
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)


if __name__ == "__main__":
    server = ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1])), Handler)
    print(f"http://127.0.0.1:{server.server_port}", flush=True)
    server.serve_forever()

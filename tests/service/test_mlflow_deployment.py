"""The MLflow pod's own command, from the rendered manifest, with a real Postgres and S3 server."""

import contextlib
import json
import os
import re
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from tests.support.http_server import free_port
from tests.support.kubernetes import rendered

REPOSITORY = Path(__file__).parents[2]
PASSWORD = "p@ss:w/rd%" + secrets.token_hex(4)  # what would break an address it were written into


def _server_port() -> int:
    """The manifest's own port where it is free."""
    with socket.socket() as probe:
        try:
            probe.bind(("127.0.0.1", 5000))
        except OSError:
            return free_port()
    return 5000


def _postgres_programs() -> Path | None:
    found = shutil.which("postgres")
    if found is not None and (Path(found).resolve().parent / "initdb").exists():
        return Path(found).resolve().parent
    folders = sorted(Path("/usr/lib/postgresql").glob("*/bin"), key=lambda p: int(p.parent.name))
    return folders[-1] if folders else None


@pytest.fixture(scope="module")
def postgres(tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    """The port of a Postgres whose user needs the password, as in components/postgres."""
    programs = _postgres_programs()
    if programs is None:
        pytest.skip("postgres is not here (apt install postgresql): MLflow was not run with it")
    folder = Path(tmp_path_factory.mktemp("postgres"))
    user: dict[str, Any] = {}
    if os.getuid() == 0:  # Postgres refuses root
        folder = Path(f"/tmp/graftline-postgres-{secrets.token_hex(4)}")
        folder.mkdir(mode=0o700)
        os.chown(folder, 65534, 65534)
        user = {"user": 65534, "group": 65534, "extra_groups": []}
    words = folder / "password"
    words.write_text(PASSWORD)
    words.chmod(0o644)
    data, port = folder / "data", free_port()
    initdb = [str(programs / "initdb"), "-D", str(data), "-U", "mlflow", "-N"]
    initdb += ["--auth=scram-sha-256", f"--pwfile={words}", "--encoding=UTF8", "--locale=C"]
    subprocess.run(initdb, check=True, capture_output=True, cwd=folder, **user)
    command = [str(programs / "postgres"), "-D", str(data), "-p", str(port), "-k", str(folder)]
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(
            [*command, "-c", "listen_addresses=127.0.0.1", "-F"],
            cwd=folder,
            stdout=log,
            stderr=log,
            **user,
        )
    try:
        yield port
    finally:
        process.send_signal(signal.SIGINT)
        process.wait(timeout=30)
        shutil.rmtree(folder, ignore_errors=True)


def _query(port: int, statement: str, database: str = "postgres") -> list[tuple[Any, ...]]:
    import psycopg2

    deadline = time.monotonic() + 30
    while True:
        try:
            connection = psycopg2.connect(
                host="127.0.0.1", port=port, user="mlflow", password=PASSWORD, dbname=database
            )
            break
        except psycopg2.OperationalError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.2)
    connection.autocommit = True
    with contextlib.closing(connection), connection.cursor() as cursor:
        cursor.execute(statement)
        return list(cursor.fetchall()) if cursor.description else []


@pytest.fixture
def database(postgres: int) -> str:
    """A fresh, empty database."""
    name = f"mlflow_{secrets.token_hex(4)}"
    _query(postgres, f"CREATE DATABASE {name}")
    return name


@pytest.fixture(scope="module")
def manifests() -> list[dict[str, Any]]:
    return rendered("dev")


Pod = tuple[list[str], dict[str, str]]


@pytest.fixture
def pod(
    manifests: list[dict[str, Any]], postgres: int, database: str, s3_server: str, s3_bucket: str
) -> Pod:
    """The container's command and environment as the kubelet makes them from the manifest."""
    (deployment,) = [
        m for m in manifests if m["kind"] == "Deployment" and m["metadata"]["name"] == "mlflow"
    ]
    (container,) = deployment["spec"]["template"]["spec"]["containers"]
    settings = {m["metadata"]["name"]: m["data"] for m in manifests if m["kind"] == "ConfigMap"}
    settings["graftline-settings"]["artifacts-destination"] = f"{s3_bucket}/artifacts"
    stored = {
        "mlflow-database": {
            "host": "127.0.0.1",
            "port": str(postgres),
            "database": database,
            "user": "mlflow",
            "password": PASSWORD,
        },
        "graftline-s3": {"access-key": "test-key", "secret-key": "test-secret"},
    }
    environment = {"PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
    for entry in container["env"]:
        if "value" in entry:
            environment[entry["name"]] = entry["value"]
        elif "configMapKeyRef" in entry["valueFrom"]:
            source = entry["valueFrom"]["configMapKeyRef"]
            environment[entry["name"]] = settings[source["name"]][source["key"]]
        else:
            source = entry["valueFrom"]["secretKeyRef"]
            environment[entry["name"]] = stored[source["name"]][source["key"]]
    environment["AWS_ENDPOINT_URL_S3"] = s3_server  # the service `s3` is this process
    command = [*container["command"], *container["args"]]
    assert "$(" not in " ".join(command), "nothing that only a kubelet could fill in"
    return command, environment


def _with_port(command: list[str], port: int) -> list[str]:
    return [re.sub(r"\b5000\b", str(port), word) for word in command]


Start = Callable[[Pod, int], "subprocess.Popen[bytes]"]


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    """Starts the server as a process of its own, in an empty folder."""
    running: list[subprocess.Popen[bytes]] = []

    def begin(pod: Pod, port: int) -> "subprocess.Popen[bytes]":
        folder = tmp_path / f"server-{len(running)}"
        folder.mkdir()
        with (folder / "log").open("wb") as log:
            process = subprocess.Popen(
                _with_port(pod[0], port),
                env={**pod[1], "HOME": str(folder)},
                cwd=folder,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        running.append(process)
        return process

    yield begin
    for process in running:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGTERM)
        try:
            process.wait(timeout=15)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def _answers(port: int, seconds: float = 0) -> bool:
    deadline = time.monotonic() + seconds
    while True:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=2):
                return True
        except OSError:
            if time.monotonic() >= deadline:
                return False
            time.sleep(0.3)


SEARCH = "/api/2.0/mlflow/experiments/search?max_results=1"


def _ask(port: int, host: str, path: str = SEARCH) -> int:
    request = urllib.request.Request(f"http://127.0.0.1:{port}{path}", headers={"Host": host})
    try:
        with urllib.request.urlopen(request, timeout=20) as answer:
            return int(answer.status)
    except urllib.error.HTTPError as error:
        return error.code


def _processes_of(leader: int) -> dict[int, str]:
    """The command lines of a session's processes."""
    found = {}
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit():
            with contextlib.suppress(OSError):
                if os.getsid(int(folder.name)) == leader:
                    words = (folder / "cmdline").read_bytes().split(b"\0")
                    found[int(folder.name)] = b" ".join(words).decode()
    return found


def test_the_server_serves_its_names_only_and_keeps_artifacts_in_s3(
    pod: Pod, start: Start, postgres: int, database: str, s3_bucket: str, tmp_path: Path
) -> None:
    port = _server_port()
    server = start(pod, port)
    assert _answers(port, 120), (tmp_path / "server-0" / "log").read_text()[-2000:]

    for name in ("mlflow", "mlflow.graftline", "mlflow.graftline.svc.cluster.local"):
        assert _ask(port, name) == 200
        assert _ask(port, f"{name}:{port}") == 200
    for name in ("evil.example.com", f"evil.example.com:{port}", "10.1.2.3", "mlflow.graftline:80"):
        assert _ask(port, name) == 403, name
    assert _ask(port, f"10.1.2.3:{port}", "/health") == 200, (
        "the kubelet's probe names the pod's IP"
    )

    lines = _processes_of(server.pid)
    assert len(lines) >= 3, "the server and its two workers"
    assert not any(PASSWORD in line for line in lines.values()), "a password in a command line"
    assert not any(word in line for line in lines.values() for word in ("huey", "jobs", "periodic"))

    _track(port, tmp_path)
    tables = _query(postgres, "SELECT key, value FROM params", database)
    assert tables == [("backbone", "tf_efficientnet_lite0")]
    assert _objects(s3_bucket) == [b"<html>report</html>"]


CLIENT = """
import json, sys
from pathlib import Path
import mlflow
uri, folder = sys.argv[1], Path(sys.argv[2])
client = mlflow.MlflowClient(uri)
run = client.create_run(client.create_experiment("digits"), run_name="first")
client.log_param(run.info.run_id, "backbone", "tf_efficientnet_lite0")
client.log_metric(run.info.run_id, "accuracy", 0.97)
(folder / "report.html").write_text("<html>report</html>")
client.log_artifact(run.info.run_id, str(folder / "report.html"))
mlflow.set_tracking_uri(uri)
down = mlflow.artifacts.download_artifacts
back = Path(down(run_id=run.info.run_id, artifact_path="report.html"))
client.create_registered_model("digits")
version = client.create_model_version("digits", run.info.artifact_uri, run.info.run_id)
client.set_registered_model_alias("digits", "champion", version.version)
print(json.dumps({
    "back": back.read_text(), "artifact_uri": run.info.artifact_uri,
    "champion": client.get_model_version_by_alias("digits", "champion").version,
}))
"""


def _track(port: int, folder: Path) -> None:
    """Track from a client that has no key to S3 at all."""
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("AWS_", "MLFLOW_"))}
    done = subprocess.run(
        [sys.executable, "-c", CLIENT, f"http://127.0.0.1:{port}", str(folder)],
        env={**environment, "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1", "HOME": str(folder)},
        cwd=folder,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    told = json.loads(done.stdout.splitlines()[-1])
    assert told["back"] == "<html>report</html>"
    assert told["artifact_uri"].startswith("mlflow-artifacts:")
    assert told["champion"] == "1" or told["champion"] == 1


def _objects(bucket: str) -> list[bytes]:
    import boto3

    client, name = boto3.client("s3"), bucket.removeprefix("s3://")
    listed = client.list_objects_v2(Bucket=name, Prefix="artifacts/").get("Contents", [])
    return [client.get_object(Bucket=name, Key=o["Key"])["Body"].read() for o in listed]


@pytest.mark.slow
def test_two_replicas_start_together_on_an_empty_database(
    pod: Pod, start: Start, postgres: int, database: str, tmp_path: Path
) -> None:
    ports = (free_port(), free_port())
    servers = {port: start(pod, port) for port in ports}
    deadline = time.monotonic() + 240
    while time.monotonic() < deadline and not all(_answers(port) for port in ports):
        for port, server in list(servers.items()):
            if server.poll() is not None:  # the kubelet starts it again
                servers[port] = start(pod, port)
        time.sleep(1)
    assert all(_answers(port) for port in ports)
    assert [_ask(port, f"127.0.0.1:{port}") for port in ports] == [200, 200]
    heads = _query(postgres, "SELECT count(*) FROM alembic_version", database)
    assert heads == [(1,)]


@pytest.mark.slow
def test_the_training_pipeline_tracks_and_promotes_through_it(
    pod: Pod,
    start: Start,
    s3_bucket: str,
    make_digits_folder: Callable[..., Path],
    tmp_path: Path,
) -> None:
    port = _server_port()
    start(pod, port)
    assert _answers(port, 120), (tmp_path / "server-0" / "log").read_text()[-2000:]
    run_file = tmp_path / "run.yaml"
    run_file.write_text(
        yaml.safe_dump(
            {
                "name": "digits",
                "data": {"source": str(make_digits_folder(per_class=40, classes=3))},
                "store": f"{s3_bucket}/store",
                "tracking": {"uri": f"http://127.0.0.1:{port}"},
                "strategy": "probe",
                "evaluation": {"bootstrap": 100, "robustness_images": 0},
            }
        )
    )
    code = "from graftline_pipelines.cli.main import main; main()"
    done = subprocess.run(
        [sys.executable, "-c", code, "run", str(run_file), "--json"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    result = json.loads(done.stdout.splitlines()[-1])
    assert result["registered"] == {"name": "digits", "version": "1", "alias": "champion"}
    assert any(b"<html" in body.lower() for body in _objects(s3_bucket)), "the report is in S3"

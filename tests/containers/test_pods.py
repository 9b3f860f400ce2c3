"""The rendered MLflow and Postgres pods, run by `podman kube play` with their own hardening."""

import base64
import contextlib
import json
import socket
import subprocess
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from tests.support.kubernetes import rendered

pytestmark = [pytest.mark.containers, pytest.mark.timeout(3600)]

REPOSITORY = Path(__file__).parents[2]
POSTGRES = "docker.io/library/postgres:17-bookworm"
# What the image of Postgres promises its users, over Debian's packages: for machines that cannot
# pull it. Its own entry point is a shell script that does these same steps and more.
ENTRY_POINT = """\
#!/bin/sh
set -eu
if [ ! -s "$PGDATA/PG_VERSION" ]; then
    umask 077
    mkdir -p "$PGDATA"
    printf %s "$POSTGRES_PASSWORD" > /tmp/password
    initdb -D "$PGDATA" -U "$POSTGRES_USER" --pwfile=/tmp/password $POSTGRES_INITDB_ARGS
    rm /tmp/password
    echo "host all all all scram-sha-256" >> "$PGDATA/pg_hba.conf"
    pg_ctl -D "$PGDATA" -o "-c listen_addresses= -k /tmp" -w start
    PGPASSWORD=$POSTGRES_PASSWORD createdb -h /tmp -U "$POSTGRES_USER" "$POSTGRES_DB"
    pg_ctl -D "$PGDATA" -m fast -w stop
fi
exec postgres -D "$PGDATA" -c "listen_addresses=*" "$@"
"""
STAND_IN = """\
FROM {base}
RUN apt-get update -q && DEBIAN_FRONTEND=noninteractive apt-get install -qy \\
        --no-install-recommends postgresql && ln -s /usr/lib/postgresql/*/bin/* /usr/local/bin/ ; \\
    mkdir -p /var/lib/postgresql/data /var/run/postgresql \\
    && chmod 1777 /var/lib/postgresql/data && chmod 3777 /var/run/postgresql
COPY entrypoint.sh /usr/local/bin/docker-entrypoint.sh
ENTRYPOINT ["docker-entrypoint.sh"]
"""
Podman = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture(scope="session")
def postgres_image(
    podman: Podman, python_image: str, tmp_path_factory: pytest.TempPathFactory
) -> str:
    """The official image, or one that keeps its promises."""
    if podman("image", "exists", POSTGRES, check=False).returncode == 0:
        return POSTGRES
    if podman("pull", "--quiet", POSTGRES, check=False).returncode == 0:
        return POSTGRES
    folder = tmp_path_factory.mktemp("postgres")
    (folder / "entrypoint.sh").write_text(ENTRY_POINT)
    (folder / "entrypoint.sh").chmod(0o755)
    (folder / "Dockerfile").write_text(STAND_IN.format(base=python_image))
    podman("build", "--network=host", "--pull=false", "-t", POSTGRES, str(folder))
    return POSTGRES


@pytest.fixture(scope="session")
def manifests() -> list[dict[str, Any]]:
    return rendered("dev")


def _named(manifests: list[dict[str, Any]], kind: str, name: str) -> dict[str, Any]:
    (found,) = [m for m in manifests if m["kind"] == kind and m["metadata"]["name"] == name]
    return found


def _pod(owner: dict[str, Any], image: str) -> dict[str, Any]:
    """The pod that a controller makes; on this machine's network, where services have no names."""
    template = owner["spec"]["template"]
    spec = {**template["spec"], "hostNetwork": True}
    for claim in owner["spec"].get("volumeClaimTemplates", []):
        name = claim["metadata"]["name"]
        volume = {"name": name, "persistentVolumeClaim": {"claimName": f"graftline-test-{name}"}}
        spec["volumes"] = [*spec["volumes"], volume]
    for container in spec["containers"]:
        container["image"] = image
        # The kubelet's: podman maps ports on no host network, and probes by a curl in the image.
        for key in ("ports", "startupProbe", "readinessProbe", "livenessProbe"):
            container.pop(key, None)
        for entry in container["env"]:
            if entry["name"] == "AWS_ENDPOINT_URL_S3":
                entry["value"] = "http://127.0.0.1:{s3_port}"
    metadata = {"name": f"graftline-test-{owner['metadata']['name']}", **template["metadata"]}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec}


def _make_secret(podman: Podman, folder: Path, name: str, **values: str) -> list[dict[str, Any]]:
    """A secret as `podman kube play` finds it: a document, or podman's own before version 4.4."""
    data = {key: base64.b64encode(value.encode()).decode() for key, value in values.items()}
    version = podman("version", "--format", "{{.Client.Version}}").stdout.split(".")
    if (int(version[0]), int(version[1])) >= (4, 4):
        return [{"apiVersion": "v1", "kind": "Secret", "metadata": {"name": name}, "data": data}]
    (folder / name).write_text(json.dumps(data))
    podman("secret", "rm", name, check=False)
    podman("secret", "create", name, str(folder / name))
    return []


def _answers(url: str, seconds: float) -> bool:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        with contextlib.suppress(OSError), urllib.request.urlopen(url, timeout=3):
            return True
        time.sleep(0.5)
    return False


@pytest.fixture
def played(
    podman: Podman,
    manifests: list[dict[str, Any]],
    mlflow_image: str,
    postgres_image: str,
    s3_server: str,
    s3_bucket: str,
    tmp_path: Path,
) -> Iterator[None]:
    """Both pods, up."""
    for port in (5000, 5432):
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                pytest.skip(f"port {port} of this machine is taken: the pods were not run")
    _clean(podman)
    settings = _named(manifests, "ConfigMap", "graftline-settings")
    settings["data"]["artifacts-destination"] = f"{s3_bucket}/artifacts"
    database = {"host": "127.0.0.1", "port": "5432", "database": "mlflow", "user": "mlflow"}
    keys = {"access-key": "test-key", "secret-key": "test-secret"}
    documents = [
        *_make_secret(podman, tmp_path, "mlflow-database", **database, password="a word of it"),
        *_make_secret(podman, tmp_path, "graftline-s3", **keys),
        settings,
        _pod(_named(manifests, "StatefulSet", "postgres"), postgres_image),
        _pod(_named(manifests, "Deployment", "mlflow"), mlflow_image),
    ]
    text = yaml.safe_dump_all(documents).replace("{s3_port}", s3_server.rpartition(":")[2])
    file = tmp_path / "pods.yaml"
    file.write_text(text)
    try:
        podman("kube", "play", "--network", "host", str(file))
        yield
    finally:
        _clean(podman)


def _clean(podman: Podman) -> None:
    for name in ("mlflow", "postgres"):
        podman("pod", "rm", "--force", "--time", "5", f"graftline-test-{name}", check=False)
    for secret in ("mlflow-database", "graftline-s3"):
        podman("secret", "rm", secret, check=False)
    listed = podman("volume", "ls", "--quiet", "--filter", "dangling=true").stdout.split()
    ours = {"graftline-test-data", "tmp", "run", "graftline-settings"}
    for volume in ours & set(listed):
        podman("volume", "rm", "--force", volume, check=False)


def _state(podman: Podman, name: str) -> dict[str, Any]:
    listed = podman("ps", "--all", "--filter", f"name={name}", "--format", "{{.Names}}").stdout
    (container,) = [line for line in listed.split() if not line.endswith("-infra")]
    (state,) = json.loads(podman("container", "inspect", container).stdout)
    return dict(state)


def test_the_pods_run_as_they_are_written(
    podman: Podman, played: None, s3_bucket: str, tmp_path: Path
) -> None:
    import boto3
    import mlflow

    up = _answers("http://127.0.0.1:5000/health", 180)
    logs = podman("logs", _state(podman, "graftline-test-mlflow")["Name"], check=False)
    assert up, (logs.stdout + logs.stderr)[-3000:]

    for name, user in (("graftline-test-mlflow", "10001"), ("graftline-test-postgres", "10002")):
        state = _state(podman, name)
        assert state["State"]["Running"]
        assert state["Config"]["User"].split(":")[0] == user
        assert state["HostConfig"]["ReadonlyRootfs"] is True
        assert state["EffectiveCaps"] in ([], None)
        assert state["BoundingCaps"] in ([], None)

    client = mlflow.MlflowClient("http://127.0.0.1:5000")
    run = client.create_run(client.create_experiment("pods")).info
    client.log_metric(run.run_id, "accuracy", 0.5)
    (tmp_path / "report.txt").write_text("kept")
    client.log_artifact(run.run_id, str(tmp_path / "report.txt"))
    listed = boto3.client("s3").list_objects_v2(
        Bucket=s3_bucket.removeprefix("s3://"), Prefix="artifacts/"
    )
    assert [entry["Size"] for entry in listed["Contents"]] == [4]
    assert client.get_run(run.run_id).data.metrics == {"accuracy": 0.5}

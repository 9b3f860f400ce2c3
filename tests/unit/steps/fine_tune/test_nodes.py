"""Training on several nodes: the TrainJob that is made, and the training that its nodes do.

The cluster is a small API server that keeps what it is sent; what it keeps is held against the
CRD's own schema. The training itself runs in the SDK's local backend, two processes of torchrun.
"""

import hashlib
import json
import sys
import threading
from collections.abc import Callable, Iterator
from dataclasses import asdict
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

from graftline.errors import ConfigurationError, TrainingError
from graftline.steps.fine_tune import nodes
from graftline.steps.fine_tune.nodes import NodePod, pod_of, pod_values, train_on_nodes
from graftline.storage import open_store

CRD = Path(__file__).parents[5] / "shared" / "crds" / "trainer.kubeflow.org_trainjobs.yaml"
TRAINER = "/apis/trainer.kubeflow.org/v1alpha1"
JOBS = f"{TRAINER}/namespaces/ns/trainjobs"
RUNTIMES = f"{TRAINER}/namespaces/ns/trainingruntimes/torch-distributed"
TORCHRUN = str(Path(sys.executable).parent / "torchrun")
POD = NodePod(
    image="registry/graftline:gpu@sha256:0",
    resources={"nvidia.com/gpu": 2, "cpu": "4", "memory": "16Gi"},
    variables={"AWS_REGION": "eu-west-1"},
    secrets={"AWS_SECRET_ACCESS_KEY": ("graftline-s3", "secret")},
    node_selector={"pool": "gpu"},
    tolerations=[{"key": "nvidia.com/gpu", "operator": "Exists", "effect": "NoSchedule"}],
    service_account="graftline-pipeline",
    pull_secrets=["registry"],
    labels={"graftline.dev/pool": "gpu"},
)
RUNTIME = yaml.safe_load(
    (
        Path(__file__).parents[4] / "k8s" / "components" / "training-nodes" / "runtime.yaml"
    ).read_text()
)


class Cluster(ThreadingHTTPServer):
    """Keeps TrainJobs; each look at one takes the next of ``statuses``."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.jobs: dict[str, Any] = {}
        self.made: list[Any] = []
        self.deleted: list[str] = []
        self.statuses: list[str] = ["Created", "Running", "Complete"]
        self.refused: dict[str, int] = {}
        self.installed = True

    def client(self) -> Any:
        from kubeflow.common.types import KubernetesBackendConfig
        from kubeflow.trainer import TrainerClient
        from kubernetes import client

        own = client.Configuration(host=f"http://127.0.0.1:{self.server_port}")
        config = KubernetesBackendConfig(namespace="ns", client_configuration=own)
        return TrainerClient(backend_config=config)

    def job(self, name: str) -> Any:
        found = self.jobs[name]
        status = self.statuses.pop(0) if len(self.statuses) > 1 else self.statuses[0]
        kinds = {"Complete": "Complete", "Failed": "Failed"}
        conditions = [
            {
                "type": kinds[status],
                "status": "True",
                "reason": "x",
                "message": "y",
                "lastTransitionTime": "2026-01-01T00:00:00Z",
            }
        ]
        return {**found, "status": {"conditions": conditions if status in kinds else []}}


class _Handler(BaseHTTPRequestHandler):
    server: Cluster

    def log_message(self, *_: Any) -> None:
        pass

    def _send(self, content: Any, status: int = 200) -> None:
        data = json.dumps(content).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def do_GET(self) -> None:
        path, server = self.path.partition("?")[0], self.server
        if path in server.refused:
            self._send({}, server.refused[path])
        elif path == RUNTIMES and server.installed:
            self._send(RUNTIME)
        elif path.startswith(f"{JOBS}/") and path.rpartition("/")[2] in server.jobs:
            self._send(server.job(path.rpartition("/")[2]))
        elif path == "/api/v1/namespaces/ns/pods":
            self._send({"kind": "PodList", "apiVersion": "v1", "metadata": {}, "items": []})
        else:
            self._send({"kind": "Status"}, 404)

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        if self.path in self.server.refused:
            self._send({}, self.server.refused[self.path])
            return
        self.server.made.append(body)
        kept = json.loads(json.dumps(body))
        kept["metadata"] |= {"namespace": "ns", "creationTimestamp": "2026-01-01T00:00:00Z"}
        self.server.jobs[body["metadata"]["name"]] = kept
        self._send(kept, 201)

    def do_DELETE(self) -> None:
        name = self.path.partition("?")[0].rpartition("/")[2]
        self.server.jobs.pop(name, None)
        self.server.deleted.append(name)
        self._send({"kind": "Status", "status": "Success"})


@pytest.fixture
def cluster(monkeypatch: pytest.MonkeyPatch) -> Iterator[Cluster]:
    monkeypatch.setattr(nodes, "SECONDS", 0.01)
    server = Cluster()
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture
def order(tmp_path: Path) -> dict[str, Any]:
    for folder in ("snapshot", "probe"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "a.json").write_text(folder)
    (tmp_path / "decision.json").write_text("{}")
    return {
        "snapshot_folder": str(tmp_path / "snapshot"),
        "probe_folder": str(tmp_path / "probe"),
        "decision_file": str(tmp_path / "decision.json"),
        "store": str(tmp_path / "store"),
        "strategy": "fine_tune",
        "settings": {"epochs": 2, "unfreeze": 0.5, "flip": True},
        "checkpoint_key": None,
    }


def _schema() -> Any:
    if not CRD.is_file():
        pytest.skip("Kubeflow Trainer's CRD is not at shared/crds: the TrainJob was not checked")
    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    crd = yaml.load(CRD.read_text(), Loader=loader)
    (version,) = (v for v in crd["spec"]["versions"] if v["name"] == "v1alpha1")
    schema = _strict(version["schema"]["openAPIV3Schema"])
    schema["properties"]["metadata"] = {"type": "object"}
    return schema


def _strict(schema: Any) -> Any:
    """A CRD's schema as JSON schema that refuses unknown fields."""
    if isinstance(schema, list):
        return [_strict(item) for item in schema]
    if not isinstance(schema, dict):
        return schema
    if schema.get("x-kubernetes-int-or-string"):
        return {"type": ["integer", "string"]}
    result = {key: _strict(value) for key, value in schema.items()}
    if isinstance(schema.get("properties"), dict):
        result.setdefault("additionalProperties", "x-kubernetes-preserve-unknown-fields" in schema)
    return result


def test_the_train_job_keeps_to_the_schema_and_says_what_the_pool_says(
    cluster: Cluster, order: dict[str, Any]
) -> None:
    train_on_nodes(order, "identity", 3, POD, cluster.client())
    (made,) = cluster.made
    jsonschema.Draft202012Validator(_schema()).validate(made)
    trainer = made["spec"]["trainer"]
    assert made["spec"]["runtimeRef"]["name"] == "torch-distributed"
    assert trainer["numNodes"] == 3
    assert trainer["image"] == POD.image
    assert trainer["resourcesPerNode"]["limits"]["nvidia.com/gpu"] == 2
    (patch,) = made["spec"]["runtimePatches"]
    (job,) = patch["trainingRuntimeSpec"]["template"]["spec"]["replicatedJobs"]
    pod = job["template"]["spec"]["template"]["spec"]
    assert pod["serviceAccountName"] == "graftline-pipeline"
    assert pod["nodeSelector"] == {"pool": "gpu"}
    assert pod["tolerations"] == POD.tolerations
    assert pod["containers"][0]["env"][0]["valueFrom"]["secretKeyRef"]["name"] == "graftline-s3"
    script = "\n".join(trainer["command"])
    sent = script[script.index("def on_node") : script.index("\non_node(**")]
    exec(sent, {})  # it must know no name of the module that it was taken from
    assert "'flip': True" in script  # numbers and flags keep their type
    assert cluster.deleted == [made["metadata"]["name"]]


def test_the_inputs_are_in_the_store_while_the_nodes_train_and_gone_afterwards(
    cluster: Cluster, order: dict[str, Any]
) -> None:
    cluster.statuses = ["Failed"]
    store = open_store(order["store"])
    with pytest.raises(TrainingError, match="failed"):
        train_on_nodes(order, "identity", 2, POD, cluster.client())
    kept = {info.key: store.read(info.key) for info in store.list("train-jobs/identity")}
    for key, data in kept.items():
        assert key == f"train-jobs/identity/objects/{hashlib.sha256(data).hexdigest()}"
    files = [Path(order[name]) for name in ("snapshot_folder", "probe_folder", "decision_file")]
    there = {(p / "a.json" if p.is_dir() else p).read_bytes() for p in files}
    assert set(kept.values()) == there
    cluster.statuses = ["Failed", "Failed", "Complete"]  # it is made again under the same name
    train_on_nodes(order, "identity", 2, POD, cluster.client())
    assert len(cluster.made) == 2
    assert not list(store.list("train-jobs"))


def test_a_step_that_is_tried_again_follows_the_job_that_runs(
    cluster: Cluster, order: dict[str, Any]
) -> None:
    cluster.statuses = ["Failed"]
    with pytest.raises(TrainingError):
        train_on_nodes(order, "identity", 2, POD, cluster.client())
    cluster.statuses = ["Running", "Running", "Complete"]
    train_on_nodes(order, "identity", 2, POD, cluster.client())
    assert len(cluster.made) == 1


def test_what_is_missing_is_named(cluster: Cluster, order: dict[str, Any]) -> None:
    cluster.installed = False
    with pytest.raises(ConfigurationError, match="not on this cluster"):
        train_on_nodes(order, "identity", 2, POD, cluster.client())
    cluster.installed, cluster.refused = True, {JOBS: 403}
    with pytest.raises(ConfigurationError, match="may not make a TrainJob"):
        train_on_nodes(order, "identity", 2, POD, cluster.client())


def test_a_pod_survives_json() -> None:
    back = pod_of(json.loads(json.dumps(pod_values(POD))))
    assert json.dumps(asdict(back)) == json.dumps(asdict(POD))
    assert pod_of(None) == NodePod()


@pytest.mark.slow
def test_two_processes_of_the_sdks_local_backend_train_what_one_trains(
    fitted: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    from kubeflow.trainer import LocalProcessBackendConfig, TrainerClient
    from kubeflow.trainer.backends.localprocess import constants

    # Its runtime is a fresh environment without torch; ours is the one to test.
    command = f"{TORCHRUN} --standalone --nproc-per-node 2"
    monkeypatch.setattr(constants, "TORCH_COMMAND", command)
    monkeypatch.setattr(nodes, "SECONDS", 0.5)
    monkeypatch.setattr(nodes, "_client", lambda: TrainerClient(LocalProcessBackendConfig()))
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    # In bf16 half a batch is rounded otherwise than a whole one: up to 0.3% of the loss.
    alone = fitted(epochs=2, precision="fp32")
    seen: list[Any] = []
    together = fitted(
        epochs=2, precision="fp32", nodes=2, on_epoch=seen.append, checkpoint_key="together"
    )
    assert together.val_accuracy == pytest.approx(alone.val_accuracy, abs=0.05)
    assert [h["train_loss"] for h in together.history] == pytest.approx(
        [h["train_loss"] for h in alone.history], rel=1e-4
    )
    assert [figures["epoch"] for figures in seen] == [1, 2]

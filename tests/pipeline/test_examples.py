"""Every file in examples/ validates and compiles, and says of its nodes what its platform needs."""

import json
import re
import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml
from tests.pipeline.conftest import EXAMPLES, PLANTED

from graftline_pipelines.cluster import package as package_module
from graftline_pipelines.cluster.package import build, check, image_problems
from graftline_pipelines.graphs.compile import GraphName
from graftline_pipelines.runfile.load import load
from graftline_pipelines.runfile.pools import pool_name
from graftline_pipelines.runfile.quantities import to_bytes

FILES = sorted(path.name for path in EXAMPLES.glob("*.yaml"))
CLUSTERS = sorted(set(FILES) - {"digits.yaml"})

GPU = {
    "gke.yaml": {
        "selector": {"cloud.google.com/gke-accelerator": "nvidia-l4"},
        "tolerations": {
            ("nvidia.com/gpu", "Exists", None),
            ("cloud.google.com/gke-spot", "Equal", "true"),
        },
        "count": "1",
    },
    "eks-karpenter.yaml": {
        "selector": {"graftline.dev/pool": "gpu-spot"},
        "any_of": {"karpenter.k8s.aws/instance-family": ["g5", "g6"]},
        "tolerations": {("nvidia.com/gpu", "Equal", "true")},
        "count": "1",
    },
    "aks.yaml": {
        "selector": {
            "graftline.dev/pool": "gpu-spot",
            "kubernetes.azure.com/scalesetpriority": "spot",
        },
        "tolerations": {
            ("sku", "Equal", "gpu"),
            ("kubernetes.azure.com/scalesetpriority", "Equal", "spot"),
        },
        "count": "1",
    },
    "bare-metal.yaml": {
        "selector": {"graftline.dev/pool": "gpu"},
        "any_of": {"nvidia.com/gpu.product": ["NVIDIA-L40S", "NVIDIA-RTX-A6000"]},
        "tolerations": {("nvidia.com/gpu", "Exists", None)},
        "count": "2",
    },
}


def containers(documents: list[Any]) -> dict[str, Any]:
    """The container of each executor, by step."""
    executors = documents[0]["deploymentSpec"]["executors"]
    return {step_of(name): one["container"] for name, one in executors.items()}


def platforms(documents: list[Any]) -> dict[str, Any]:
    """What Kubernetes is told of each executor, by step."""
    executors = documents[1]["platforms"]["kubernetes"]["deploymentSpec"]["executors"]
    return {step_of(name): one for name, one in executors.items()}


def step_of(executor: str) -> str:
    return re.sub(r"-\d+$", "", executor.removeprefix("exec-")).replace("-", "_")


def test_there_is_a_preset_for_each_platform() -> None:
    assert set(GPU) == set(CLUSTERS)


@pytest.mark.parametrize("name", FILES)
def test_it_validates_and_compiles(compiled: Any, name: str) -> None:
    settings, documents, _ = compiled(name)
    assert documents[0]["pipelineInfo"]["name"] == settings.name
    assert {"ingest", "fit_head", "evaluate", "export_onnx", "promote"} <= set(
        containers(documents)
    )


@pytest.mark.parametrize("graph", ["train", "retrain"])
@pytest.mark.parametrize("name", CLUSTERS)
def test_it_can_be_submitted(
    compiled: Any, name: str, graph: GraphName, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All that is checked before anything is sent: server rules, places, images."""
    settings, _, path = compiled(name, graph)
    monkeypatch.setattr(package_module, "compile_to", lambda *to: shutil.copy(path, to[-1]))
    package = build(settings, graph, tmp_path)
    check(package, settings, {})
    assert image_problems(package.images, require_digest=False) == []


@pytest.mark.parametrize("name", CLUSTERS)
def test_images_can_be_pinned(name: str, tmp_path: Path) -> None:
    settings = load(EXAMPLES / name)
    digests = {"tag": f"sha256:{'a' * 64}", "gpu_tag": f"sha256:{'b' * 64}"}
    images = settings.images.model_copy(update=digests)
    pinned = settings.model_copy(update={"images": images})
    pins = build(pinned, "train", tmp_path).images
    assert len(pins) == 2 and image_problems(pins, require_digest=True) == []


@pytest.mark.parametrize("name", CLUSTERS)
def test_gpu_steps_ask_for_the_right_nodes(compiled: Any, name: str) -> None:
    settings, documents, _ = compiled(name)
    wanted, steps = GPU[name], platforms(documents)
    on_gpu = {step for step in steps if pool_name(step, settings.assign) != "default"}
    on_gpu -= {step for step in on_gpu if pool_name(step, settings.assign) == "small"}
    assert "fine_tune" in on_gpu
    for step in on_gpu:
        resources = containers(documents)[step]["resources"]
        accelerator = resources["accelerator"]
        assert accelerator["resourceType"] == "nvidia.com/gpu"
        assert accelerator["resourceCount"] == wanted["count"]
        assert "graftline-gpu:" in containers(documents)[step]["image"]
        told = steps[step]
        assert told["nodeSelector"]["labels"] == wanted["selector"]
        tolerations = {
            (one["key"], one["operator"], one.get("value")) for one in told["tolerations"]
        }
        assert tolerations == wanted["tolerations"]
        assert {one["effect"] for one in told["tolerations"]} == {"NoSchedule"}
        terms = [
            {term["key"]: term["values"]}
            for affinity in told.get("nodeAffinity", [])
            for term in affinity["matchExpressions"]
        ]
        assert terms == ([wanted["any_of"]] if "any_of" in wanted else [])
        assert told["podMetadata"]["labels"]["kueue.x-k8s.io/queue-name"] == "graftline-gpu"
        mounts = {one["mountPath"]: one for one in told["emptyDirMounts"]}
        assert mounts["/dev/shm"]["medium"] == "Memory"
        assert to_bytes(mounts["/scratch"]["sizeLimit"]) <= ephemeral_storage()


def ephemeral_storage() -> int:
    """What k8s/ lets a container write to the node's disk before it is evicted."""
    quota = (EXAMPLES.parent / "k8s" / "base" / "quota.yaml").read_text()
    (limits,) = [one for one in yaml.safe_load_all(quota) if one["kind"] == "LimitRange"]
    return to_bytes(limits["spec"]["limits"][0]["default"]["ephemeral-storage"])


@pytest.mark.parametrize("graph", ["train", "retrain"])
@pytest.mark.parametrize("name", CLUSTERS)
def test_other_steps_ask_for_nothing_special(compiled: Any, name: str, graph: GraphName) -> None:
    settings, documents, _ = compiled(name, graph)
    plain = {
        step
        for step in platforms(documents)
        if pool_name(step, settings.assign) in ("default", "small")
    }
    assert {"ingest", "promote"} <= plain
    for step in plain:
        assert "accelerator" not in containers(documents)[step].get("resources", {})
        assert "graftline-cpu:" in containers(documents)[step]["image"]
        assert not platforms(documents)[step].get("tolerations")
        assert not platforms(documents)[step].get("nodeSelector")


@pytest.mark.parametrize("graph", ["train", "retrain"])
@pytest.mark.parametrize("name", CLUSTERS)
def test_nothing_secret_is_compiled(compiled: Any, name: str, graph: GraphName) -> None:
    """Secrets by name only, whatever the environment of whoever compiles holds."""
    documents = compiled(name, graph)[1]
    text = json.dumps(documents)
    assert PLANTED not in text
    assert not re.search(r"AKIA[0-9A-Z]{16}|://[^/\s\"']*@", text)
    for container in containers(documents).values():
        for variable in container.get("env", []):
            assert variable["name"] in ("AWS_ENDPOINT_URL_S3", "AWS_REGION", "TMPDIR")


@pytest.mark.parametrize("name", CLUSTERS)
def test_every_step_runs_as_the_images_user(compiled: Any, name: str) -> None:
    for told in platforms(compiled(name)[1]).values():
        context = told["securityContext"]
        assert context["runAsNonRoot"] and str(context["runAsUser"]) == "10001"


@pytest.mark.parametrize("name", CLUSTERS)
def test_names_agree_with_the_manifests(name: str) -> None:
    """The run files and k8s/ speak of the same queue, accounts, services and secrets."""
    k8s = EXAMPLES.parent / "k8s"
    manifests = "\n".join(path.read_text() for path in k8s.rglob("*.yaml"))
    settings = load(EXAMPLES / name)
    names = {settings.cluster.service_account, *settings.cluster.secrets}
    names |= {pool.queue for pool in settings.pools.values() if pool.queue}
    for used in names:
        assert re.search(rf"name: {used}\b", manifests), used
    assert settings.tracking.uri == "http://mlflow.graftline:5000"
    assert settings.tracking.uri in manifests

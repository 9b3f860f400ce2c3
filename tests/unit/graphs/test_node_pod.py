"""A training on several nodes in the compiled graph: what its pods ask for, and who waits."""

import json
from pathlib import Path
from typing import Any

import yaml

from graftline_pipelines.graphs.compile import compile_to
from graftline_pipelines.runfile.settings import RunSettings

POOL = {
    "accelerator": "nvidia.com/gpu",
    "accelerator_count": 2,
    "cpu": "6",
    "memory": "24Gi",
    "node_selectors": {"zone": "a", "family": ["g5", "g6"]},
    "tolerations": [{"key": "nvidia.com/gpu", "operator": "Exists", "effect": "NoSchedule"}],
    "queue": "gpus",
}


def compiled(tmp_path: Path, nodes: int) -> tuple[dict[str, Any], Any, Any]:
    """The step's configuration, its container, and its Kubernetes settings."""
    settings = RunSettings.model_validate(
        {
            "name": "x",
            "data": {"source": "s3://b/images"},
            "store": "s3://b/store",
            "tracking": {"uri": "http://mlflow:5000"},
            "backbone": "timm/test_resnet",
            "strategy": "fine_tune",
            "images": {"registry": "example.com", "tag": "1"},
            "pools": {"gpu": POOL},
            "assign": {"fine_tune": "gpu"},
            "cluster": {
                "service_account": "graftline-pipeline",
                "secrets": {"graftline-s3": {"key": "AWS_SECRET_ACCESS_KEY"}},
            },
            "fine_tune": {"nodes": nodes},
        }
    )
    path = tmp_path / "pipeline.yaml"
    compile_to(settings, "train", path)
    spec, platform = yaml.safe_load_all(path.read_text())
    task = spec["root"]["dag"]["tasks"]["fine-tune"]
    config = task["inputs"]["parameters"]["config"]["runtimeValue"]["constant"]
    container = spec["deploymentSpec"]["executors"]["exec-fine-tune"]["container"]
    executors = platform["platforms"]["kubernetes"]["deploymentSpec"]["executors"]
    return json.loads(config), container, executors["exec-fine-tune"]


def test_one_node_is_the_steps_own(tmp_path: Path) -> None:
    config, container, _ = compiled(tmp_path, 1)
    assert "nodes" not in config and "node_pod" not in config
    assert container["resources"]["accelerator"]["resourceType"] == "nvidia.com/gpu"


def test_several_nodes_take_the_pool_and_the_step_waits_without_a_gpu(tmp_path: Path) -> None:
    config, container, told = compiled(tmp_path, 3)
    assert config["nodes"] == 3
    pod = config["node_pod"]
    assert pod["resources"] == {"cpu": "6", "memory": "24Gi", "nvidia.com/gpu": 2}
    assert pod["node_selector"] == {"zone": "a"}
    (term,) = pod["affinity"]["nodeAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"][
        "nodeSelectorTerms"
    ]
    assert term["matchExpressions"] == [{"key": "family", "operator": "In", "values": ["g5", "g6"]}]
    assert pod["tolerations"] == POOL["tolerations"]
    assert pod["service_account"] == "graftline-pipeline"
    assert pod["secrets"] == {"AWS_SECRET_ACCESS_KEY": ["graftline-s3", "key"]}
    assert "gpu" in pod["image"]
    assert pod["labels"]["kueue.x-k8s.io/queue-name"] == "gpus"
    assert "accelerator" not in container["resources"]
    assert "gpu" not in container["image"]
    assert not told.get("nodeSelector") and not told.get("tolerations")
    assert told["podMetadata"]["labels"]["graftline.dev/step"] == "fine_tune"

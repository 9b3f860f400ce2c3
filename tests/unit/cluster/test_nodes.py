"""Pools compared with the nodes that a cluster has; and the nodes read from a real HTTP API."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.support.http_server import Handler
from tests.support.kubernetes import api_server

from graftline.errors import ClusterError, ConfigurationError
from graftline_pipelines.cluster.nodes import Node, pool_problems, read_nodes
from graftline_pipelines.runfile.pools import PoolSettings

CPU = Node("cpu-1", {"zone": "a"}, {"cpu": "8", "memory": "32Gi"}, ())
GPU = Node(
    "gpu-1",
    {"zone": "b", "nvidia.com/gpu.product": "NVIDIA-L4"},
    {"cpu": "7910m", "memory": "30000000Ki", "nvidia.com/gpu": "1"},
    (("nvidia.com/gpu", "present", "NoSchedule"),),
)


def problems(*nodes: Node, **pool: Any) -> list[str]:
    return pool_problems({"mine": PoolSettings.model_validate(pool)}, nodes)


TOLERATION = {"key": "nvidia.com/gpu", "operator": "Exists"}


@pytest.mark.parametrize(
    "pool",
    [
        {},
        {"cpu": "8", "memory": "32Gi"},
        {"node_selectors": {"zone": "a"}},
        {"node_selectors": {"zone": ["c", "a"]}},
        {"accelerator": "nvidia.com/gpu", "tolerations": [TOLERATION]},
        {
            "accelerator": "nvidia.com/gpu",
            "cpu": "7.9",
            "tolerations": [{"key": "nvidia.com/gpu", "value": "present", "effect": "NoSchedule"}],
        },
        {"accelerator": "nvidia.com/gpu", "tolerations": [{"operator": "Exists"}]},
        {"accelerator": "amd.com/gpu", "autoscaled": True},
    ],
)
def test_a_pool_that_a_node_fits(pool: dict[str, Any]) -> None:
    assert problems(CPU, GPU, **pool) == []


@pytest.mark.parametrize(
    ("pool", "said"),
    [
        ({"cpu": "9"}, "9 CPU, it offers 8"),
        ({"memory": "33Gi"}, "33Gi memory, it offers 32Gi"),
        ({"node_selectors": {"zone": "c"}}, "the label zone=c, it has 'a'"),
        ({"node_selectors": {"disk": ["ssd", "nvme"]}}, "the label disk=ssd|nvme"),
        ({"accelerator": "nvidia.com/gpu"}, "a toleration of the taint nvidia.com/gpu=present"),
        (
            {"accelerator": "nvidia.com/gpu", "accelerator_count": 2, "tolerations": [TOLERATION]},
            "2 nvidia.com/gpu, it offers 1",
        ),
        ({"accelerator": "amd.com/gpu", "tolerations": [TOLERATION]}, "1 amd.com/gpu"),
    ],
)
def test_a_pool_that_none_fits_hears_what_the_nearest_lacks(
    pool: dict[str, Any], said: str
) -> None:
    (problem,) = problems(CPU, GPU, **pool)
    assert problem.startswith("pools.mine: no node fits (2 in the cluster)") and said in problem
    assert "autoscaled: true" in problem


def test_no_nodes_at_all() -> None:
    (problem,) = problems()
    assert "the cluster has no nodes" in problem


def test_a_taint_that_only_prefers_is_no_obstacle() -> None:
    node = Node("n", {}, {"cpu": "4", "memory": "8Gi"}, (("x", "", "PreferNoSchedule"),))
    assert problems(node) == []


# --- reading them -------------------------------------------------------------------------------

NODE = {
    "metadata": {"name": "gpu-1", "labels": {"graftline.dev/pool": "gpu"}},
    "spec": {"taints": [{"key": "nvidia.com/gpu", "effect": "NoSchedule"}]},
    "status": {"allocatable": {"cpu": "8", "memory": "16Gi", "nvidia.com/gpu": "1"}},
}


@pytest.fixture
def kube_api(tmp_path: Path) -> Iterator[dict[str, Any]]:
    """An HTTP server that lists nodes as Kubernetes does, and a kubeconfig for it."""
    state: dict[str, Any] = {"status": 200, "asked": []}

    class Nodes(Handler):
        def do_GET(self) -> None:
            state["asked"].append((self.path, self.headers.get("Authorization")))
            listing = {"kind": "NodeList", "apiVersion": "v1", "metadata": {}, "items": [NODE]}
            self.answer(state["status"], listing if state["status"] == 200 else {"message": "no"})

    with api_server(Nodes, tmp_path):
        yield state


def test_nodes_are_read_by_the_real_client(kube_api: dict[str, Any]) -> None:
    (node,) = read_nodes("mine")
    assert node.name == "gpu-1" and node.labels == {"graftline.dev/pool": "gpu"}
    assert node.allocatable["nvidia.com/gpu"] == "1"
    assert node.taints == (("nvidia.com/gpu", "", "NoSchedule"),)
    assert kube_api["asked"][0][1] == "Bearer kube-token"


def test_nodes_that_may_not_be_listed(kube_api: dict[str, Any]) -> None:
    kube_api["status"] = 403
    with pytest.raises(ClusterError, match="permission to list nodes"):
        read_nodes("mine")


def test_an_unknown_context(kube_api: dict[str, Any]) -> None:
    with pytest.raises(ConfigurationError, match="get-contexts"):
        read_nodes("another")

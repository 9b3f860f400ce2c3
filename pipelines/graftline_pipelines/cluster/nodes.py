"""Whether a cluster has the nodes that the pools ask for, as far as its nodes can be seen."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from graftline.errors import ClusterError
from graftline_pipelines.cluster import kube
from graftline_pipelines.runfile.pools import PoolSettings, Toleration
from graftline_pipelines.runfile.quantities import to_bytes, to_cores


@dataclass(frozen=True)
class Node:
    """What a node offers."""

    name: str
    labels: Mapping[str, str]
    allocatable: Mapping[str, str]
    taints: tuple[tuple[str, str, str], ...]  # key, value, effect


def read_nodes(context: str | None) -> list[Node]:
    """The nodes of a cluster.

    Args:
        context: A context of the kubeconfig; the cluster that we run in where absent.

    Raises:
        ConfigurationError: There is no such context.
        ClusterError: The nodes cannot be listed.
    """
    import kubernetes

    if context is None:
        try:
            kubernetes.config.load_incluster_config()
        except kubernetes.config.ConfigException as error:  # a pod without a token
            raise ClusterError("The nodes cannot be listed.", why=str(error).rstrip(".")) from None
        client = kubernetes.client.ApiClient()
    else:
        client = kube.open_api(context)
    listed = kube.ask(
        "The nodes cannot be listed",
        "list nodes. Without it, leave out --kube-context",
        kubernetes.client.CoreV1Api(client).list_node,
    )
    return [_node(item) for item in listed.items]


def _node(item: Any) -> Node:
    taints = tuple((t.key, t.value or "", t.effect) for t in item.spec.taints or ())
    return Node(
        item.metadata.name, item.metadata.labels or {}, item.status.allocatable or {}, taints
    )


def pool_problems(pools: Mapping[str, PoolSettings], nodes: Iterable[Node]) -> list[str]:
    """For each pool that no node fits: what the nearest ones lack.

    Pools whose nodes are made on demand are left out: they need none at the moment.
    """
    nodes = list(nodes)
    problems = []
    for name, pool in pools.items():
        if pool.autoscaled:
            continue
        lacks = [_lacks(pool, node) for node in nodes]
        if all(lacks):
            ranked = sorted(zip(nodes, lacks, strict=True), key=lambda one: _distance(pool, *one))
            nearest = ranked[0][1] if ranked else ["the cluster has no nodes"]
            problems.append(
                f"pools.{name}: no node fits ({len(nodes)} in the cluster); the nearest one lacks: "
                f"{'; '.join(nearest)}. Change the pool, add nodes, or set `autoscaled: true` "
                "if they are created on demand."
            )
    return problems


def _distance(pool: PoolSettings, node: Node, lacks: list[str]) -> tuple[bool, int]:
    """How far a node is from fitting; one without the accelerator is farther than any with it."""
    without = pool.accelerator is not None and not _offered(pool, node)
    return without, len(lacks)


def _offered(pool: PoolSettings, node: Node) -> int:
    return int(node.allocatable.get(pool.accelerator or "", "0"))


def _lacks(pool: PoolSettings, node: Node) -> list[str]:
    lacks = []
    for key, wanted in pool.node_selectors.items():
        values = [wanted] if isinstance(wanted, str) else wanted
        if node.labels.get(key) not in values:
            has = f", it has {node.labels[key]!r}" if key in node.labels else ""
            lacks.append(f"the label {key}={'|'.join(values)}{has}")
    if pool.accelerator is not None:
        offered = _offered(pool, node)
        if offered < pool.accelerators:
            lacks.append(f"{pool.accelerators} {pool.accelerator}, it offers {offered}")
    if to_cores(node.allocatable.get("cpu", "0")) < to_cores(pool.cpu):
        lacks.append(f"{pool.cpu} CPU, it offers {node.allocatable.get('cpu', 0)}")
    if to_bytes(node.allocatable.get("memory", "0")) < to_bytes(pool.memory):
        lacks.append(f"{pool.memory} memory, it offers {node.allocatable.get('memory', 0)}")
    for key, value, effect in node.taints:
        if effect != "PreferNoSchedule" and not any(
            _tolerates(toleration, key, value, effect) for toleration in pool.tolerations
        ):
            lacks.append(f"a toleration of the taint {key}={value}:{effect}")
    return lacks


def _tolerates(toleration: Toleration, key: str, value: str, effect: str) -> bool:
    if toleration.effect is not None and toleration.effect != effect:
        return False
    if toleration.key is not None and toleration.key != key:
        return False
    return toleration.operator == "Exists" or (toleration.value or "") == value

"""Node pools: what kind of node each step runs on, and how that is written into a KFP task.

A pool is what an administrator calls a node pool: nodes of one kind, picked by labels, entered
by tolerations, with a price. Steps are assigned to pools by name. The two pools that exist
without being written, ``default`` and ``small``, ask for nothing that a cluster without GPUs
lacks.
"""

from collections.abc import Mapping
from typing import Any

from graftline_pipelines.runfile.pools import (
    IMAGE_USER,
    POOL_LABEL,
    ClusterSettings,
    PoolSettings,
    StepName,
    pool_name,
    pool_of,
)

FIRST_PAUSE = 30  # seconds before the first retry
PAUSE_FACTOR = 2.0
WAIT_FOR_NODE = 3600  # seconds a try may wait for its node, such as one that is made on demand
NO_TIMEOUT = (
    10 * 365 * 86400
)  # seconds; Argo counts in nanoseconds of 63 bits, so 292 years at most

STEP_LABEL = "graftline.dev/step"
QUEUE_LABEL = "kueue.x-k8s.io/queue-name"


def place(
    task: Any,
    step: str,
    *,
    pools: Mapping[str, PoolSettings],
    assign: Mapping[StepName, str],
    cluster: ClusterSettings,
) -> None:
    """Write into a task where it runs and what it sees: its pool and the cluster's settings."""
    apply_pool(task, pool_of(step, pools, assign), pool_name(step, assign), step)
    apply_cluster(task, cluster)


def apply_pool(task: Any, pool: PoolSettings, name: str, step: str) -> None:
    """Write a pool into a KFP task: resources, nodes, disks, time limit, retries and labels."""
    from kfp import kubernetes

    task.set_cpu_request(pool.cpu).set_memory_request(pool.memory)
    task.set_memory_limit(pool.memory_limit or pool.memory)
    if pool.cpu_limit is not None:
        task.set_cpu_limit(pool.cpu_limit)
    if pool.accelerator is not None:
        task.set_accelerator_type(pool.accelerator).set_accelerator_limit(pool.accelerators)
    if pool.tries_again:
        task.set_retry(
            pool.tries_again,
            backoff_duration=f"{FIRST_PAUSE}s",
            backoff_factor=PAUSE_FACTOR,
            backoff_max_duration=f"{retry_deadline(pool)}s",
        )
    if pool.timeout_seconds is not None:
        kubernetes.set_timeout(task, pool.timeout_seconds)
    _apply_nodes(task, pool)
    _apply_disks(task, pool)
    labels = {POOL_LABEL: name, STEP_LABEL: step, **pool.labels}
    if pool.queue is not None:
        labels[QUEUE_LABEL] = pool.queue
    for key, value in sorted(labels.items()):
        kubernetes.add_pod_label(task, key, value)
    for key, value in sorted(pool.annotations.items()):
        kubernetes.add_pod_annotation(task, key, value)


def retry_deadline(pool: PoolSettings) -> int:
    """Seconds after the start of the first try within which a lost step is tried again.

    KFP calls it the longest backoff; Argo reads it as a deadline (`maxDuration`) for all tries
    together, and KFP writes one hour where none is given. So it has to cover every try to the end
    of its timeout, the pauses between them and the waits for nodes.
    """
    if pool.timeout_seconds is None:
        return NO_TIMEOUT
    retries = pool.tries_again
    pauses = sum(FIRST_PAUSE * PAUSE_FACTOR**retry for retry in range(retries))
    tries = (retries + 1) * (pool.timeout_seconds + WAIT_FOR_NODE)
    return min(tries + int(pauses), NO_TIMEOUT)


def _apply_nodes(task: Any, pool: PoolSettings) -> None:
    from kfp import kubernetes

    any_of = []
    for key, value in sorted(pool.node_selectors.items()):
        if isinstance(value, str):
            kubernetes.add_node_selector(task, key, value)
        else:
            any_of.append({"key": key, "operator": "In", "values": list(value)})
    if any_of:
        kubernetes.add_node_affinity(task, match_expressions=any_of)
    for toleration in pool.tolerations:
        kubernetes.add_toleration(
            task,
            key=toleration.key,
            operator=toleration.operator,
            value=toleration.value,
            effect=toleration.effect,
            toleration_seconds=toleration.seconds,
        )


def _apply_disks(task: Any, pool: PoolSettings) -> None:
    from kfp import kubernetes

    if pool.shm is not None:
        shared = "/dev/shm"  # noqa: S108 -- where shared memory is, not a temporary file
        kubernetes.empty_dir_mount(task, "shm", shared, medium="Memory", size_limit=pool.shm)
    if pool.disk is None:
        return
    task.set_env_variable("TMPDIR", "/scratch")
    if pool.disk.kind == "node":
        kubernetes.empty_dir_mount(task, "scratch", "/scratch", size_limit=pool.disk.size)
    else:
        kubernetes.add_ephemeral_volume(
            task,
            "scratch",
            "/scratch",
            access_modes=["ReadWriteOnce"],
            size=pool.disk.size,
            storage_class_name=pool.disk.storage_class,
        )


def apply_cluster(task: Any, cluster: ClusterSettings) -> None:
    """Write into a KFP task what all steps share: variables, secrets, config maps, user."""
    from kfp import kubernetes

    for name, value in sorted(cluster.variables.items()):
        task.set_env_variable(name, value)
    for secret, keys in sorted(cluster.secrets.items()):
        kubernetes.use_secret_as_env(task, secret, dict(sorted(keys.items())))
    for config_map, keys in sorted(cluster.config_maps.items()):
        kubernetes.use_config_map_as_env(task, config_map, dict(sorted(keys.items())))
    if cluster.pull_secrets:
        kubernetes.set_image_pull_secrets(task, list(cluster.pull_secrets))
    kubernetes.set_security_context(
        task, run_as_user=IMAGE_USER, run_as_group=IMAGE_USER, run_as_non_root=True
    )

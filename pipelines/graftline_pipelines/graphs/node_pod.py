"""The pods of a training on several nodes, written from the run file as KFP's own tasks are."""

from typing import Any

from graftline.steps.fine_tune.nodes import NodePod, pod_values
from graftline_pipelines.graphs.placement import QUEUE_LABEL, STEP_LABEL
from graftline_pipelines.runfile.pools import POOL_LABEL, PoolSettings, pool_name, pool_of
from graftline_pipelines.runfile.settings import RunSettings

STEP = "fine_tune"


def node_pod(settings: RunSettings) -> dict[str, Any]:
    """What each node's pod asks for, from the pool of ``fine_tune`` and the cluster's settings."""
    pool, cluster = pool_of(STEP, settings.pools, settings.assign), settings.cluster
    resources: dict[str, Any] = {"cpu": pool.cpu_limit or pool.cpu}
    resources["memory"] = pool.memory_limit or pool.memory
    if pool.accelerator is not None:
        resources[pool.accelerator] = pool.accelerators
    exact = {key: v for key, v in sorted(pool.node_selectors.items()) if isinstance(v, str)}
    any_of = [
        {"key": key, "operator": "In", "values": list(value)}
        for key, value in sorted(pool.node_selectors.items())
        if not isinstance(value, str)
    ]
    labels = {POOL_LABEL: pool_name(STEP, settings.assign), STEP_LABEL: STEP, **pool.labels}
    if pool.queue is not None:
        labels[QUEUE_LABEL] = pool.queue
    return pod_values(
        NodePod(
            image=settings.images.reference("gpu" if pool.accelerator is not None else "cpu"),
            resources=resources,
            variables=dict(sorted(cluster.variables.items())),
            secrets={
                variable: (secret, key)
                for secret, keys in sorted(cluster.secrets.items())
                for key, variable in sorted(keys.items())
            },
            node_selector=exact,
            affinity=_required(any_of) if any_of else {},
            tolerations=[
                {
                    name: value
                    for name, value in {
                        "key": toleration.key,
                        "operator": toleration.operator,
                        "value": toleration.value,
                        "effect": toleration.effect,
                        "tolerationSeconds": toleration.seconds,
                    }.items()
                    if value is not None
                }
                for toleration in pool.tolerations
            ],
            service_account=cluster.service_account or "",
            pull_secrets=list(cluster.pull_secrets),
            labels=labels,
        )
    )


def waiting_pools(settings: RunSettings) -> dict[str, PoolSettings]:
    """The run file's pools, with that of ``fine_tune`` as the step needs it while nodes train.

    It only waits, and computes the validation's answers at the end: any node will do.
    """
    name = pool_name(STEP, settings.assign)
    elsewhere: dict[str, Any] = {
        "accelerator": None,
        "accelerator_count": None,
        "node_selectors": {},
        "tolerations": (),
        "queue": None,
        "shm": None,
    }
    own = pool_of(STEP, settings.pools, settings.assign)
    return {**settings.pools, name: own.model_copy(update=elsewhere)}


def _required(expressions: list[dict[str, Any]]) -> dict[str, Any]:
    terms = {"nodeSelectorTerms": [{"matchExpressions": expressions}]}
    return {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": terms}}

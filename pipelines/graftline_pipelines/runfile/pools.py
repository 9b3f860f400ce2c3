"""What a run file says of node pools and of the cluster."""

import re
from collections.abc import Mapping
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, Field, field_validator, model_validator

from graftline.errors import ConfigurationError
from graftline.settings import Section, without_credentials
from graftline_pipelines.runfile.quantities import (
    Cpu,
    Duration,
    EnvName,
    LabelKey,
    LabelValue,
    Memory,
    is_label_key,
    is_name,
    to_bytes,
    to_cores,
    to_seconds,
)

POOL_LABEL = "graftline.dev/pool"  # on every pod, so that cluster policies can select by pool
IMAGE_USER = 10001  # the user of docker/Dockerfile

# Settings that people look for in a pool and that a KFP task cannot carry: where they go instead.
_CONTROLLER = "in the ConfigMap workflow-controller-configmap, under workflowDefaults.spec"
_POLICY = f"by an admission policy on the pods with the label {POOL_LABEL}=<this pool>"
NOT_IN_KFP = {
    "priority_class": f"set podPriorityClassName {_CONTROLLER}, or, with Kueue, the label "
    "kueue.x-k8s.io/priority-class in this pool's `labels`",
    "topology_spread": f"set it {_POLICY}, or as defaultConstraints of the scheduler",
    "pod_affinity": f"set it {_POLICY}; node affinity can be written here: give a label in "
    "`node_selectors` a list of values",
    "pod_anti_affinity": f"set it {_POLICY}",
    "service_account": "a run has one service account for all its steps: set "
    "`cluster.service_account` in the run file",
    "env_from": "name the keys one by one in `cluster.secrets` or `cluster.config_maps`",
    "fs_group": f"`graftline cluster retry-policy --apply` sets fsGroup {IMAGE_USER} for all, "
    "in the ConfigMap workflow-controller-configmap, under "
    "workflowDefaults.spec.templateDefaults.securityContext",
    "ephemeral_storage": "ask for `disk` here, and limit the rest by a LimitRange in the namespace",
    "runtime_class": f"make it the nodes' default runtime, as the GPU operator does, or set it "
    f"{_POLICY}",
    "scheduler_name": f"set schedulerName {_CONTROLLER}",
    "security_context": "the steps always run as the image's user without privileges; the rest "
    f"is set {_CONTROLLER}",
    "init_containers": f"add them {_POLICY}",
    "sidecars": f"add them {_POLICY}",
}
_ALIASES = {
    "priority_class_name": "priority_class",
    "topology_spread_constraints": "topology_spread",
    "service_account_name": "service_account",
    "runtime_class_name": "runtime_class",
    "ephemeral_storage_limit": "ephemeral_storage",
    "ephemeral_storage_request": "ephemeral_storage",
    "affinity": "pod_affinity",
}


def _snake(key: str) -> str:
    return re.sub(r"(?<=[a-z0-9])([A-Z])", r"_\1", key).replace("-", "_").lower()


class _Section(Section, BaseModel):
    """Names BaseModel again: the linter then knows that a default `{}` is copied."""


class Toleration(_Section):
    """A taint that the pool's pods tolerate."""

    key: str | None = None
    """The taint's key; with `operator: Exists` it may be absent: any taint."""
    operator: Literal["Equal", "Exists"] = "Equal"
    """`Exists` asks for the key alone."""
    value: str | None = None
    """The taint's value; only with `Equal`."""
    effect: Literal["NoSchedule", "PreferNoSchedule", "NoExecute"] | None = None
    """The taint's effect; any where absent."""
    seconds: Annotated[int, Field(ge=0)] | None = None
    """How long a pod stays after the taint appeared; only with `NoExecute`."""

    @model_validator(mode="after")
    def _as_kubernetes_has_it(self) -> Self:
        if self.operator == "Exists" and self.value is not None:
            raise ValueError("`operator: Exists` takes no `value`")
        if self.operator == "Equal" and self.key is None:
            raise ValueError("`operator: Equal` needs a `key`")
        if self.seconds is not None and self.effect != "NoExecute":
            raise ValueError("`seconds` needs `effect: NoExecute`")
        return self


class DiskSettings(_Section):
    """Scratch space, mounted where temporary files go (`TMPDIR`)."""

    size: Memory
    """For example 50Gi."""
    kind: Literal["node", "volume"] = "node"
    """`node`: the node's own disk, limited to `size`. `volume`: a volume that is made for the pod
    and deleted with it; the cluster needs a provisioner, and `fsGroup` 10001 as its default, which
    `graftline cluster retry-policy --apply` sets."""
    storage_class: str | None = None
    """With `kind: volume`: the storage class; the cluster's default one where absent."""

    @model_validator(mode="after")
    def _class_needs_volume(self) -> Self:
        if self.storage_class is not None and self.kind != "volume":
            raise ValueError("`storage_class` needs `kind: volume`")
        return self


class PoolSettings(_Section):
    """A kind of node. The defaults fit a cluster without GPUs."""

    accelerator: str | None = None
    """The extended resource that a node of this kind offers, such as `nvidia.com/gpu`. Steps in
    such a pool use the GPU image."""
    accelerator_count: Annotated[int, Field(ge=1, le=16)] | None = None
    """How many of them a step takes. Default: 1 if `accelerator` is given."""
    node_selectors: dict[LabelKey, LabelValue | list[LabelValue]] = {}
    """Labels that a node must carry; with a list, any one of the values."""
    tolerations: tuple[Toleration, ...] = ()
    """Taints of these nodes that the steps tolerate."""
    cpu: Cpu = "1"
    """CPU that is reserved for a step."""
    cpu_limit: Cpu | None = None
    """CPU that a step may use at most. Default: no limit."""
    memory: Memory = "4Gi"
    """Memory that is reserved for a step."""
    memory_limit: Memory | None = None
    """A step that uses more memory than this is killed. Default: the value of `memory`."""
    shm: Memory | None = "1Gi"
    """Size of `/dev/shm`, through which decoded images reach the network. It counts as memory."""
    disk: DiskSettings | None = None
    """Scratch space beyond what the container has."""
    timeout: Duration | None = "6h"
    """A step that takes longer is ended; `null` for no limit."""
    retries: Annotated[int, Field(ge=0, le=10)] | None = None
    """How often a step is retried after its pod was lost (deleted, evicted, preempted). Default: 1,
    on spot nodes 3. A step that fails by itself is not retried. Preemption and node shutdown are
    recognised only after `graftline cluster retry-policy --apply`."""
    spot: bool = False
    """Whether these nodes can vanish at any moment. Steps on them are retried more often, see
    `retries`."""
    autoscaled: bool = False
    """Set this to `true` if nodes are created on demand. Otherwise `submit --kube-context` fails
    when no existing node fits the pool."""
    hourly_price: Annotated[float, Field(ge=0)] | None = None
    """Price of a node for one hour, in your currency. With it, runs print what they cost."""
    queue: LabelValue | None = None
    """The Kueue local queue that admits the steps of this pool."""
    labels: dict[LabelKey, LabelValue] = {}
    """Labels for the pods."""
    annotations: dict[LabelKey, str] = {}
    """Annotations for the pods, such as `cluster-autoscaler.kubernetes.io/safe-to-evict`."""

    @model_validator(mode="before")
    @classmethod
    def _say_where_else(cls, values: Any) -> Any:
        problems = []
        for key in values if isinstance(values, Mapping) else ():
            name = _snake(str(key))
            name = _ALIASES.get(name, name)
            if name in NOT_IN_KFP:
                problems.append(f"Kubeflow Pipelines cannot set `{key}`: {NOT_IN_KFP[name]}")
        if problems:
            raise ValueError("; ".join(problems))
        return values

    @field_validator("accelerator")
    @classmethod
    def _is_a_resource(cls, value: str | None) -> str | None:
        if value is not None and ("/" not in value or not is_label_key(value)):
            raise ValueError(
                f"{value!r} is not a resource name; write what `kubectl describe node` lists "
                "under Capacity, such as nvidia.com/gpu or amd.com/gpu, and pick the model of the "
                "GPU by `node_selectors`"
            )
        return value

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        if self.accelerator_count is not None and self.accelerator is None:
            raise ValueError("`accelerator_count` needs `accelerator`, such as nvidia.com/gpu")
        if self.memory_limit is not None and to_bytes(self.memory_limit) < to_bytes(self.memory):
            raise ValueError(f"`memory_limit` {self.memory_limit} is below `memory` {self.memory}")
        if self.cpu_limit is not None and to_cores(self.cpu_limit) < to_cores(self.cpu):
            raise ValueError(f"`cpu_limit` {self.cpu_limit} is below `cpu` {self.cpu}")
        limit = self.memory_limit or self.memory
        if self.shm is not None and to_bytes(self.shm) > to_bytes(limit):
            raise ValueError(f"`shm` {self.shm} does not fit into the memory limit {limit}")
        return self

    @property
    def accelerators(self) -> int:
        """How many accelerators a step of this pool takes."""
        return 0 if self.accelerator is None else self.accelerator_count or 1

    @property
    def tries_again(self) -> int:
        """Retries after the first try."""
        return self.retries if self.retries is not None else (3 if self.spot else 1)

    @property
    def timeout_seconds(self) -> int | None:
        """The timeout in seconds."""
        return None if self.timeout is None else to_seconds(self.timeout)


class ClusterSettings(_Section):
    """How steps run on a cluster, whatever their pool. Nothing secret: names of secrets only."""

    namespace: str | None = None
    """The namespace of the runs. Set it only if KFP serves several users."""
    service_account: str | None = None
    """The service account of all steps. Default: KFP's own."""
    ui: Annotated[str, Field(pattern=r"^https?://[^\s{}]+$")] | None = None
    """Address of the Kubeflow Pipelines UI, such as `https://kubeflow.example.com/pipeline`: the
    notice of a failed run links to the run's page there."""
    variables: dict[EnvName, str] = {}
    """Environment variables of every step, such as `AWS_ENDPOINT_URL_S3` and `AWS_REGION`."""
    secrets: dict[str, dict[str, EnvName]] = {}
    """Secrets of the namespace: for each, which of its keys becomes which variable."""
    config_maps: dict[str, dict[str, EnvName]] = {}
    """Config maps of the namespace: for each, which of its keys becomes which variable."""
    pull_secrets: tuple[str, ...] = ()
    """Secrets that the images are pulled with."""

    @field_validator("variables")
    @classmethod
    def _nothing_secret(cls, value: dict[str, str]) -> dict[str, str]:
        secret = [name for name in value if re.search(r"SECRET|PASSWORD|TOKEN|_KEY(_ID)?$", name)]
        if secret:
            raise ValueError(
                f"{', '.join(secret)} would be readable in the compiled pipeline; put the value "
                "in a Kubernetes secret and name it in `cluster.secrets`"
            )
        for name, text in value.items():
            try:
                without_credentials(text)
            except ValueError as error:
                fix = "a secret goes into a Kubernetes secret that `cluster.secrets` names"
                raise ValueError(f"{name}: {error}; {fix}") from None
        return value


StepName = Literal[
    "ingest",
    "plan_extraction",
    "extract_features",
    "assemble_features",
    "fit_head",
    "fine_tune",
    "evaluate",
    "export_onnx",
    "promote",
    "watch",
    "notify",
    "predict",
]


DEFAULT_POOLS: dict[str, PoolSettings] = {
    "default": PoolSettings(),
    "small": PoolSettings(cpu="250m", memory="2Gi", shm=None, timeout="1h"),
}


DEFAULT_ASSIGNMENT: dict[StepName, str] = {
    "plan_extraction": "small",
    "promote": "small",
    "watch": "small",
    "notify": "small",
}


def pool_name(step: str, assign: Mapping[StepName, str]) -> str:
    """The name of the pool that a step runs in."""
    step = "extract_features" if step == "extract_share" else step  # a share of the same work
    for named in (assign, DEFAULT_ASSIGNMENT):
        for key, name in named.items():
            if key == step:
                return name
    return "default"


def pool_of(
    step: str, pools: Mapping[str, PoolSettings], assign: Mapping[StepName, str]
) -> PoolSettings:
    """The pool that a step runs in.

    Raises:
        ConfigurationError: The step is assigned to a pool that does not exist.
    """
    name = pool_name(step, assign)
    pool = pools.get(name) or DEFAULT_POOLS.get(name)
    if pool is None:
        known = ", ".join(sorted({*pools, *DEFAULT_POOLS}))
        raise ConfigurationError(
            f"assign.{step}: there is no pool {name!r}",
            fix=f"Define it under `pools`, or take one of: {known}.",
        )
    return pool


def assignment_problems(
    pools: Mapping[str, PoolSettings], assign: Mapping[StepName, str]
) -> list[str]:
    """What is wrong between `pools` and `assign`, one sentence each."""
    known = {*pools, *DEFAULT_POOLS}
    problems = [
        f"assign.{step}: there is no pool {name!r}; define it under `pools`, or take one of: "
        f"{', '.join(sorted(known))}"
        for step, name in assign.items()
        if name not in known
    ]
    problems += [
        f"pools.{name}: {name!r} must be lower-case letters, digits and '-', at most 63"
        for name in pools
        if not is_name(name)
    ]
    return problems

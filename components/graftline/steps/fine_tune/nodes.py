"""Several nodes that train together: a TrainJob of Kubeflow Trainer, made and followed here.

The nodes take their inputs from the store and leave there what they always leave: checkpoints. The
last one, of the finished training, is what the step reads its result from, as it would after its
own pod was lost. So nothing else has to come back from the nodes, and a step that is tried again
follows the job that is still running.
"""

import hashlib
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from graftline.errors import ConfigurationError, TrainingError
from graftline.progress import message
from graftline.storage import commit, open_store
from graftline.storage.base import Store

if TYPE_CHECKING:
    from kubeflow.trainer import TrainerClient

RUNTIME = "torch-distributed"
PREFIX = "train-jobs"
SECONDS = 5.0  # between two looks at the job
AWAY_SECONDS = 600.0  # that the API server may be away while the nodes train
INPUTS = ("snapshot_folder", "probe_folder", "decision_file")
LAST_LINES = 5


@dataclass(frozen=True, kw_only=True)
class NodePod:
    """What a node's pod asks for; Graftline's graph fills it from the pool of ``fine_tune``.

    Attributes:
        image: The container image, the GPU one for GPUs.
        resources: Of each node, such as ``{"nvidia.com/gpu": 1, "cpu": "4"}``.
        variables: Environment variables.
        secrets: Variable to the secret and its key.
        node_selector: Labels of the nodes.
        affinity: For labels that may have one of several values.
        tolerations: Of the nodes' taints.
        service_account: Of the pods; the namespace's default one where empty.
        pull_secrets: The image is pulled with these.
        labels: Of the pods.
    """

    image: str = ""
    resources: dict[str, Any] = field(default_factory=dict)
    variables: dict[str, str] = field(default_factory=dict)
    secrets: dict[str, tuple[str, str]] = field(default_factory=dict)
    node_selector: dict[str, str] = field(default_factory=dict)
    affinity: dict[str, Any] = field(default_factory=dict)
    tolerations: list[dict[str, Any]] = field(default_factory=list)
    service_account: str = ""
    pull_secrets: list[str] = field(default_factory=list)
    labels: dict[str, str] = field(default_factory=dict)


def train_on_nodes(
    arguments: dict[str, Any],
    identity: str,
    nodes: int,
    pod: NodePod,
    client: "TrainerClient | None" = None,
) -> None:
    """Have the nodes train, and return when the finished training is in the store.

    Args:
        arguments: Those of :class:`graftline.steps.fine_tune.training.Order`.
        identity: Digest of the training; the job is named after it.
        nodes: How many nodes.
        pod: What each asks for.
        client: Of Kubeflow Trainer; the cluster's own where absent.

    Raises:
        ConfigurationError: Kubeflow Trainer is not there, or the step may not use it.
        TrainingError: The job failed.
    """
    store = open_store(arguments["store"]).child(f"{PREFIX}/{identity}")
    given = {**arguments, **_uploaded(arguments, store), "inputs": f"{PREFIX}/{identity}"}
    name = f"graftline-{hashlib.sha256(identity.encode()).hexdigest()[:16]}"
    with trainer_errors():
        client = client or _client()
        if _status(client, name) in (None, "Failed"):
            _create(client, name, nodes, pod, given)
            message("TrainJob %s: %d nodes train together.", name, nodes)
        else:
            message("TrainJob %s is there from an earlier try, and is followed.", name)
    _follow(client, name)
    with trainer_errors():
        client.delete_job(name)
    for info in list(store.list()):
        store.delete(info.key)


def on_node(*positional: dict[str, object], **named: object) -> None:
    """What each process on the nodes runs.

    The SDK sends this function's source alone, so it knows no import of this module, and calls it
    with a dictionary on its own machine and with keywords on a cluster.
    """
    from importlib import import_module

    node = import_module("graftline.steps.fine_tune.node")  # which imports the training, and it us
    node.main(positional[0] if positional else named)


@contextmanager
def trainer_errors() -> Iterator[None]:
    """Errors of the SDK, which hides the server's answer behind its own, as ours."""
    try:
        yield
    except (RuntimeError, TimeoutError, ValueError, OSError) as error:
        status = getattr(error.__cause__ or error, "status", None)
        if status in (401, 403):
            raise ConfigurationError(
                "the step may not make a TrainJob",
                why=f"the API server answered {status}",
                fix="add k8s/components/training-nodes to the overlay, and run the steps with the "
                "service account graftline-pipeline (cluster.service_account)",
            ) from error
        if status == 404:
            raise ConfigurationError(
                f"Kubeflow Trainer or its runtime {RUNTIME} is not on this cluster",
                why="the API server does not know it",
                fix="install Kubeflow Trainer 2 and add k8s/components/training-nodes to the "
                "overlay, or set fine_tune.nodes to 1",
            ) from error
        raise TrainingError(
            "Kubeflow Trainer could not be used",
            why=f"{error}" + (f": {error.__cause__}" if error.__cause__ else ""),
            fix="see the cause above, or set fine_tune.nodes to 1",
        ) from error


def _client() -> "TrainerClient":
    import logging

    from kubeflow.trainer import TrainerClient

    logging.getLogger("kubeflow").setLevel(logging.ERROR)  # it warns of rights it need not have
    return TrainerClient()


def _uploaded(arguments: dict[str, Any], store: Store) -> dict[str, Any]:
    """The step's inputs in the store, where the nodes can read them."""
    files: list[list[str]] = []
    for name in INPUTS:
        path = Path(arguments[name])
        for file in sorted(path.rglob("*")) if path.is_dir() else [path]:
            if file.is_file():
                inside = f"{name}/{file.relative_to(path)}" if path.is_dir() else name
                key = commit.put_file(store, file, f"objects/{commit.ANY}", repair=True)
                files.append([inside, key.rpartition("/")[2]])
    return {"files": files}


def _create(
    client: "TrainerClient", name: str, nodes: int, pod: NodePod, given: dict[str, Any]
) -> None:
    from kubeflow.trainer import CustomTrainer
    from kubeflow.trainer.backends.kubernetes.backend import KubernetesBackend
    from kubeflow.trainer.options import Name

    options: list[Any] = [Name(name)]
    if isinstance(client.backend, KubernetesBackend):
        if _status(client, name) is not None:
            client.delete_job(name)  # a failed one: its name is needed
        options += _kubernetes_options(pod)
    trainer = CustomTrainer(
        func=on_node,
        func_args=given,
        image=pod.image or None,
        num_nodes=nodes,
        resources_per_node=pod.resources or None,
        env=pod.variables or None,
    )
    client.train(runtime=client.get_runtime(RUNTIME), trainer=trainer, options=options)


def _kubernetes_options(pod: NodePod) -> list[Any]:
    """Labels, and where the pods run: a patch of the runtime's pod template."""
    from kubeflow.trainer.options import (
        ContainerPatch,
        JobSetSpecPatch,
        JobSetTemplatePatch,
        JobSpecPatch,
        JobTemplatePatch,
        Labels,
        PodSpecPatch,
        PodTemplatePatch,
        ReplicatedJobPatch,
        RuntimePatch,
        TrainingRuntimeSpecPatch,
    )

    secrets = [
        {"name": variable, "valueFrom": {"secretKeyRef": {"name": secret, "key": key}}}
        for variable, (secret, key) in sorted(pod.secrets.items())
    ]
    spec = PodSpecPatch(
        service_account_name=pod.service_account or None,
        containers=[ContainerPatch("node", env=secrets)] if secrets else None,
        image_pull_secrets=[{"name": secret} for secret in pod.pull_secrets] or None,
        node_selector=pod.node_selector or None,
        affinity=pod.affinity or None,
        tolerations=pod.tolerations or None,
    )
    template = PodTemplatePatch(metadata={"labels": pod.labels} if pod.labels else None, spec=spec)
    jobs = [ReplicatedJobPatch("node", JobTemplatePatch(spec=JobSpecPatch(template)))]
    patch = RuntimePatch(
        TrainingRuntimeSpecPatch(JobSetTemplatePatch(spec=JobSetSpecPatch(replicated_jobs=jobs)))
    )
    return [Labels({"app.kubernetes.io/part-of": "graftline", **pod.labels}), patch]


def _status(client: "TrainerClient", name: str) -> str | None:
    """The job's status, or None where there is no such job."""
    try:
        return str(client.get_job(name).status)
    except ValueError:  # the local backend's answer
        return None
    except RuntimeError as error:
        if getattr(error.__cause__, "status", None) == 404:
            return None
        raise


def _follow(client: "TrainerClient", name: str) -> None:
    """Wait for the end, and pass on what the first node says."""
    said, heard = 0, time.monotonic()
    while True:
        try:
            status = _status(client, name)
            lines = list(client.get_job_logs(name)) if status != "Created" else []
            heard = time.monotonic()
        except (RuntimeError, TimeoutError, OSError) as error:
            if time.monotonic() - heard > AWAY_SECONDS:
                raise TrainingError(
                    f"TrainJob {name} could not be followed",
                    why=f"the API server did not answer for {AWAY_SECONDS / 60:.0f} minutes: "
                    f"{error}",
                    fix="run the step again: it follows the job that is still running",
                ) from error
            time.sleep(SECONDS)
            continue
        for line in lines[said:]:
            message("%s", line.rstrip())
        said = max(said, len(lines))
        if status == "Complete":
            return
        if status in (None, "Failed"):
            raise TrainingError(
                f"TrainJob {name} " + ("failed" if status else "was deleted"),
                why=" ".join(line.strip() for line in lines[-LAST_LINES:]) or None,
                fix=f"see `kubectl describe trainjob {name}` and the logs of its pods",
            )
        time.sleep(SECONDS)


def pod_of(values: dict[str, Any] | None) -> NodePod:
    """The pod that the graph wrote into the step's settings."""
    return NodePod(**(values or {}))


def pod_values(pod: NodePod) -> dict[str, Any]:
    """The same as JSON can hold it."""
    return asdict(pod)

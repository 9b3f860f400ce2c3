"""What a model server needs to know of an exported file: KServe and Triton.

Triton's ONNX Runtime backend serves ``model.onnx`` from a model repository; KServe's MLServer
runs the registered MLflow folder with ONNX Runtime. Both take uint8 pixels and need no code.
"""

import dataclasses
import re
from pathlib import Path
from typing import Any

import onnxruntime

from graftline.errors import ConfigurationError
from graftline.onnx_model.predict import PROBABILITIES, OnnxClassifier

BACKENDS = ("triton", "onnxruntime")
MAX_BATCH = 32
QUEUE_MICROSECONDS = 2000  # that a request may wait for others of its size
TYPES = {"tensor(uint8)": "TYPE_UINT8", "tensor(float)": "TYPE_FP32"}
GIBIBYTE = 2**30


@dataclasses.dataclass(frozen=True)
class Resources:
    """What one replica asks for.

    Attributes:
        cpu: Cores.
        memory: Bytes.
        gpus: NVIDIA devices.
    """

    cpu: int
    memory: int
    gpus: int = 0

    def to_kubernetes(self) -> dict[str, dict[str, str]]:
        """Requests and limits; memory and devices are equal in both, so that none is evicted."""
        fixed = {"memory": f"{-(-self.memory // 2**20)}Mi"}
        if self.gpus:
            fixed["nvidia.com/gpu"] = str(self.gpus)
        return {"requests": {"cpu": str(self.cpu), **fixed}, "limits": fixed}


def resources_for(model: Path, *, cpu: int = 2, gpus: int = 0) -> Resources:
    """Enough for the file and a full batch of photographs of 12 megapixels, one at a time.

    Weights are in memory about twice (as read and as packed for the processor); pixels are
    held as uint8 and as float32.
    """
    photographs = 12_000_000 * 3 * (1 + 4 + 4)
    memory = 2 * model.stat().st_size + photographs + GIBIBYTE // 2
    return Resources(cpu=cpu, memory=max(GIBIBYTE, memory), gpus=gpus)


def inference_service(
    model: Path,
    *,
    name: str,
    storage_uri: str,
    backend: str = "triton",
    namespace: str | None = None,
    gpus: int = 0,
    min_replicas: int = 1,
    max_replicas: int = 3,
) -> dict[str, Any]:
    """A KServe ``InferenceService`` for the file.

    Args:
        model: The ONNX file.
        name: Of the service; letters, digits and hyphens.
        storage_uri: Where the cluster finds the model repository (Triton) or the registered
            folder (ONNX Runtime).
        backend: ``triton`` or ``onnxruntime``.
        namespace: Where to put it.
        gpus: NVIDIA devices of a replica.
        min_replicas: 0 lets it scale to zero.
        max_replicas: Upper end of the scaling.

    Raises:
        ConfigurationError: The name or the backend cannot be used.
    """
    _check_service(name, storage_uri, backend, min_replicas, max_replicas)
    classifier = OnnxClassifier(model)
    metadata: dict[str, Any] = {
        "name": name,
        "annotations": {
            "graftline/snapshot-id": classifier.metadata.snapshot_id,
            "graftline/run-id": classifier.metadata.run_id,
        },
        "labels": {"app.kubernetes.io/name": name, "app.kubernetes.io/managed-by": "graftline"},
    }
    if namespace:
        metadata["namespace"] = namespace
    predictor = {
        "minReplicas": min_replicas,
        "maxReplicas": max_replicas,
        "automountServiceAccountToken": False,
        "securityContext": {
            "runAsNonRoot": True,
            "runAsUser": 1000,
            "seccompProfile": {"type": "RuntimeDefault"},
        },
        "model": _served_model(storage_uri, backend, resources_for(model, gpus=gpus)),
    }
    return {
        "apiVersion": "serving.kserve.io/v1beta1",
        "kind": "InferenceService",
        "metadata": metadata,
        "spec": {"predictor": predictor},
    }


def _served_model(storage_uri: str, backend: str, resources: Resources) -> dict[str, Any]:
    return {
        "modelFormat": {"name": "onnx" if backend == "triton" else "mlflow", "version": "1"},
        "runtime": "kserve-tritonserver" if backend == "triton" else "kserve-mlserver",
        "protocolVersion": "v2",
        "storageUri": storage_uri,
        "resources": resources.to_kubernetes(),
        "securityContext": {
            "allowPrivilegeEscalation": False,
            "capabilities": {"drop": ["ALL"]},
            "privileged": False,
        },
    }


def _check_service(
    name: str, storage_uri: str, backend: str, min_replicas: int, max_replicas: int
) -> None:
    if not re.fullmatch(r"[a-z]([-a-z0-9]{0,61}[a-z0-9])?", name):
        raise ConfigurationError(
            f"{name!r} is not a valid service name.",
            why="Kubernetes allows lower-case letters, digits and hyphens, at most 63, and a "
            "letter first.",
            fix="Choose another with --name.",
        )
    if backend not in BACKENDS:
        raise ConfigurationError(
            f"--backend: {backend!r} is not known.", fix=f"Use one of {', '.join(BACKENDS)}."
        )
    if not re.match(r"[a-z][a-z0-9+.-]*://[^/]", storage_uri):
        raise ConfigurationError(
            f"--storage-uri: {storage_uri!r} is not an address that a cluster can read.",
            fix="Give one such as s3://bucket/models, gs://..., https://... or pvc://claim/path.",
        )
    if not 0 <= min_replicas <= max_replicas:
        raise ConfigurationError(
            f"--min-replicas {min_replicas} and --max-replicas {max_replicas} do not fit together.",
            fix="Give --min-replicas and --max-replicas in that order, not below zero.",
        )


def triton_config(model: Path, *, name: str, cpu: int = 2, gpus: int = 0) -> str:
    """The ``config.pbtxt`` of a Triton model repository for the file.

    Requests for images of one size are batched on the fly.
    """
    session = onnxruntime.InferenceSession(str(model), providers=["CPUExecutionProvider"])
    inputs = "".join(_tensor("input", value) for value in session.get_inputs())
    outputs = "".join(_tensor("output", value) for value in session.get_outputs())
    kind = "KIND_GPU" if gpus else "KIND_CPU"
    return (
        f'name: "{name}"\n'
        'platform: "onnxruntime_onnx"\n'
        f"max_batch_size: {MAX_BATCH}\n"
        f"{inputs}{outputs}"
        f"instance_group [\n  {{\n    count: 1\n    kind: {kind}\n  }}\n]\n"
        f"dynamic_batching {{\n  max_queue_delay_microseconds: {QUEUE_MICROSECONDS}\n}}\n"
        "parameters {\n"
        '  key: "intra_op_thread_count"\n'
        f'  value {{\n    string_value: "{cpu}"\n  }}\n'
        "}\n"
    )


def _tensor(side: str, value: Any) -> str:
    """One tensor; Triton adds the batch dimension itself."""
    dims = ", ".join(str(d) if isinstance(d, int) else "-1" for d in value.shape[1:])
    labels = '    label_filename: "labels.txt"\n' if value.name == PROBABILITIES else ""
    return (
        f'{side} [\n  {{\n    name: "{value.name}"\n    data_type: {TYPES[value.type]}\n'
        f"    dims: [ {dims} ]\n{labels}  }}\n]\n"
    )


def write_triton_repository(model: Path, folder: Path, *, name: str, gpus: int = 0) -> Path:
    """Lay out ``<name>/config.pbtxt``, ``labels.txt`` and ``1/model.onnx``; returns the folder."""
    import shutil

    classifier = OnnxClassifier(model)
    root = folder / name
    (root / "1").mkdir(parents=True, exist_ok=True)
    (root / "config.pbtxt").write_text(triton_config(model, name=name, gpus=gpus), encoding="utf-8")
    labels = "\n".join(label.replace("\n", " ") for label in classifier.classes)
    (root / "labels.txt").write_text(labels + "\n", encoding="utf-8")
    for source in (model, model.with_name(model.name + ".data")):
        if source.is_file():
            target = "model.onnx" if source == model else source.name
            shutil.copyfile(source, root / "1" / target)
    return root

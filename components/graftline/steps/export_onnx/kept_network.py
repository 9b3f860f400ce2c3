"""The exported network out of the machine's cache, with the head of today put in.

Exporting takes a second on tf_efficientnet_lite0 and six on a small ViT, and gives the same graph
whenever the frozen backbone is the same: of two probes only the head's tensors and the temperature
differ. So the graph of a backbone is kept under the digest of its weights, and of the code and
libraries that made it.
It is kept only if what differs is found in it unchanged. The proof on the test images follows
either way.
"""

import fcntl
import hashlib
import json
import logging
import os
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

import numpy as np
import onnx
from onnx import numpy_helper

from graftline import machine
from graftline.classifier.bundle import FROZEN, Classifier
from graftline.classifier.heads import describe_head
from graftline.files import write_atomic
from graftline.inference.onnx_cache import CACHE_BYTES
from graftline.onnx_model.predict import PROBABILITIES
from graftline.steps.export_onnx.network_graph import export_network
from graftline.steps.reuse import code_digest, library_versions

TEMPERATURE = "temperature"
HEAD = "classifier.head."  # before the names of its tensors in an exported graph

log = logging.getLogger(__name__)


def network_of(classifier: Classifier, opset: int) -> onnx.ModelProto:
    """As :func:`export_network` gives it, from the cache if it is there.

    Raises:
        ConfigurationError: The opset is not one that we can write.
    """
    if classifier.strategy not in FROZEN:
        return export_network(classifier, opset)
    folder, key = machine.cache_folder() / "networks", _key(classifier, opset)
    values = _values(classifier)
    with _one_at_a_time(machine.cache_folder() / "locks" / key):
        kept = _read(folder, key)
        if kept is not None and _put(kept, values):
            return kept
        network = export_network(classifier, opset)
        if _holds(network, values):
            _keep(folder, key, network)
    return network


@contextmanager
def _one_at_a_time(path: Path) -> Iterator[None]:
    """Wait for another process that exports the same, rather than do it beside it.

    The lock is the system's, and ends with its process. Without a folder for it nobody waits.
    """
    with ExitStack() as held:
        with suppress(OSError):
            path.parent.mkdir(parents=True, exist_ok=True)
            stream = held.enter_context(path.open("wb"))
            fcntl.flock(stream, fcntl.LOCK_EX)
        yield


def _key(classifier: Classifier, opset: int) -> str:
    """Digest of all that decides the graph but the head's tensors and the temperature."""
    decides = {
        "backbone": classifier.backbone.fingerprint(),
        "input": classifier.preprocessing.input_size,
        "head": describe_head(classifier.head),
        "opset": opset,
        "code": code_digest("export_onnx"),
        "libraries": library_versions(),
    }
    return hashlib.sha256(json.dumps(decides, sort_keys=True).encode()).hexdigest()[:32]


def _values(classifier: Classifier) -> dict[str, np.ndarray]:
    """What one classifier has otherwise than another of the same backbone, by name."""
    values = {
        f"{HEAD}{name}": np.ascontiguousarray(tensor.detach().cpu().numpy())
        for name, tensor in classifier.head.state_dict().items()
    }
    return {**values, TEMPERATURE: np.array(classifier.temperature, np.float32)}


def _slots(network: onnx.ModelProto) -> dict[str, onnx.TensorProto]:
    """The tensors that a classifier's own values go into, by their names in :func:`_values`."""
    tensors = {tensor.name: tensor for tensor in network.graph.initializer}
    made_by = {output: node for node in network.graph.node for output in node.output}
    # A tensor that another one equalled may stand for both, and then is nobody's own.
    uses = Counter(name for node in network.graph.node for name in node.input)
    tensors = {name: tensor for name, tensor in tensors.items() if uses[name] == 1}
    slots = {name: tensor for name, tensor in tensors.items() if name.startswith(HEAD)}
    softmax = made_by.get(PROBABILITIES)
    divided = made_by.get(softmax.input[0]) if softmax is not None else None
    if divided is not None and divided.op_type == "Div" and divided.input[1] in tensors:
        slots[TEMPERATURE] = tensors[divided.input[1]]
    return slots


def _holds(network: onnx.ModelProto, values: Mapping[str, np.ndarray]) -> bool:
    """Whether the exporter put all values into the graph as they are, folded into nothing."""
    slots = _slots(network)
    return slots.keys() == values.keys() and all(
        slots[name].raw_data and np.array_equal(numpy_helper.to_array(slots[name]), value)
        for name, value in values.items()
    )


def _put(network: onnx.ModelProto, values: Mapping[str, np.ndarray]) -> bool:
    """Put a classifier's values into a graph; False where they do not fit."""
    slots = _slots(network)
    if slots.keys() != values.keys():
        return False
    for name, value in values.items():
        if tuple(slots[name].dims) != value.shape:
            return False
        slots[name].raw_data = value.tobytes()
    # A division by 1 is left out of the graph, so this one is of another form.
    return float(values[TEMPERATURE]) != 1.0


def _read(folder: Path, key: str) -> onnx.ModelProto | None:
    """A kept graph; None where there is none that is whole."""
    for path in folder.glob(f"{key}-*.onnx"):
        with suppress(OSError, ValueError):
            data = path.read_bytes()
            os.utime(path)
            if path.stem == _name(key, data):
                return onnx.load_from_string(data)
        with suppress(OSError):
            path.unlink()
    return None


def _keep(folder: Path, key: str, network: onnx.ModelProto) -> None:
    """Write whole or not at all, and make room; without room it is just not kept."""
    try:
        data = network.SerializeToString(deterministic=True)
        write_atomic(folder / f"{_name(key, data)}.onnx", data)
    except (OSError, ValueError) as error:  # over 2 GB protobuf writes nothing
        log.debug("The exported graph was not kept: %s", error)
    machine.make_room(folder, CACHE_BYTES)


def _name(key: str, data: bytes) -> str:
    """What a graph is kept as: its key, and its own digest to see that it is whole."""
    return f"{key}-{hashlib.sha256(data).hexdigest()}"

"""The frozen network as an ONNX graph with one fixed batch shape, for the engines of a CPU.

This graph is the engine's own, without preprocessing, and lives in the machine's cache; the graph
that users get is made by ``export_onnx``. The tracing exporter is used since it takes a tenth of
the other's time; the caller compares with PyTorch.
"""

import io
import logging
import os
import warnings
from collections.abc import Callable
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING

from graftline import machine
from graftline.files import write_atomic
from graftline.inference.tracing import computes_shapes, trace

if TYPE_CHECKING:
    from torch import nn

OPSET = 18
SMALL_BATCH = 2
INPUT, OUTPUT = "images", "features"
CACHE_BYTES = 4 << 30  # the oldest graphs go when there are more

log = logging.getLogger(__name__)


def export(module: "nn.Module", shape: tuple[int, ...]) -> bytes:
    """The ONNX graph of a module in eval mode, weights inside.

    Args:
        module: Of one input and one output.
        shape: Of the input.

    Raises:
        Exception: Whatever the exporters raise for a network they cannot trace.
    """
    import torch

    try:
        return _traced(module, shape)
    except Exception as error:
        log.debug("TorchScript exporter: %s", error)
        sink = io.BytesIO()
        with warnings.catch_warnings(), torch.no_grad():
            warnings.simplefilter("ignore")
            program = torch.onnx.export(
                module, (torch.zeros(shape),), dynamo=True, opset_version=OPSET, verbose=False
            )
        assert program is not None
        program.save(sink)  # type: ignore[arg-type]
        return sink.getvalue()


def _traced(module: "nn.Module", shape: tuple[int, ...]) -> bytes:
    """Traced on a small batch, where the graph does not depend on how many images there are."""
    import torch

    traced = partial(trace, module, source=INPUT, outputs=(OUTPUT,), opset=OPSET)
    graph = traced(torch.zeros(min(SMALL_BATCH, shape[0]), *shape[1:]), dynamic=True)
    if computes_shapes(graph):
        graph = traced(torch.zeros(shape), dynamic=False)
    for value in (graph.graph.input[0], graph.graph.output[0]):
        value.type.tensor_type.shape.dim[0].dim_value = shape[0]
    data: bytes = graph.SerializeToString()
    return data


def cached(
    network: "Callable[[], nn.Module]", batch_size: int, image_size: int, fingerprint: str | None
) -> bytes:
    """The graph, out of the machine's cache where this network was exported before.

    Args:
        network: Gives the module in eval mode; not called if the graph is cached.
        batch_size: The one batch size of the graph.
        image_size: Side of the input in pixels.
        fingerprint: What names the network and its weights; None keeps nothing.
    """
    if fingerprint is None:
        return export(network(), (batch_size, 3, image_size, image_size))
    name = f"{fingerprint}-{batch_size}-{version('torch')}-{version('timm')}.onnx"
    path = machine.cache_folder() / "graphs" / name
    try:
        graph = path.read_bytes()
        os.utime(path)
        return graph
    except OSError:
        pass
    graph = export(network(), (batch_size, 3, image_size, image_size))
    _keep(path, graph)
    return graph


def _keep(path: Path, graph: bytes) -> None:
    """Write whole or not at all, and make room; without room the graph is just not kept."""
    try:
        write_atomic(path, graph)
    except OSError as error:
        log.debug("The exported graph was not cached: %s", error)
    machine.make_room(path.parent, CACHE_BYTES)

"""The frozen network as an ONNX graph with one fixed batch shape, for the engines of a CPU.

This graph is the engine's own, without preprocessing, and lives in the machine's cache; the graph
that users get is made by ``export_onnx``. The TorchScript exporter is used since it takes a third
of the other's time (4 s and 13 s on tf_efficientnet_lite0); the caller compares with PyTorch.
"""

import io
import logging
import os
import warnings
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING

from graftline import machine
from graftline.files import write_atomic

if TYPE_CHECKING:
    from torch import nn

OPSET = 18
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

    example = torch.zeros(shape)
    sink = io.BytesIO()
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")
        try:
            torch.onnx.export(
                module,
                (example,),
                sink,  # type: ignore[arg-type]  # a stream is taken too
                dynamo=False,
                opset_version=OPSET,
                input_names=[INPUT],
                output_names=[OUTPUT],
            )
        except Exception as error:
            log.debug("TorchScript exporter: %s", error)
            sink = io.BytesIO()
            program = torch.onnx.export(
                module, (example,), dynamo=True, opset_version=OPSET, verbose=False
            )
            assert program is not None
            program.save(sink)  # type: ignore[arg-type]
    return sink.getvalue()


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

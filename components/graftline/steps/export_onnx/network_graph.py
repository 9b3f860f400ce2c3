"""The network as an ONNX graph with a dynamic batch, by the quicker of PyTorch's two exporters.

Tracing takes a third of a second on tf_efficientnet_lite0, symbolic export 5 s. A convolutional
network gives the same graph by both. Where the trace computes shapes as it runs, as attention does
with the batch, symbolic export gives a graph of half as many nodes, so it is asked first; the trace
is left for networks that it cannot take apart. A graph is used only if it answers as PyTorch does
at other batch sizes than the example's.
"""

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import onnx
import onnx_ir
import onnxruntime
import onnxscript.optimizer
import torch
from torch import nn

from graftline.classifier.bundle import Classifier
from graftline.errors import ConfigurationError, ParityError
from graftline.inference.tracing import computes_shapes, trace
from graftline.onnx_model.predict import EMBEDDING, PROBABILITIES
from graftline.steps.export_onnx.preprocessing_graph import OUTPUT as PIXELS

OPSETS = range(18, 25)  # 18 is the first with an antialiased Resize
TRACED_OPSETS = range(18, 21)  # what the tracing exporter knows
BATCH = 2  # of the example
OTHER_BATCHES = (1, 3)
MOST_BYTES = 500e6  # of weights that are traced and checked here: it takes copies of them in memory
# On noise, of the largest value of the embedding; and of a probability, which a sharp head makes of
# rounding. What is wrong differs by far more; the proof on the test images is the exact one.
TOLERANCE, PROBABILITY_TOLERANCE = 0.01, 0.1

log = logging.getLogger(__name__)


class _Head(nn.Module):
    """What is exported: normalised pixels in, probabilities and embedding out."""

    temperature: torch.Tensor

    def __init__(self, classifier: Classifier) -> None:
        super().__init__()
        self.classifier = classifier
        self.register_buffer("temperature", torch.tensor(float(classifier.temperature)))

    def forward(self, pixels: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        embedding = self.classifier.embed(pixels)
        logits = self.classifier.head(embedding)
        return torch.softmax(logits / self.temperature, dim=1), embedding


def export_network(classifier: Classifier, opset: int) -> onnx.ModelProto:
    """The network alone: ``pixels`` float32 (N, 3, S, S) to ``probabilities`` and ``embedding``.

    Raises:
        ConfigurationError: The opset is not one that we can write.
        ParityError: Neither exporter gives a graph that answers as the network does.
    """
    if opset not in OPSETS:
        raise ConfigurationError(
            f"export.opset: {opset} cannot be written.",
            why="Antialiased resizing begins with opset 18.",
            fix=f"Give a number from {OPSETS[0]} to {OPSETS[-1]}.",
        )
    size = classifier.preprocessing.input_size
    network, example = _Head(classifier).eval(), torch.zeros(BATCH, 3, size, size)
    with _quiet(), _without_inplace(classifier):
        try:
            return _without_origins(_by_either(network, example, opset))
        except Exception as error:
            raise ParityError(
                f"{classifier.backbone.spec.name} cannot be written as ONNX.",
                why=f"Neither of PyTorch's exporters gives a graph that answers as it does: "
                f"{str(error).strip().splitlines()[0] if str(error).strip() else repr(error)}",
                fix="Take another backbone (`graftline race` compares them), or another "
                "export.opset.",
            ) from error


def _by_either(network: nn.Module, example: torch.Tensor, opset: int) -> onnx.ModelProto:
    """The traced graph, if it is right and computes no shapes; else the symbolic one, if it is."""
    traced = _traced(network, example, opset)
    if traced is not None and not computes_shapes(traced):
        return traced
    try:
        return _taken_apart(network, example, opset)
    except Exception as error:
        if traced is None:
            raise
        log.debug("The symbolic exporter: %s", error)
        return traced


def _traced(network: nn.Module, example: torch.Tensor, opset: int) -> onnx.ModelProto | None:
    """By the tracing exporter; None where it cannot, or where the graph answers otherwise."""
    weights = sum(each.nbytes for each in network.parameters())
    if opset not in TRACED_OPSETS or weights > MOST_BYTES:
        return None
    try:
        found = trace(
            network,
            example,
            source=PIXELS,
            outputs=(PROBABILITIES, EMBEDDING),
            opset=opset,
            dynamic=True,
        )
        model = onnx_ir.from_proto(found)
        onnxscript.optimizer.optimize_ir(model)
        traced = onnx_ir.to_proto(model)
        _check(traced, network, example.shape[-1])
    except Exception as error:
        log.debug("The tracing exporter: %s", error)
        return None
    return traced


def _taken_apart(network: nn.Module, example: torch.Tensor, opset: int) -> onnx.ModelProto:
    """By the symbolic exporter."""
    program = torch.onnx.export(
        network,
        (example,),
        dynamo=True,
        dynamic_shapes=({0: torch.export.Dim("N", min=1)},),
        input_names=[PIXELS],
        output_names=[PROBABILITIES, EMBEDDING],
        opset_version=opset,
        verbose=False,
    )
    assert program is not None
    model = program.model_proto
    _check(model, network, example.shape[-1])
    return model


def _check(model: onnx.ModelProto, network: nn.Module, size: int) -> None:
    """Let ONNX Runtime and PyTorch answer batches of other sizes.

    Raises:
        ValueError: They differ.
    """
    if model.ByteSize() > MOST_BYTES:
        return
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1  # the export runs beside other steps
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    draw = torch.Generator().manual_seed(0)
    for count in OTHER_BATCHES:
        pixels = torch.randn(count, 3, size, size, generator=draw)
        with torch.no_grad():
            expected = [each.numpy() for each in network(pixels)]
        found = session.run([PROBABILITIES, EMBEDDING], {PIXELS: pixels.numpy()})
        largest = max(1e-6, float(np.nan_to_num(np.abs(expected[1])).max()))
        limits = PROBABILITY_TOLERANCE, TOLERANCE * largest
        for one, other, limit in zip(found, expected, limits, strict=True):
            same = one.shape == other.shape
            if not same or not np.allclose(one, other, rtol=0, atol=limit, equal_nan=True):
                raise ValueError(f"a batch of {count} images is answered otherwise.")


def _without_origins(model: onnx.ModelProto) -> onnx.ModelProto:
    """Drop notes that name source files and lines: they differ between machines and say nothing."""
    for node in model.graph.node:
        del node.metadata_props[:]
        node.doc_string = ""
    for value in (*model.graph.value_info, *model.graph.input, *model.graph.output):
        del value.metadata_props[:]
    for tensor in model.graph.initializer:
        del tensor.metadata_props[:]
    del model.graph.metadata_props[:]
    del model.metadata_props[:]
    return model


@contextmanager
def _without_inplace(network: nn.Module) -> Iterator[None]:
    """With activations that make a new tensor: the answers are the same, the export is shorter.

    The exporter takes every in-place activation apart symbolically, which is half of its time on
    tf_efficientnet_lite0 (7 s of 11).
    """
    changed = [each for each in network.modules() if getattr(each, "inplace", False) is True]
    for each in changed:
        each.inplace = False  # type: ignore[assignment]
    try:
        yield
    finally:
        for each in changed:
            each.inplace = True  # type: ignore[assignment]


@contextmanager
def _quiet() -> Iterator[None]:
    """Without the exporter's notes on its own internals."""
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            yield
        finally:
            logger.setLevel(level)

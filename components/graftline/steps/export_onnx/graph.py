"""One ONNX graph, from uint8 pixels of any size to calibrated probabilities and the embedding.

The network is exported by PyTorch with a dynamic batch; the preprocessing before it is written
out (:mod:`graftline.steps.export_onnx.preprocessing_graph`). Both are merged into one file that
holds its weights, its classes and where it comes from.
"""

import dataclasses
import hashlib
import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import onnx
import torch
from onnx import compose, helper, numpy_helper
from torch import nn

from graftline.classifier.bundle import Classifier
from graftline.classifier.class_means import ClassMeans
from graftline.errors import ConfigurationError
from graftline.onnx_model.predict import DISTANCE, EMBEDDING, INPUT, PROBABILITIES, ModelMetadata
from graftline.steps.export_onnx.preprocessing_graph import OUTPUT as PIXELS
from graftline.steps.export_onnx.preprocessing_graph import preprocessing_graph

OPSETS = range(18, 25)  # 18 is the first with an antialiased Resize
INLINE_BYTES = 2**31 - 2**24  # protobuf holds 2 GiB; what is larger keeps its weights beside it


class _Head(nn.Module):
    """What is exported: normalised pixels in, probabilities and embedding out."""

    def __init__(self, classifier: Classifier) -> None:
        super().__init__()
        self.classifier = classifier

    def forward(self, pixels: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        embedding = self.classifier.embed(pixels)
        logits = self.classifier.head(embedding)
        return torch.softmax(logits / self.classifier.temperature, dim=1), embedding


def export_network(classifier: Classifier, opset: int) -> onnx.ModelProto:
    """The network alone: ``pixels`` float32 (N, 3, S, S) to ``probabilities`` and ``embedding``.

    Raises:
        ConfigurationError: The opset is not one that we can write.
    """
    if opset not in OPSETS:
        raise ConfigurationError(
            f"export.opset: {opset} cannot be written.",
            why="Antialiased resizing begins with opset 18.",
            fix=f"Give a number from {OPSETS[0]} to {OPSETS[-1]}.",
        )
    size = classifier.preprocessing.input_size
    with _quiet(), _without_inplace(classifier):
        program = torch.onnx.export(
            _Head(classifier).eval(),
            (torch.zeros(2, 3, size, size),),
            dynamo=True,
            dynamic_shapes=({0: torch.export.Dim("N", min=1)},),
            input_names=[PIXELS],
            output_names=[PROBABILITIES, EMBEDDING],
            opset_version=opset,
            verbose=False,
        )
    assert program is not None
    return without_origins(program.model_proto)


def compose_graph(
    network: onnx.ModelProto,
    metadata: ModelMetadata,
    classifier: Classifier,
    class_means: ClassMeans | None = None,
) -> onnx.ModelProto:
    """Put the preprocessing before the network, and the metadata into the model.

    Args:
        network: As :func:`export_network` made it, in any precision, with float32 input.
        metadata: What the file is to say about itself.
        classifier: The source of the preprocessing and the widths.
        class_means: Adds the output ``distance``, for the out-of-distribution threshold.
    """
    before = preprocessing_graph(
        classifier.preprocessing, source=INPUT, opset=metadata.opset, ir_version=network.ir_version
    )
    before.opset_import.extend(o for o in network.opset_import if o.domain)
    before = compose.add_prefix(before, "preprocessing/", rename_inputs=False, rename_outputs=False)
    model = compose.merge_models(before, network, io_map=[(PIXELS, PIXELS)], name="graftline")
    del model.graph.output[:]
    widths = [
        (PROBABILITIES, len(metadata.classes)),
        (EMBEDDING, classifier.backbone.spec.feature_dim),
    ]
    if class_means is not None:
        _add_distance(model.graph, class_means)
        widths.append((DISTANCE, 1))
    model.graph.output.extend(
        helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, ["N", width])
        for name, width in widths
    )
    del model.graph.value_info[:]
    imported = {opset.domain: opset.version for opset in model.opset_import}
    del model.opset_import[:]
    model.opset_import.extend(helper.make_opsetid(*each) for each in imported.items())
    model.producer_name = "graftline"
    model.producer_version = metadata.graftline_version
    model.doc_string = ""
    helper.set_model_props(model, metadata.to_properties())
    return model


def _add_distance(graph: onnx.GraphProto, class_means: ClassMeans) -> None:
    """Cosine distance of the centred embedding to the nearest class mean, (N, 1), in fp32."""
    constants = {
        "mean": class_means.mean.astype(np.float32),
        "means": np.ascontiguousarray(class_means.means.T.astype(np.float32)),
        "tiny": np.array(1e-12, np.float32),
        "one": np.array(1, np.float32),
        "axis": np.array([1], np.int64),
    }
    steps = (
        ("Sub", (EMBEDDING, "mean"), "centred"),
        ("ReduceL2", ("centred", "axis"), "length"),
        ("Max", ("length", "tiny"), "positive"),
        ("Div", ("centred", "positive"), "unit"),
        ("MatMul", ("unit", "means"), "cosines"),
        ("ReduceMax", ("cosines", "axis"), "nearest"),
        ("Sub", ("one", "nearest"), DISTANCE),
    )
    ends = (EMBEDDING, DISTANCE)

    def name(value: str) -> str:
        return value if value in ends else f"{DISTANCE}/{value}"

    graph.initializer.extend(
        numpy_helper.from_array(value, name(key)) for key, value in constants.items()
    )
    graph.node.extend(
        helper.make_node(
            operator, [*map(name, inputs)], [name(output)], name=f"node_{name(output)}"
        )
        for operator, inputs, output in steps
    )


def save_model(model: onnx.ModelProto, path: Path) -> None:
    """Write the file, checked, with its weights inside unless they are over 2 GB."""
    path.parent.mkdir(parents=True, exist_ok=True)
    external = model.ByteSize() > INLINE_BYTES
    data = path.name + ".data"
    onnx.save_model(
        model, path, save_as_external_data=external, location=data if external else None
    )
    check_model(path)


def content_digest(model: onnx.ModelProto, metadata: ModelMetadata) -> str:
    """sha256 of all that the file holds but the run's id: two runs of one model are equal here."""
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    del copy.metadata_props[:]
    helper.set_model_props(copy, dataclasses.replace(metadata, run_id="").to_properties())
    return hashlib.sha256(copy.SerializeToString(deterministic=True)).hexdigest()


def check_model(path: Path) -> None:
    """Let ONNX check the file's form, its types and its shapes; raises what ONNX raises."""
    onnx.checker.check_model(str(path), full_check=True)


def without_origins(model: onnx.ModelProto) -> onnx.ModelProto:
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

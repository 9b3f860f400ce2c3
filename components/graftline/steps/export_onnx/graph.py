"""One ONNX graph, from uint8 pixels of any size to calibrated probabilities and the embedding.

The network comes from PyTorch (:mod:`graftline.steps.export_onnx.network_graph`); the preprocessing
before it is written out (:mod:`graftline.steps.export_onnx.preprocessing_graph`). Both are merged
into one file that holds its weights, its classes and where it comes from.
"""

import dataclasses
import hashlib
from pathlib import Path

import numpy as np
import onnx
from onnx import compose, helper, numpy_helper

from graftline.classifier.bundle import Classifier
from graftline.classifier.class_means import ClassMeans
from graftline.onnx_model.predict import DISTANCE, EMBEDDING, INPUT, PROBABILITIES, ModelMetadata
from graftline.steps.export_onnx.preprocessing_graph import OUTPUT as PIXELS
from graftline.steps.export_onnx.preprocessing_graph import preprocessing_graph

INLINE_BYTES = 2**31 - 2**24  # protobuf holds 2 GiB; what is larger keeps its weights beside it


def compose_graph(
    network: onnx.ModelProto,
    metadata: ModelMetadata,
    classifier: Classifier,
    class_means: ClassMeans | None = None,
) -> onnx.ModelProto:
    """Put the preprocessing before the network, and the metadata into the model.

    Args:
        network: As :mod:`graftline.steps.export_onnx.network_graph` makes it, in any precision,
            with float32 input.
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

"""The network in lower precision: static int8 by calibration, and fp16.

Only the network is converted. Preprocessing stays in fp32, as do the head and the softmax: they
cost nothing and decide the label.
"""

import logging
import tempfile
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import onnx

from graftline.onnx_model.predict import EMBEDDING, PROBABILITIES
from graftline.steps.export_onnx.preprocessing_graph import OUTPUT as PIXELS

CALIBRATION_BATCH = 16
# Relu and Clip belong here: the quantiser then drops them and lets the range of the integers
# before them do their work. Left out, each becomes a way to float32 and back (half of the speed).
QUANTISED = (
    *("Conv", "Gemm", "MatMul", "Add", "GlobalAveragePool", "MaxPool"),
    *("Relu", "Clip"),
)


def to_fp16(network: onnx.ModelProto) -> onnx.ModelProto:
    """Weights and arithmetic in half precision; inputs and outputs stay float32."""
    from onnxruntime.transformers.float16 import convert_float_to_float16
    from onnxruntime.transformers.onnx_model import OnnxModel

    copy = onnx.ModelProto()
    copy.CopyFrom(network)
    blocked = _after_embedding(copy)
    with _quiet():
        half = OnnxModel(
            convert_float_to_float16(copy, keep_io_types=True, node_block_list=blocked)
        )
    half.topological_sort()  # the converter puts its casts last
    return half.model


def to_int8(
    network: onnx.ModelProto, calibration: np.ndarray, *, spared: int = 0
) -> onnx.ModelProto:
    """Static int8: per-channel weights, activation ranges measured on training images.

    Args:
        network: ``pixels`` float32 (N, 3, S, S) to ``probabilities`` and ``embedding``.
        calibration: float32 (M, 3, S, S), normalised.
        spared: How many of the first convolutions stay in fp32: they see few channels and lose
            the most.
    """
    from onnxruntime import quantization
    from onnxruntime.quantization.shape_inference import quant_pre_process

    with tempfile.TemporaryDirectory() as temporary, _quiet():
        source, folded = Path(temporary) / "network.onnx", Path(temporary) / "folded.onnx"
        target = Path(temporary) / "int8.onnx"
        onnx.save_model(network, source)
        quant_pre_process(str(source), str(folded), skip_symbolic_shape=True)
        model = onnx.load(folded)
        left_out = _after_embedding(model) + _convolutions(model)[:spared]
        quantization.quantize_static(
            str(folded),
            str(target),
            _Calibration(calibration),
            quant_format=quantization.QuantFormat.QDQ,
            per_channel=True,
            activation_type=quantization.QuantType.QUInt8,
            weight_type=quantization.QuantType.QInt8,
            op_types_to_quantize=list(QUANTISED),
            nodes_to_exclude=left_out,
            calibrate_method=quantization.CalibrationMethod.MinMax,
            extra_options={"CalibMovingAverage": True, "QuantizeBias": True},
        )
        return onnx.load(target)


class _Calibration:
    """Hands the calibration images to ONNX Runtime in small batches."""

    def __init__(self, images: np.ndarray) -> None:
        starts = range(0, len(images), CALIBRATION_BATCH)
        self._batches: Iterator[np.ndarray] = (images[s : s + CALIBRATION_BATCH] for s in starts)

    def get_next(self) -> dict[str, Any] | None:
        batch = next(self._batches, None)
        return None if batch is None else {PIXELS: batch}

    def set_range(self, start_index: int, end_index: int) -> None:
        """Part of ONNX Runtime's protocol; it asks for ranges only of sized readers."""


def _after_embedding(model: onnx.ModelProto) -> list[str]:
    """Names of the nodes that lie between the embedding and the probabilities."""
    makers = {output: node for node in model.graph.node for output in node.output}
    names, waiting = [], [PROBABILITIES]
    while waiting:
        value = waiting.pop()
        node = makers.get(value)
        if value == EMBEDDING or node is None or node.name in names:
            continue
        names.append(node.name)
        waiting.extend(node.input)
    return names


def _convolutions(model: onnx.ModelProto) -> list[str]:
    """Names of the convolutions, the first one first."""
    return [node.name for node in model.graph.node if node.op_type == "Conv"]


@contextmanager
def _quiet() -> Iterator[None]:
    """Without ONNX Runtime's advice on its own quantisation tool."""
    previous = logging.root.manager.disable
    logging.disable(logging.WARNING)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            yield
        finally:
            logging.disable(previous)

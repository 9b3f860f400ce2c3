"""A network as an ONNX graph by PyTorch's tracing exporter, which runs it once on an example."""

import io
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import onnx
    import torch
    from torch import nn

BATCH = "N"  # the name of a dynamic batch


def trace(
    module: "nn.Module",
    example: "torch.Tensor",
    *,
    source: str,
    outputs: Sequence[str],
    opset: int,
    dynamic: bool,
) -> "onnx.ModelProto":
    """The graph of a module in eval mode, weights inside.

    Args:
        module: Of one input.
        example: (N, 3, S, S); the module runs on it.
        source: What the graph calls its input.
        outputs: What it calls its outputs.
        opset: Of the graph.
        dynamic: Whether the batch is; else it is the example's.

    Raises:
        Exception: Whatever the exporter raises for a network that it cannot trace.
    """
    import onnx
    import torch

    sink = io.BytesIO()
    with warnings.catch_warnings(), torch.no_grad(), _fixed_padding():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            module,
            (example,),
            sink,  # type: ignore[arg-type]  # a stream is taken too
            dynamo=False,
            opset_version=opset,
            input_names=[source],
            output_names=list(outputs),
            dynamic_axes={name: {0: BATCH} for name in (source, *outputs)} if dynamic else None,
        )
    return onnx.load_from_string(sink.getvalue())


def computes_shapes(model: "onnx.ModelProto") -> bool:
    """Whether a graph reads the shape of something as it runs, as attention does with the batch."""
    return any(node.op_type == "Shape" for node in model.graph.node)


@contextmanager
def _fixed_padding() -> Iterator[None]:
    """With timm's "same" padding as the number that it comes to at this image size.

    Traced unchanged, each padded convolution computes its padding for every batch: 20% slower.
    """
    from timm.layers import padding

    computed: Callable[..., int] = padding.get_same_padding

    def as_number(size: "int | torch.Tensor", *rest: int) -> int:
        return computed(int(size), *rest)

    padding.get_same_padding = as_number
    try:
        yield
    finally:
        padding.get_same_padding = computed

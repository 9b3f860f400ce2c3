"""One frozen network in one inference library, one batch shape in, features out.

A CPU runner is called from several threads at once and does each call on one core: cores work on
batches of their own, so none waits for another, and the result does not depend on how many
there are.
"""

from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import numpy.typing as npt

from graftline import machine
from graftline.inference.onnx_cache import CACHE_BYTES, INPUT

if TYPE_CHECKING:
    from torch import nn

Array = npt.NDArray[np.float32]

# How libraries that have no exception of their own for it say that memory ran out.


class Runner(Protocol):
    """What an engine runs.

    Attributes:
        kind: ``onnxruntime``, ``openvino``, ``torch`` or ``cuda``.
        precision: ``fp32`` or ``bf16``.
    """

    kind: str
    precision: str

    def __call__(self, batch: Array) -> Array:
        """Features (B, D) of a full batch (B, 3, S, S)."""
        ...


class OnnxRuntimeRunner:
    """ONNX Runtime on the calling thread."""

    kind = "onnxruntime"
    precision = "fp32"

    def __init__(self, graph: bytes) -> None:
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        options.inter_op_num_threads = 1
        options.log_severity_level = 3
        self._session = onnxruntime.InferenceSession(
            graph, options, providers=["CPUExecutionProvider"]
        )

    def __call__(self, batch: Array) -> Array:
        """Features of a full batch."""
        features: Array = self._session.run(None, {INPUT: batch})[0]
        return features.reshape(len(batch), -1)


class OpenVinoRunner:
    """OpenVINO with one stream of one thread for each core."""

    kind = "openvino"

    def __init__(self, graph: bytes, *, precision: str, cores: int, keep: bool = False) -> None:
        import openvino

        core, cache = openvino.Core(), machine.cache_folder() / "openvino"
        if keep:  # compiling takes seconds
            core.set_property({"CACHE_DIR": str(cache)})
        self.precision = precision
        self._model = core.compile_model(
            core.read_model(graph),
            "CPU",
            {
                "INFERENCE_PRECISION_HINT": "bf16" if precision == "bf16" else "f32",
                "NUM_STREAMS": cores,
                "INFERENCE_NUM_THREADS": cores,
                "ENABLE_CPU_PINNING": False,
            },
        )
        if keep:
            machine.make_room(cache, CACHE_BYTES)
        self._idle: list[Any] = [self._model.create_infer_request() for _ in range(cores)]
        _set_up(self._idle[0])

    def __call__(self, batch: Array) -> Array:
        """Features of a full batch."""
        try:
            request = self._idle.pop()  # atomic, as is append: one request a thread
        except IndexError:
            request = self._model.create_infer_request()
        request.infer([batch], share_inputs=True)
        features: Array = request.get_output_tensor(0).data.copy()
        self._idle.append(request)
        return features.reshape(len(batch), -1)


def _set_up(request: Any) -> None:
    """Touch what OpenVINO's bindings set up at their first use, in one thread.

    Two threads that do so at once wait for each other for ever: one holds the guard of a table and
    waits for Python's lock, the other holds that lock and waits for the guard.
    """
    import openvino

    taken = request.get_input_tensor(0)
    shape, dtype = tuple(taken.shape), taken.get_element_type().to_dtype()
    openvino.Tensor(np.zeros(shape, dtype), shared_memory=True)
    request.get_output_tensor(0).data.copy()


class TorchRunner:
    """PyTorch on the calling thread: for networks that cannot be exported, and as reference."""

    kind = "torch"

    def __init__(self, module: "nn.Module", *, precision: str) -> None:
        import torch

        self.precision = precision
        self._module = module.eval().to(memory_format=torch.channels_last)

    def __call__(self, batch: Array) -> Array:
        """Features of a full batch."""
        import torch

        images = torch.from_numpy(batch).contiguous(memory_format=torch.channels_last)
        with torch.no_grad(), torch.autocast("cpu", enabled=self.precision == "bf16"):
            features: Array = self._module(images).float().flatten(1).numpy()
        return features

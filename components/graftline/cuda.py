"""A frozen network on a CUDA device: transfer, compute and result overlap.

Encoded images are decoded by worker processes into page-locked memory. A batch travels to the
device on a stream of its own while the one before is computed; the network is captured as a CUDA
graph, so a batch costs one launch.
"""

import copy
import logging
import threading
from collections import deque
from collections.abc import Iterable, Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.backends import cudnn

from graftline.decoding import DecodingWorkers
from graftline.runners import Array, is_out_of_memory

WARM_UP = 3  # calls before a capture: libraries choose their kernels in them
ON_THEIR_WAY = 2  # batches whose features were asked for and not yet given out

log = logging.getLogger(__name__)


class CudaRunner:
    """The network on the device, one batch shape.

    Kernels are chosen by rule, not by timing, and without TF32: the same batch gives the same
    bytes in every run on one kind of device, and ``fp32`` is fp32.

    Args:
        module: In eval mode; a copy of it is moved to the device.
        shape: (B, 3, S, S).
        precision: ``fp32`` or ``bf16`` by autocast.
        device: Which.
    """

    kind = "cuda"

    def __init__(
        self, module: nn.Module, shape: tuple[int, int, int, int], *, precision: str, device: str
    ) -> None:
        self.precision = precision
        self.device = torch.device(device)
        moved: Any = copy.deepcopy(module).eval()
        self._module: nn.Module = moved.to(self.device, memory_format=torch.channels_last)
        self._input = torch.zeros(shape, device=self.device).to(memory_format=torch.channels_last)
        self._one_at_a_time = threading.Lock()
        self._graph, self._output = self._capture()

    def __call__(self, batch: Array) -> Array:
        """Features (B, D) of a full batch, waiting for them; :func:`run` does not wait."""
        with self._one_at_a_time:
            features: Array = self.compute(torch.from_numpy(batch).to(self.device)).cpu().numpy()
        return features

    def compute(self, images: Tensor) -> Tensor:
        """Features of a batch on the device, queued on the present stream; valid until the next."""
        self._input.copy_(images)
        if self._graph is None:
            return self._forward()
        self._graph.replay()
        return self._output

    def _forward(self) -> Tensor:
        with (
            torch.inference_mode(),
            cudnn.flags(enabled=True, benchmark=False, deterministic=True, allow_tf32=False),
            torch.autocast(
                "cuda", torch.bfloat16, enabled=self.precision == "bf16", cache_enabled=False
            ),
        ):
            features: Tensor = self._module(self._input)
            return features.float().flatten(1)

    def _capture(self) -> tuple[Any, Tensor]:
        """The network as a graph; None where it does something that a graph cannot hold."""
        side: Any = torch.cuda.Stream(self.device)  # type: ignore[no-untyped-call]
        side.wait_stream(torch.cuda.current_stream(self.device))
        with torch.cuda.stream(side):
            for _ in range(WARM_UP):
                output = self._forward()
        torch.cuda.current_stream(self.device).wait_stream(side)
        torch.cuda.synchronize(self.device)
        graph = torch.cuda.CUDAGraph()
        try:
            with torch.cuda.graph(graph):
                output = self._forward()
        except RuntimeError as error:
            if is_out_of_memory(error):
                raise
            log.info("No CUDA graph of this network, it is launched step by step: %s", error)
            torch.cuda.synchronize(self.device)
            return None, output
        return graph, output


def run(
    runner: CudaRunner, workers: DecodingWorkers, images: Iterable[bytes], first: int = 0
) -> Iterator[Array]:
    """Features of encoded images, batch by batch in order, with two batches on their way.

    Args:
        runner: The network.
        workers: Just started; their batches have the runner's shape.
        images: Encoded.
        first: Position of the first one, for errors.
    """
    copying: Any = torch.cuda.Stream(runner.device)  # type: ignore[no-untyped-call]
    computing: Any = torch.cuda.current_stream(runner.device)
    ring = torch.from_numpy(workers.ring)
    pinned = _pin(ring)
    staging = [torch.empty(ring.shape[1:], device=runner.device) for _ in range(2)]
    used = [_event() for _ in staging]
    waiting: deque[tuple[Tensor, int, Any]] = deque()
    try:
        for number, (slot, count) in enumerate(workers.batches(images, first)):
            buffer, free, arrived, done = staging[number % 2], used[number % 2], _event(), _event()
            with torch.cuda.stream(copying):
                copying.wait_event(free)
                buffer.copy_(ring[slot], non_blocking=pinned)
                arrived.record(copying)
            computing.wait_event(arrived)
            features = runner.compute(buffer)
            free.record(computing)
            host = torch.empty(features.shape, pin_memory=True)
            host.copy_(features, non_blocking=True)
            done.record(computing)
            waiting.append((host, count, done))
            arrived.synchronize()
            workers.release(slot)
            if len(waiting) > ON_THEIR_WAY:
                yield _result(*waiting.popleft())
        while waiting:
            yield _result(*waiting.popleft())
    finally:
        torch.cuda.synchronize(runner.device)
        if pinned:
            _cudart().cudaHostUnregister(ring.data_ptr())


def _result(host: Tensor, count: int, done: Any) -> Array:
    done.synchronize()
    features: Array = host[:count].numpy().copy()  # page-locked memory is scarce
    return features


def _pin(ring: Tensor) -> bool:
    """Page-lock the shared memory, so that transfers overlap; False where that is refused."""
    return int(_cudart().cudaHostRegister(ring.data_ptr(), ring.nbytes, 0)) == 0


def _event() -> Any:
    return torch.cuda.Event()  # type: ignore[no-untyped-call]


def _cudart() -> Any:
    return torch.cuda.cudart()  # type: ignore[no-untyped-call]

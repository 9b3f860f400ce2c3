"""A frozen network on a CUDA device: transfer, compute and result overlap.

Encoded images are decoded by worker processes into page-locked memory. A batch travels to the
device on a stream of its own while the one before is computed; the network is captured as a CUDA
graph, so a batch costs one launch.
"""

from collections import deque
from collections.abc import Iterable, Iterator
from typing import Any

import torch
from torch import Tensor, nn

from graftline.decoding import DecodingWorkers
from graftline.runners import Array

WARM_UP = 3  # calls before a capture: libraries choose their kernels in them


class CudaRunner:
    """The network on the device, one batch shape.

    Args:
        module: In eval mode; it is moved to the device.
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
        self._module = module.to(self.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        self._input = torch.zeros(shape, device=self.device).to(memory_format=torch.channels_last)
        self._graph, self._output = self._capture()

    def __call__(self, batch: Array) -> Array:
        """Features (B, D) of a full batch, waiting for them; :func:`run` does not wait."""
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
            torch.autocast(
                "cuda", torch.bfloat16, enabled=self.precision == "bf16", cache_enabled=False
            ),
        ):
            features: Tensor = self._module(self._input)
        return features.float().flatten(1)

    def _capture(self) -> tuple[Any, Tensor]:
        """The network as a graph; None where it does something that a graph cannot hold."""
        side = torch.cuda.Stream(self.device)  # type: ignore[no-untyped-call]
        side.wait_stream(torch.cuda.current_stream(self.device))
        with torch.cuda.stream(side):
            for _ in range(WARM_UP):
                output = self._forward()
        torch.cuda.current_stream(self.device).wait_stream(side)
        graph = torch.cuda.CUDAGraph()
        try:
            with torch.cuda.graph(graph):
                output = self._forward()
        except torch.cuda.OutOfMemoryError:
            raise
        except RuntimeError:
            torch.cuda.synchronize(self.device)
            return None, output
        return graph, output


def run(runner: CudaRunner, workers: DecodingWorkers, images: Iterable[bytes]) -> Iterator[Array]:
    """Features of encoded images, batch by batch in order, with two batches on their way."""
    copying = torch.cuda.Stream(runner.device)  # type: ignore[no-untyped-call]
    computing = torch.cuda.current_stream(runner.device)
    pinned = _pin(workers.ring)
    ring = torch.from_numpy(workers.ring)
    staging = [torch.empty(ring.shape[1:], device=runner.device) for _ in range(2)]
    used = [torch.cuda.Event() for _ in staging]  # type: ignore[no-untyped-call]
    waiting: deque[tuple[Tensor, int, torch.cuda.Event]] = deque()
    try:
        for number, (slot, count) in enumerate(workers.batches(images)):
            buffer, free = staging[number % 2], used[number % 2]
            with torch.cuda.stream(copying):
                copying.wait_event(free)
                buffer.copy_(ring[slot], non_blocking=pinned)
                arrived = torch.cuda.Event()  # type: ignore[no-untyped-call]
                arrived.record(copying)
            computing.wait_event(arrived)
            features = runner.compute(buffer)
            free.record(computing)
            host = torch.empty(features.shape, pin_memory=True)
            host.copy_(features, non_blocking=True)
            done = torch.cuda.Event()  # type: ignore[no-untyped-call]
            done.record(computing)
            waiting.append((host, count, done))
            arrived.synchronize()
            workers.release(slot)
            if len(waiting) > 2:
                yield _result(*waiting.popleft())
        while waiting:
            yield _result(*waiting.popleft())
    finally:
        torch.cuda.synchronize(runner.device)
        if pinned:
            torch.cuda.cudart().cudaHostUnregister(ring.data_ptr())  # type: ignore[no-untyped-call]


def _result(host: Tensor, count: int, done: "torch.cuda.Event") -> Array:
    done.synchronize()
    features: Array = host[:count].numpy()
    return features


def _pin(ring: Array) -> bool:
    """Page-lock the shared memory, so that transfers overlap; False where that is refused."""
    address = torch.from_numpy(ring).data_ptr()
    return int(torch.cuda.cudart().cudaHostRegister(address, ring.nbytes, 0)) == 0  # type: ignore[no-untyped-call]

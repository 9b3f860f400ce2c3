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
from contextlib import ExitStack, contextmanager, suppress
from typing import Any

import torch
from torch import Tensor, nn
from torch.backends import cudnn

from graftline.inference.decode_workers import DecodingWorkers
from graftline.inference.runners import Array
from graftline.machine import is_out_of_memory

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
        if self._output is None:
            return self._forward()
        self._graph.replay()
        return self._output

    def _forward(self) -> Tensor:
        with (
            torch.no_grad(),
            exact(),
            torch.autocast(
                "cuda", torch.bfloat16, enabled=self.precision == "bf16", cache_enabled=False
            ),
        ):
            features: Tensor = self._module(self._input)
            return features.float().flatten(1)

    def _capture(self) -> tuple[Any, Tensor | None]:
        """The network as a graph, and what it writes; None where it does what no graph can hold."""
        before = torch.cuda.current_stream(self.device)
        side: Any = torch.cuda.Stream(self.device)  # type: ignore[no-untyped-call]
        side.wait_stream(before)
        with torch.cuda.stream(side):
            for _ in range(WARM_UP):
                self._forward()
        torch.cuda.synchronize(self.device)
        graph = torch.cuda.CUDAGraph()
        try:
            with torch.cuda.graph(graph):
                output = self._forward()
        except RuntimeError as error:
            # Where the capture cannot even be ended, PyTorch leaves its stream the current one,
            # and that it could not be ended hides why.
            torch.cuda.set_stream(before)
            for each in (error, error.__context__):
                if each is not None and is_out_of_memory(each):
                    raise each from None
            log.info("This network runs without a CUDA graph, kernel by kernel: %s", error)
            torch.cuda.synchronize(self.device)
            return None, None
        return graph, output


# What may compute in TF32: convolutions, recurrent layers and matrix products on a device. The
# last entry is of the CPU; PyTorch's older switch of matrix products changes it as well.
_OPERATIONS = (("cuda", "conv"), ("cuda", "rnn"), ("cuda", "matmul"), ("mkldnn", "matmul"))
_CUDNN = {"enabled": True, "benchmark": False, "deterministic": True, "depthwise_kernel": "auto"}


@contextmanager
def exact() -> Iterator[None]:
    """Kernels chosen by rule, and fp32 that is fp32, whatever the caller set in PyTorch.

    PyTorch has older and newer switches of TF32. Reading an older one fails where a newer one says
    something else, and so does ``cudnn.flags``; hence the newer ones are set first. All of them
    are as they were afterwards.
    """
    with ExitStack() as restore:
        for name, value in _CUDNN.items():
            if not hasattr(cudnn, name):  # an older PyTorch, which has no such choice
                continue
            restore.callback(setattr, cudnn, name, getattr(cudnn, name))
            setattr(cudnn, name, value)
        for which in _OPERATIONS:
            found = torch._C._get_fp32_precision_getter(*which)
            restore.callback(torch._C._set_fp32_precision_setter, *which, found)
        _no_tf32()
        # The older switches set the newer ones too, so they are restored before them.
        restore.callback(torch.set_float32_matmul_precision, torch.get_float32_matmul_precision())
        torch.set_float32_matmul_precision("highest")
        restore.callback(setattr, cudnn, "allow_tf32", _cudnn_allows_tf32())
        cudnn.allow_tf32 = False
        _no_tf32()  # the last line left it to a switch of all backends
        yield


def _no_tf32() -> None:
    for which in _OPERATIONS:
        torch._C._set_fp32_precision_setter(*which, "ieee")


def _cudnn_allows_tf32() -> bool:
    """What the older switch says while the newer ones say no: reading it fails where it differs."""
    try:
        return cudnn.allow_tf32
    except RuntimeError:
        return True


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
    device = runner.device
    copying: Any = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
    computing: Any = torch.cuda.current_stream(device)
    ring = torch.from_numpy(workers.ring)
    pinned = False
    waiting: deque[tuple[Tensor, int, Any]] = deque()
    try:
        pinned = _pin(ring, device)
        staging = [torch.empty(ring.shape[1:], device=device) for _ in range(2)]
        used = [_event() for _ in staging]
        copying.wait_stream(computing)  # which may still use what their memory was before
        for number, (slot, count) in enumerate(workers.batches(images, first)):
            buffer, free, arrived, done = staging[number % 2], used[number % 2], _event(), _event()
            with torch.cuda.stream(copying):
                copying.wait_event(free)
                buffer.copy_(ring[slot], non_blocking=pinned)
                arrived.record(copying)
            with torch.cuda.stream(computing):  # whatever the stream of who asks for this batch
                computing.wait_event(arrived)
                features = runner.compute(buffer)
                free.record(computing)
                host = _page_locked(features.shape)
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
        try:
            torch.cuda.synchronize(device)
        finally:
            if pinned:
                _cudart().cudaHostUnregister(ring.data_ptr())


def _result(host: Tensor, count: int, done: Any) -> Array:
    done.synchronize()
    features: Array = host[:count].numpy().copy()  # page-locked memory is scarce
    return features


def _page_locked(shape: torch.Size) -> Tensor:
    return torch.empty(shape, pin_memory=True)


def _pin(ring: Tensor, device: torch.device) -> bool:
    """Page-lock the shared memory, so that transfers overlap; False where that is refused."""
    if int(_cudart().cudaHostRegister(ring.data_ptr(), ring.nbytes, 0)) == 0:
        return True
    # CUDA keeps the refusal for whoever asks next: let that be a launch that nobody needs.
    with suppress(RuntimeError):
        torch.ones(1, device=device).add_(1.0)
    return False


def _event() -> Any:
    """One whose ``synchronize`` sleeps: the core is for decoding."""
    return torch.cuda.Event(blocking=True)  # type: ignore[no-untyped-call]


def _cudart() -> Any:
    return torch.cuda.cudart()  # type: ignore[no-untyped-call]

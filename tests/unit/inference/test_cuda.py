"""What the CUDA engine does around the device, with stand-ins for the device itself.

What a device computes is tested in tests/gpu.
"""

import contextlib
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch.backends import cudnn

from graftline.inference import cuda

SWITCHES = [
    ("generic", "all"),
    ("cuda", "all"),
    ("cuda", "conv"),
    ("cuda", "rnn"),
    ("cuda", "matmul"),
    ("mkldnn", "all"),
    ("mkldnn", "matmul"),
]


def older(read: Callable[[], object]) -> object:
    try:
        return read()
    except RuntimeError:
        return "mixed"


def switches() -> dict[str, object]:
    """All that PyTorch says of precision and cuDNN."""
    found: dict[str, object] = {
        " ".join(which): torch._C._get_fp32_precision_getter(*which) for which in SWITCHES
    }
    found["cudnn"] = older(lambda: cudnn.allow_tf32)
    found["cublas"] = older(lambda: torch.backends.cuda.matmul.allow_tf32)
    found["matmul"] = older(torch.get_float32_matmul_precision)
    return found | {name: getattr(cudnn, name) for name in cuda._CUDNN}


def _new_conv() -> None:
    torch._C._set_fp32_precision_setter("cuda", "conv", "ieee")


def _new_matmul() -> None:
    torch.backends.cuda.matmul.fp32_precision = "tf32"


def _all_backends() -> None:
    torch.backends.fp32_precision = "tf32"


def _older_no_and_all_yes() -> None:
    cudnn.allow_tf32 = False
    torch.backends.fp32_precision = "tf32"


def _medium_and_new() -> None:
    torch.set_float32_matmul_precision("medium")
    torch._C._set_fp32_precision_setter("cuda", "matmul", "ieee")


def _benchmark() -> None:
    cudnn.benchmark, cudnn.deterministic, cudnn.enabled = True, False, False


SETTINGS: list[Callable[[], object]] = [
    lambda: None,
    lambda: torch.set_float32_matmul_precision("high"),
    lambda: torch.set_float32_matmul_precision("medium"),
    lambda: setattr(torch.backends.cuda.matmul, "allow_tf32", True),
    lambda: setattr(cudnn, "allow_tf32", False),
    _new_conv,
    _new_matmul,
    _all_backends,
    _older_no_and_all_yes,
    _medium_and_new,
    _benchmark,
]


@pytest.fixture
def own_switches() -> Iterator[None]:
    """PyTorch's defaults before and after."""

    def default() -> None:
        torch.backends.fp32_precision = "none"
        cudnn.allow_tf32 = True
        torch.set_float32_matmul_precision("highest")
        cudnn.enabled, cudnn.benchmark, cudnn.deterministic = True, False, False

    default()
    yield
    default()


@pytest.mark.parametrize("setting", SETTINGS)
def test_fp32_is_fp32_and_the_callers_settings_are_given_back(
    setting: Callable[[], object], own_switches: None
) -> None:
    setting()
    before = switches()
    with pytest.raises(KeyError), cuda.exact():
        inside = switches()
        assert [inside[f"cuda {each}"] for each in ("conv", "rnn", "matmul")] == 3 * ["ieee"]
        assert (inside["cudnn"], inside["cublas"], inside["matmul"]) == (False, False, "highest")
        assert inside["enabled"] and inside["deterministic"] and not inside["benchmark"]
        with cudnn.flags(enabled=True):  # a network may use it
            torch.conv2d(torch.ones(1, 1, 4, 4), torch.ones(1, 1, 2, 2))
        raise KeyError
    assert switches() == before


class Stream:
    """Notes what is waited for."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.waited: list[Any] = []

    def wait_stream(self, other: "Stream") -> None:
        self.waited.append(other)

    def wait_event(self, event: Any) -> None:
        self.waited.append(event)


class Device:
    """Stand-ins: all is done at once, on the CPU. Streams are told apart by name."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.current = Stream("caller's")
        self.registered: set[int] = set()
        self.refusal = 0
        self.copying = Stream("copying")
        patches: dict[str, Any] = {
            "Stream": lambda *_: self.copying,
            "current_stream": lambda *_: self.current,
            "set_stream": lambda stream: setattr(self, "current", stream),
            "stream": self.stream,
            "synchronize": lambda *_: None,
            "CUDAGraph": lambda: SimpleNamespace(replay=lambda: None),
            "graph": self.graph,
        }
        for name, value in patches.items():
            monkeypatch.setattr(torch.cuda, name, value)
        monkeypatch.setattr(cuda, "_event", self.event)
        monkeypatch.setattr(cuda, "_page_locked", torch.empty)
        monkeypatch.setattr(cuda, "_cudart", lambda: self)
        self.end_of_capture: Exception | None = None

    @contextlib.contextmanager
    def stream(self, stream: Stream) -> Iterator[None]:
        before, self.current = self.current, stream
        yield
        self.current = before

    @contextlib.contextmanager
    def graph(self, _: object) -> Iterator[None]:
        """As PyTorch's: where the capture cannot be ended, the stream stays."""
        before, self.current = self.current, Stream("capture")
        try:
            yield
        finally:
            if self.end_of_capture is not None:
                raise self.end_of_capture
            self.current = before

    def event(self) -> Any:
        return SimpleNamespace(record=lambda *_: None, synchronize=lambda: None)

    def cudaHostRegister(self, pointer: int, size: int, flags: int) -> int:
        if not self.refusal:
            self.registered.add(pointer)
        return self.refusal

    def cudaHostUnregister(self, pointer: int) -> None:
        self.registered.remove(pointer)


@pytest.fixture
def device(monkeypatch: pytest.MonkeyPatch) -> Device:
    return Device(monkeypatch)


class Workers:
    """Batches of two rows whose values count up."""

    def __init__(self, batches: int) -> None:
        self.ring = np.zeros((4, 2, 3, 4, 4), np.float32)
        self.count = batches
        self.released: list[int] = []

    def batches(self, images: object, first: int) -> Iterator[tuple[int, int]]:
        for number in range(self.count):
            self.ring[number % 4] = number
            yield number % 4, 2

    def release(self, slot: int) -> None:
        self.released.append(slot)


class Runner:
    """Gives the first pixel; notes the stream it was called on."""

    def __init__(self, device: Device, fails_at: int = -1) -> None:
        self.device, self._there, self._fails_at = torch.device("cpu"), device, fails_at
        self.streams: list[str] = []

    def compute(self, images: torch.Tensor) -> torch.Tensor:
        if len(self.streams) == self._fails_at:
            raise torch.OutOfMemoryError("CUDA out of memory.")
        self.streams.append(self._there.current.name)
        return images[:, 0, 0, :1].clone()


def running(device: Device, workers: Workers, **options: Any) -> tuple[Any, Iterator[np.ndarray]]:
    runner = Runner(device, **options)
    return runner, cuda.run(runner, workers, [])  # type: ignore[arg-type]


@pytest.mark.parametrize("refusal", [0, 712])
def test_batches_come_in_order_on_the_streams_they_began_on(device: Device, refusal: int) -> None:
    device.refusal = refusal
    computing = device.current
    workers = Workers(7)
    runner, batches = running(device, workers)
    found = [next(batches)]
    assert bool(device.registered) == (not refusal)
    device.current = Stream("another")  # of whoever goes on
    found += list(batches)
    assert np.concatenate(found)[:, 0].tolist() == [n for n in range(7) for _ in range(2)]
    assert set(runner.streams) == {computing.name} and device.current.name == "another"
    assert computing in device.copying.waited
    assert workers.released == [n % 4 for n in range(7)]
    assert not device.registered


def test_memory_is_unlocked_however_a_run_ends(
    device: Device, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, batches = running(device, Workers(7))
    next(batches)
    batches.close()  # type: ignore[attr-defined]
    assert not device.registered
    _, batches = running(device, Workers(7), fails_at=1)
    with pytest.raises(torch.OutOfMemoryError):
        list(batches)
    assert not device.registered

    def fails(*_: object, **__: object) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory.")

    _, batches = running(device, Workers(7))
    with monkeypatch.context() as patches, pytest.raises(torch.OutOfMemoryError):
        patches.setattr(torch, "empty", fails)  # that of the staging
        next(batches)
    assert not device.registered
    _, batches = running(device, Workers(7))
    next(batches)
    monkeypatch.setattr(torch.cuda, "synchronize", fails)
    with pytest.raises(torch.OutOfMemoryError):
        list(batches)
    assert not device.registered


def test_a_refused_page_lock_is_forgotten(device: Device, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its error waits for the next launch: here one whose failure nobody sees."""
    pending: list[str] = ["part or all of the requested memory range is already mapped"]
    ones = torch.ones

    def launch(*arguments: Any, **options: Any) -> torch.Tensor:
        if pending:
            raise torch.AcceleratorError(pending.pop())
        return ones(*arguments, **options)

    monkeypatch.setattr(torch, "ones", launch)
    device.refusal = 712
    assert not cuda._pin(torch.zeros(4), torch.device("cpu"))
    assert not pending


class Network(nn.Module):
    """Fails from the capture on."""

    def __init__(self, error: Exception | None) -> None:
        super().__init__()
        self.error, self.calls = error, 0

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        self.calls += 1
        if self.error is not None and self.calls == cuda.WARM_UP + 1:
            raise self.error
        return images.mean((2, 3))

    def __deepcopy__(self, memo: object) -> "Network":
        return self


def made(network: Network) -> cuda.CudaRunner:
    return cuda.CudaRunner(network, (2, 3, 4, 4), precision="fp32", device="cpu")


def test_without_a_graph_the_stream_is_the_callers_again(device: Device) -> None:
    caller = device.current
    device.end_of_capture = RuntimeError("operation failed due to a previous error during capture")
    runner = made(
        Network(torch.AcceleratorError("operation not permitted when stream is capturing"))
    )
    assert device.current is caller
    assert runner._graph is None and runner._output is None
    assert runner(np.ones((2, 3, 4, 4), np.float32)).tolist() == 2 * [3 * [1.0]]
    assert runner._module.calls == cuda.WARM_UP + 2  # type: ignore[union-attr]


@pytest.mark.parametrize("hidden", [False, True])
def test_want_of_memory_in_a_capture_is_not_hidden_by_its_end(device: Device, hidden: bool) -> None:
    caller = device.current
    device.end_of_capture = RuntimeError("capture was invalidated") if hidden else None
    with pytest.raises(torch.OutOfMemoryError):
        made(Network(torch.OutOfMemoryError("CUDA out of memory.")))
    assert device.current is caller


def test_a_graph_is_replayed(device: Device) -> None:
    network = Network(None)
    runner = made(network)
    calls = network.calls
    runner(np.ones((2, 3, 4, 4), np.float32))
    assert runner._graph is not None and network.calls == calls

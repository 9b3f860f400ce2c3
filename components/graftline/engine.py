"""Runs a frozen network over encoded images as fast as this machine can.

On a CPU every core is a lane that carries a batch of its own from bytes to features: decode,
resize, network. No core waits for another, nothing is handed between processes, and since each
batch is computed on one core in one shape, the features are the same bytes whatever the number of
cores. Decoders, resize and inference libraries all let go of Python's lock while they work.
"""

import logging
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from graftline import machine, onnx_graph
from graftline.backbones import Backbone
from graftline.errors import ConfigurationError, DataError
from graftline.pixels import decode
from graftline.preprocessing import Preprocessing
from graftline.runners import (
    CPU_ENGINES,
    Array,
    OnnxRuntimeRunner,
    OpenVinoRunner,
    Runner,
    TorchRunner,
)
from graftline.runtime import Progress, message

ENGINES = ("auto", *CPU_ENGINES)
PRECISIONS = ("auto", "fp32", "bf16")
CPU_BATCH = 16
SMALLEST_AGREEMENT = 0.9999  # cosine with PyTorch in fp32, below which an fp32 engine is not used
TRIAL_BATCHES = 3
FEW_IMAGES = 64  # fewer are run in PyTorch as they are: exporting takes seconds

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Agreement:
    """How close an engine is to PyTorch in fp32 on a sample.

    Attributes:
        cosine: The smallest over the sample.
        difference: The largest absolute one, relative to the largest feature.
        images: Size of the sample.
    """

    cosine: float
    difference: float
    images: int

    def to_dict(self) -> dict[str, float]:
        """For JSON and metrics."""
        return {"cosine": self.cosine, "difference": self.difference, "images": self.images}


class Engine:
    """A network ready to run.

    Attributes:
        kind: Which library runs it.
        precision: ``fp32`` or ``bf16``.
        batch_size: Images in a batch; the last batch is filled up.
        agreement: With PyTorch in fp32.
    """

    def __init__(
        self,
        runner: Runner,
        preprocessing: Preprocessing,
        *,
        batch_size: int,
        lanes: int,
        agreement: Agreement,
        rebuild: Callable[[int], Runner],
    ) -> None:
        self.kind, self.precision = runner.kind, runner.precision
        self.preprocessing = preprocessing
        self.batch_size = batch_size
        self.agreement = agreement
        self._runner, self._lanes, self._rebuild = runner, lanes, rebuild

    def run(self, images: Iterable[bytes]) -> Iterator[Array]:
        """Features of encoded images, batch by batch in order.

        Yields:
            (n, D) float32, n up to ``batch_size``.

        Raises:
            DataError: An image cannot be decoded; its position is named.
        """
        iterator = iter(images)
        threads = torch.get_num_threads()
        pool = ThreadPoolExecutor(
            self._lanes, "lane", initializer=torch.set_num_threads, initargs=(1,)
        )
        waiting: deque[Future[Array]] = deque()
        first = 0
        try:
            while batch := list(islice(iterator, self.batch_size)):
                waiting.append(pool.submit(self._carry, batch, first))
                first += len(batch)
                if len(waiting) > 2 * self._lanes:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            pool.shutdown(wait=True, cancel_futures=True)
            torch.set_num_threads(threads)

    def _carry(self, images: list[bytes], first: int) -> Array:
        """One batch from bytes to features, on this thread."""
        size = self.preprocessing.input_size
        batch = np.zeros((self.batch_size, 3, size, size), np.float32)
        for row, data in enumerate(images):
            try:
                batch[row] = self.preprocessing.apply(decode(data)).numpy()
            except DataError as error:
                raise DataError(
                    f"Image {first + row} cannot be decoded: {error.what}",
                    why=error.why,
                    fix="Run ingest again; it sets such images aside.",
                ) from error
        return self._runner(batch)[: len(images)]


def open_engine(
    model: nn.Module,
    preprocessing: Preprocessing,
    *,
    engine: str = "auto",
    precision: str = "fp32",
    batch_size: int | None = None,
) -> Engine:
    """Make a network ready on this machine.

    Args:
        model: A backbone, or any module of one (N, 3, S, S) input and one (N, D) output.
        preprocessing: From bytes to its input.
        engine: ``auto`` tries which is fastest and remembers it on this machine.
        precision: ``fp32``, ``bf16``, or ``auto`` for bf16 where the processor has it.
        batch_size: Images in a batch.
    """
    _check(engine, ENGINES, "engine")
    _check(precision, PRECISIONS, "precision")
    resolved = resolve_precision(precision)
    model = model.eval()
    batch = batch_size or CPU_BATCH
    lanes = machine.cores()
    build = _Builder(model, preprocessing.input_size, resolved, lanes)
    kind = engine if engine != "auto" else _fastest(build, batch)
    runner, agreement = build.checked(kind, batch)
    return Engine(
        runner,
        preprocessing,
        batch_size=batch,
        lanes=lanes,
        agreement=agreement,
        rebuild=lambda smaller: build(kind, smaller),
    )


def resolve_precision(precision: str) -> str:
    """``auto`` to what this machine computes in."""
    if precision != "auto":
        return precision
    return "bf16" if machine.has_bf16() else "fp32"


def forward_images(
    module: nn.Module,
    preprocessing: Preprocessing,
    images: Iterable[bytes],
    *,
    total: int | None,
    description: str,
    batch_size: int | None = None,
) -> Array:
    """Run any module over encoded images with the fastest engine that is exact.

    Args:
        module: One (N, 3, S, S) input, one (N, D) output.
        preprocessing: From bytes to its input.
        images: Encoded images.
        total: How many there are, for the progress bar.
        description: What is being done, a few words.
        batch_size: Images in a batch.

    Returns:
        (N, D) float32 in the order of the images.
    """
    few = total is not None and total <= FEW_IMAGES
    engine = open_engine(
        module, preprocessing, engine="torch" if few else "auto", batch_size=batch_size
    )
    parts: list[Array] = []
    with Progress(description, total) as bar:
        for features in engine.run(images):
            parts.append(features)
            bar.advance(len(features))
    if not parts:
        return np.zeros((0, 0), np.float32)
    return np.concatenate(parts)


class _Builder:
    """Makes runners of one network, and compares them with PyTorch."""

    def __init__(self, module: nn.Module, size: int, precision: str, lanes: int) -> None:
        self.module, self.size, self.precision, self.lanes = module, size, precision, lanes
        self.fingerprint = module.fingerprint("graph") if isinstance(module, Backbone) else None
        self._graphs: dict[int, bytes] = {}
        self._runners: dict[tuple[str, int], Runner] = {}

    def kinds(self) -> list[str]:
        """What can run this precision, the likely fastest first."""
        if self.precision == "bf16":
            return ["openvino", "torch"]
        return ["onnxruntime", "openvino"]

    def __call__(self, kind: str, batch: int) -> Runner:
        if (kind, batch) not in self._runners:
            self._runners[kind, batch] = self._build(kind, batch)
        return self._runners[kind, batch]

    def checked(self, kind: str, batch: int) -> tuple[Runner, Agreement]:
        """A runner that agrees with PyTorch; PyTorch itself where this kind does not."""
        if kind == "torch" and self.precision == "fp32":
            return self(kind, batch), Agreement(1.0, 0.0, 0)
        try:
            runner = self(kind, batch)
            agreement = self.agreement(runner, batch)
        except Exception as error:
            log.warning("%s cannot run this network, PyTorch does: %s", kind, error)
            return self("torch", batch), Agreement(1.0, 0.0, 0)
        if self.precision == "fp32" and agreement.cosine < SMALLEST_AGREEMENT:
            log.warning(
                "%s differs from PyTorch on this network (cosine %.6f); PyTorch runs it.",
                kind,
                agreement.cosine,
            )
            return self("torch", batch), Agreement(1.0, 0.0, 0)
        return runner, agreement

    def agreement(self, runner: Runner, batch: int) -> Agreement:
        """Compare on a sample of smooth pictures with noise, always the same."""
        sample = sample_batch(batch, self.size)
        with torch.inference_mode():
            wanted = self.module(torch.from_numpy(sample)).float().flatten(1).numpy()
        found = runner(sample)
        norms = np.linalg.norm(wanted, axis=1) * np.linalg.norm(found, axis=1)
        cosine = (wanted * found).sum(1) / np.maximum(norms, 1e-12)
        largest = max(float(np.abs(wanted).max()), 1e-12)
        return Agreement(float(cosine.min()), float(np.abs(wanted - found).max()) / largest, batch)

    def _build(self, kind: str, batch: int) -> Runner:
        if kind == "torch":
            return TorchRunner(self.module, precision=self.precision)
        if batch not in self._graphs:
            self._graphs[batch] = onnx_graph.cached(self.module, batch, self.size, self.fingerprint)
        if kind == "onnxruntime":
            if self.precision != "fp32":
                raise ConfigurationError(
                    "ONNX Runtime computes in fp32 only on a CPU.",
                    fix="Use `engine: auto` or `openvino` with bf16.",
                )
            return OnnxRuntimeRunner(self._graphs[batch])
        return OpenVinoRunner(self._graphs[batch], precision=self.precision, lanes=self.lanes)


def sample_batch(batch: int, size: int) -> npt.NDArray[np.float32]:
    """(batch, 3, size, size) smooth normalised pictures with some noise, always the same."""
    generator = np.random.default_rng(0)
    coarse = torch.from_numpy(generator.normal(size=(batch, 3, 8, 8)).astype(np.float32))
    smooth = torch.nn.functional.interpolate(coarse, (size, size), mode="bicubic").numpy()
    noise = generator.normal(scale=0.1, size=smooth.shape).astype(np.float32)
    return np.ascontiguousarray(smooth + noise, dtype=np.float32)


def _fastest(build: _Builder, batch: int) -> str:
    """The kind that ran a few batches fastest on this machine, remembered."""
    key: dict[str, Any] = {
        "network": build.fingerprint or type(build.module).__name__,
        "size": build.size,
        "batch": batch,
        "precision": build.precision,
        "processor": machine.processor(),
        "cores": build.lanes,
        "versions": _versions(),
    }
    memory = machine.remembered("trials", key)
    if memory is not None and memory.get("engine") in build.kinds():
        return str(memory["engine"])
    rates: dict[str, float] = {}
    for kind in build.kinds():
        try:
            rates[kind] = _rate(build(kind, batch), batch, build)
        except Exception as error:
            log.info("%s cannot run this network: %s", kind, error)
    if not rates:
        return "torch"
    best = max(rates, key=lambda kind: rates[kind])
    told = ", ".join(f"{kind} {rate:.0f}" for kind, rate in rates.items())
    message("Engine %s, by trial (images a second: %s).", best, told)
    if build.fingerprint is not None:
        machine.remember("trials", key, {"engine": best, "images_per_second": rates})
    return best


def _rate(runner: Runner, batch: int, build: _Builder) -> float:
    """Images a second with every core on batches of its own."""
    sample = sample_batch(batch, build.size)
    runner(sample)
    threads = torch.get_num_threads()
    with ThreadPoolExecutor(build.lanes, initializer=torch.set_num_threads, initargs=(1,)) as pool:
        started = time.perf_counter()
        list(pool.map(lambda _: runner(sample), range(TRIAL_BATCHES * build.lanes)))
        seconds = time.perf_counter() - started
    torch.set_num_threads(threads)
    return TRIAL_BATCHES * build.lanes * batch / seconds


def _versions() -> str:
    from importlib.metadata import version

    return " ".join(version(name) for name in ("onnxruntime", "openvino", "torch"))


def _check(value: str, allowed: tuple[str, ...], key: str) -> None:
    if value not in allowed:
        raise ConfigurationError(
            f"`{key}: {value}` is not known.", fix=f"Use one of {', '.join(allowed)}."
        )

"""Runs a frozen network over encoded images as fast as this machine can.

On a CPU every core takes a batch of its own from bytes to features: decode, resize, network. No
core waits for another, nothing is handed between processes, and since each batch is computed on one
core in one shape, the features are the same bytes whatever the number of cores. Decoders, resize
and inference libraries all let go of Python's lock while they work.

On a CUDA device, worker processes decode into shared memory while the device computes
(:mod:`graftline.inference.cuda`).
"""

import logging
import threading
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import Future
from contextlib import closing
from itertools import chain, islice
from typing import TYPE_CHECKING

import numpy as np

from graftline import machine
from graftline.errors import ConfigurationError, DataError
from graftline.images.preprocessing import Preprocessing
from graftline.inference.autotune import CPU_BATCH, SAMPLE_IMAGES, TRIAL_PAYS, Candidates
from graftline.inference.cpu_pool import cpu_pool
from graftline.inference.decode_workers import DecodingWorkers, network_input, undecodable
from graftline.inference.runners import Array, Runner
from graftline.machine import CPU_ENGINES, is_out_of_memory
from graftline.progress import Progress, message

if TYPE_CHECKING:
    from torch import nn

ENGINES = ("auto", *CPU_ENGINES)
PRECISIONS = ("auto", "fp32", "bf16")
GRAPH = "graph"  # in the place of a precision, the fingerprint of a network in any of them
CUDA_BATCH = 256
FEW_IMAGES = 64  # fewer are run in PyTorch as they are: exporting takes seconds

log = logging.getLogger(__name__)


class Engine:
    """A network ready to run.

    Attributes:
        kind: Which library runs it.
        precision: ``fp32`` or ``bf16``.
        batch_size: Images in a batch; the last batch is filled up. Halved where memory runs out.
        agreement: With PyTorch in fp32. With bf16, on the first images that this network got on
            this machine, from the end of a run on.
    """

    def __init__(
        self,
        candidates: Candidates,
        kind: str,
        preprocessing: Preprocessing,
        batch_size: int,
        images: int | None = None,
    ) -> None:
        self.preprocessing, self.batch_size = preprocessing, batch_size
        self._images = images
        self._candidates, self._cores = candidates, candidates.cores
        self._local = threading.local()
        self._runner: Runner
        self._open(kind)

    def _open(self, kind: str) -> None:
        """Make the runner, with half the batch as often as memory runs out."""
        while not self._opened(kind):
            self._candidates.drop()  # now that no error holds frames which use them
        self.kind, self.precision = self._runner.kind, self._runner.precision
        self._candidates.drop()  # those that were slower

    def _opened(self, kind: str) -> bool:
        try:
            chosen = kind if kind != "auto" else self._fastest()
            found = self._candidates.checked(chosen, self.batch_size)
        except Exception as error:
            if not is_out_of_memory(error):
                raise
            self._halve(error)
            return False
        self._runner, self.agreement, self.batch_size = found
        return True

    def _fastest(self) -> str:
        return self._candidates.fastest(self.batch_size, self._images)

    def _halve(self, error: BaseException) -> None:
        if self.batch_size == 1:
            raise ConfigurationError(
                "There is not enough memory to run this network on one image.",
                why=str(error).partition("\n")[0],
                fix="Give the step more memory, or use a smaller backbone or image_size.",
            ) from error
        message(
            "Memory ran out with %s images in a batch; continuing with %s.",
            self.batch_size,
            self.batch_size // 2,
        )
        self.batch_size //= 2

    def run(self, images: Iterable[bytes]) -> Iterator[Array]:
        """Features of encoded images, batch by batch in order.

        Yields:
            (n, D) float32, n up to ``batch_size``.

        Raises:
            DataError: An image cannot be decoded; its position is named.
            ConfigurationError: Memory does not even suffice for one image.
        """
        source: Iterator[bytes] = iter(images)
        taken: deque[bytes] = deque()  # images whose features were not yet given out
        done = 0
        while True:
            source, taken = chain(taken, source), deque()
            sample: tuple[list[bytes], Array] | None = None
            try:
                with closing(self._batches(_noted(source, taken), done)) as batches:
                    for features in batches:
                        if sample is None:
                            count = min(len(features), SAMPLE_IMAGES)
                            sample = list(islice(taken, count)), features[:count].copy()
                        for _ in range(len(features)):
                            taken.popleft()
                        done += len(features)
                        yield features
                break
            except Exception as error:
                if not is_out_of_memory(error):
                    raise
                self._halve(error)
            # Not before the error is gone: it holds the frames that memory ran out in, and with
            # them the runner.
            del self._runner
            self._candidates.drop()
            self._open(self.kind)
        if sample is not None and self.precision == "bf16":
            self._measure(*sample)

    def _batches(self, images: Iterator[bytes], first: int) -> Generator[Array, None, None]:
        if self.kind != "cuda":
            return self._on_cores(images, first)
        head = list(islice(images, 2 * self.batch_size))
        if len(head) < 2 * self.batch_size:  # workers take seconds to start
            return self._few_on_device(iter(head), first)
        return self._on_device(chain(head, images), first)

    def _on_cores(self, images: Iterator[bytes], first: int) -> Generator[Array, None, None]:
        """Every core carries batches of its own."""
        waiting: deque[Future[Array]] = deque()
        with cpu_pool(self._cores, pytorch=self.kind == "torch") as pool:
            while batch := list(islice(images, self.batch_size)):
                waiting.append(pool.submit(self._carry, batch, first))
                first += len(batch)
                if len(waiting) > 2 * self._cores:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()

    def _carry(self, images: list[bytes], first: int) -> Array:
        """One batch from bytes to features, on this thread."""
        size = self.preprocessing.input_size
        batch = getattr(self._local, "batch", None)  # used again: fresh memory costs page faults
        if batch is None or len(batch) != self.batch_size:
            batch = self._local.batch = np.zeros((self.batch_size, 3, size, size), np.float32)
        self._decode(images, first, batch)
        return self._runner(batch)[: len(images)]

    def _decode(self, images: list[bytes], first: int, batch: Array) -> None:
        """Fill a batch; rows without an image are zero."""
        for row, data in enumerate(images):
            try:
                network_input(data, self.preprocessing, batch[row])
            except DataError as error:
                raise undecodable(first + row, error) from error
        batch[len(images) :] = 0.0

    def _few_on_device(self, images: Iterator[bytes], first: int) -> Generator[Array, None, None]:
        """Every core decodes a part of the batch that the device computes then."""
        size = self.preprocessing.input_size
        inputs = np.zeros((self.batch_size, 3, size, size), np.float32)
        with cpu_pool(self._cores, pytorch=False) as pool:
            while batch := list(islice(images, self.batch_size)):
                inputs[len(batch) :] = 0.0
                rows = -(-len(batch) // self._cores)
                parts = [
                    pool.submit(
                        self._decode,
                        batch[start : start + rows],
                        first + start,
                        inputs[start : start + rows],
                    )
                    for start in range(0, len(batch), rows)
                ]
                for part in parts:
                    part.result()
                yield self._runner(inputs)[: len(batch)]
                first += len(batch)

    def _on_device(self, images: Iterator[bytes], first: int) -> Generator[Array, None, None]:
        """Worker processes decode beside the device."""
        from graftline.inference import cuda

        assert isinstance(self._runner, cuda.CudaRunner)
        with DecodingWorkers(
            self.preprocessing, self.batch_size, max(1, self._cores - 1)
        ) as workers:
            yield from cuda.run(self._runner, workers, images, first)

    def _measure(self, images: list[bytes], features: Array) -> None:
        """Agreement on the first images themselves, while no device waits for it."""
        size = self.preprocessing.input_size

        def inputs() -> Array:
            batch = np.zeros((len(images), 3, size, size), np.float32)
            self._decode(images, 0, batch)
            return batch

        try:
            self.agreement = self._candidates.agreement_on(
                self.kind, self.batch_size, inputs, features
            )
        except Exception as error:
            if not is_out_of_memory(error):
                raise
            log.info("Not enough memory to measure the agreement on the images: %s", error)


def open_engine(
    module: "nn.Module",
    preprocessing: Preprocessing,
    *,
    engine: str = "auto",
    precision: str = "fp32",
    batch_size: int | None = None,
    images: int | None = None,
) -> Engine:
    """Make a network ready on this machine.

    Args:
        module: A backbone, or any module of one (N, 3, S, S) input and one (N, D) output.
        preprocessing: From bytes to its input.
        engine: ``auto`` takes the CUDA device where there is one, else tries which library is
            fastest and remembers it on this machine; ``torch`` is PyTorch on the device or CPU.
        precision: ``fp32``, ``bf16``, or ``auto`` for bf16 where the machine computes in it.
        batch_size: Images in a batch.
        images: How many it will run, where that decides whether a trial pays.
    """
    from graftline.models.backbone import Backbone

    return open_named(
        module.eval,
        module.fingerprint(GRAPH) if isinstance(module, Backbone) else None,
        preprocessing,
        engine=engine,
        precision=precision,
        batch_size=batch_size,
        images=images,
    )


def open_named(
    network: "Callable[[], nn.Module]",
    fingerprint: str | None,
    preprocessing: Preprocessing,
    *,
    engine: str = "auto",
    precision: str = "fp32",
    batch_size: int | None = None,
    kind: str | None = None,
    images: int | None = None,
) -> Engine:
    """Make a network ready that need not be built where this machine has its graph.

    There, on a CPU, PyTorch is not even imported.

    Args:
        network: Builds it, in eval mode.
        fingerprint: Of the backbone that it builds, in precision ``graph``; None for a module
            that has none.
        preprocessing: From bytes to its input.
        engine: As of :func:`open_engine`.
        precision: As of :func:`open_engine`.
        batch_size: As of :func:`open_engine`.
        kind: The very runner, in place of what ``engine`` would come to here: ``torch`` is then
            the CPU even beside a device, ``cuda`` is the device.
        images: As of :func:`open_engine`.
    """
    _check(engine, ENGINES, "engine")
    _check(precision, PRECISIONS, "precision")
    if kind is None:
        device = "cuda" if engine in ("auto", "torch") and machine.has_cuda() else None
        kind = engine if device is None else "cuda"
    else:
        device = "cuda" if kind == "cuda" else None
    candidates = Candidates(
        network,
        fingerprint,
        preprocessing.input_size,
        resolve_precision(precision, engine),
        machine.cores(),
        device,
    )
    default = CPU_BATCH if device is None else CUDA_BATCH
    return Engine(candidates, kind, preprocessing, batch_size or default, images)


def resolve_precision(precision: str, engine: str = "auto") -> str:
    """``auto`` to what this machine computes in.

    Args:
        precision: As of :func:`open_engine`.
        engine: What will run; only ``auto`` and ``torch`` are for a device.
    """
    if precision != "auto":
        return precision
    if engine == "onnxruntime":
        return "fp32"
    if engine != "openvino" and machine.has_cuda():
        import torch

        return "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "fp32"
    return "bf16" if machine.has_bf16() else "fp32"


def forward_images(
    module: "nn.Module",
    preprocessing: Preprocessing,
    images: Iterable[bytes],
    *,
    total: int | None,
    description: str,
    batch_size: int | None = None,
    precision: str = "fp32",
) -> Array:
    """Run any module over encoded images with the fastest engine that agrees with PyTorch.

    Args:
        module: One (N, 3, S, S) input, one (N, D) output.
        preprocessing: From bytes to its input.
        images: Encoded images.
        total: How many there are, for the progress bar.
        description: What is being done, a few words.
        batch_size: Images in a batch.
        precision: As of :func:`open_engine`; fp32 for few images, whose engine is there most often.

    Returns:
        (N, D) float32 in the order of the images.
    """
    few = total is not None and total <= FEW_IMAGES
    if total and batch_size is None and machine.has_cuda():
        batch_size = min(total, CUDA_BATCH)  # the device computes all of a batch, filled or not
    engine = open_engine(
        module,
        preprocessing,
        engine="torch" if few else "auto",
        precision="fp32" if total is not None and total < TRIAL_PAYS else precision,
        batch_size=batch_size,
        images=total,
    )
    parts: list[Array] = []
    with Progress(description, total) as bar:
        for features in engine.run(images):
            parts.append(features)
            bar.advance(len(features))
    if not parts:
        return np.zeros((0, 0), np.float32)
    return np.concatenate(parts)


def _noted(images: Iterator[bytes], taken: deque[bytes]) -> Iterator[bytes]:
    """The same images, each put down as it is taken."""
    for data in images:
        taken.append(data)
        yield data


def _check(value: str, allowed: tuple[str, ...], key: str) -> None:
    if value not in allowed:
        raise ConfigurationError(
            f"`{key}: {value}` is not known.", fix=f"Use one of {', '.join(allowed)}."
        )

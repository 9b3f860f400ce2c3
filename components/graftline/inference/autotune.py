"""Which library runs a network fastest on this machine, and whether it computes the same.

Both answers are remembered on the machine: a later run opens its engine without measuring again.
"""

import logging
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import cache
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from graftline import machine
from graftline.errors import ConfigurationError
from graftline.inference import onnx_cache
from graftline.inference.cpu_pool import cpu_pool
from graftline.inference.runners import (
    Array,
    OnnxRuntimeRunner,
    OpenVinoRunner,
    Runner,
    TorchRunner,
)
from graftline.machine import is_out_of_memory
from graftline.progress import message

if TYPE_CHECKING:
    from torch import nn

SMALLEST_AGREEMENT = 0.9999  # cosine with PyTorch in fp32, below which an fp32 engine is not used
TRIAL_ROUNDS = 3
TRIAL_BATCHES = 1  # a core and round
SURE = 1.3  # times as fast after two rounds: the third would not change the choice
TRIAL_PAYS = 2000  # images, from which a faster engine makes up for finding it
CPU_BATCH = 16
SAMPLE_IMAGES = 4  # that agreement is measured on; PyTorch in fp32 is up to ten times as slow
LIBRARIES = ("onnxruntime", "openvino", "timm", "torch")

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Agreement:
    """How close an engine is to PyTorch in fp32 on a sample.

    Attributes:
        cosine: The smallest over the sample.
        difference: The largest absolute one, relative to the largest feature.
        images: Size of the sample; 0 where the engine is PyTorch in fp32 itself.
    """

    cosine: float
    difference: float
    images: int

    def to_dict(self) -> dict[str, float]:
        """For JSON and metrics."""
        return asdict(self)


ITSELF = Agreement(1.0, 0.0, 0)


class Candidates:
    """Runners of one network, made once each, and compared with PyTorch.

    Args:
        network: Gives the module in eval mode. It is asked once at most, and not at all where
            this machine remembers all that needs it.
        fingerprint: What names the network and its weights; None remembers nothing.
        size: Side of the input in pixels.
        precision: ``fp32`` or ``bf16``.
        cores: Cores that run batches of their own.
        device: A CUDA device, or None for the CPU.
    """

    def __init__(
        self,
        network: "Callable[[], nn.Module]",
        fingerprint: str | None,
        size: int,
        precision: str,
        cores: int,
        device: str | None = None,
    ) -> None:
        self.module = cache(network)
        self.fingerprint, self.size, self.precision = fingerprint, size, precision
        self.cores, self.device = cores, device
        self._runners: dict[tuple[str, int], Runner] = {}

    def kinds(self) -> list[str]:
        """What can run this precision here, the likely fastest first."""
        if self.device is not None:
            return ["cuda"]
        if self.precision == "bf16":
            return ["openvino", "torch"]
        return ["onnxruntime", "openvino"]

    def get(self, kind: str, batch: int) -> Runner:
        """A runner for this batch size."""
        if (kind, batch) not in self._runners:
            self._runners[kind, batch] = self._build(kind, batch)
        return self._runners[kind, batch]

    def drop(self) -> None:
        """Let go of all runners and their memory."""
        self._runners.clear()
        if self.device is not None:
            import torch

            torch.cuda.empty_cache()

    def fastest(self, batch: int, images: int | None = None) -> str:
        """The kind that ran a few batches on every core fastest on this machine.

        Kinds take turns and the best round of each counts: what else the machine does meanwhile
        slows single rounds, never speeds one up.

        Args:
            batch: Images in a batch.
            images: How many there are to run, if that is known: for few of them the likely fastest
                is taken without a trial.
        """
        kinds = self.kinds()
        if len(kinds) == 1:
            return kinds[0]
        memory = machine.remembered("trials", self._key(batch)) if self.fingerprint else None
        if memory is not None and memory.get("engine") in kinds:
            return str(memory["engine"])
        sample, rates = sample_batch(batch, self.size), {}
        for kind in kinds:
            try:
                self.get(kind, batch)(sample)
                rates[kind] = 0.0
            except Exception as error:
                if is_out_of_memory(error):
                    raise
                log.info("%s cannot run this network: %s", kind, error)
            if rates and images is not None and images < TRIAL_PAYS:
                return next(iter(rates))
        if not rates:
            return "torch"
        for number in range(TRIAL_ROUNDS):
            if number == TRIAL_ROUNDS - 1 and max(rates.values()) > SURE * min(rates.values()):
                break
            for kind in rates:
                rates[kind] = max(rates[kind], self._rate(self.get(kind, batch), sample))
        best = max(rates, key=lambda kind: rates[kind])
        rates_listed = ", ".join(f"{kind} {rate:.0f}" for kind, rate in rates.items())
        message(
            "Engine %s, the fastest in a short trial (images a second: %s).", best, rates_listed
        )
        if self.fingerprint:
            found = {"engine": best, "images_per_second": rates}
            machine.remember("trials", self._key(batch), found)
        return best

    def checked(self, kind: str, batch: int) -> tuple[Runner, Agreement, int]:
        """A runner that agrees with PyTorch; PyTorch itself where this kind does not.

        Returns:
            The runner, its agreement, and its batch: PyTorch in place of a device takes smaller
            ones, since every core computes one.
        """
        if kind == "torch" and self.precision == "fp32":
            return self.get(kind, batch), ITSELF, batch
        try:
            runner = self.get(kind, batch)
            agreement = self._agreement(kind, runner, batch)
        except Exception as error:
            if is_out_of_memory(error) or isinstance(error, ConfigurationError):
                raise
            log.warning("%s cannot run this network; PyTorch runs it instead: %s", kind, error)
            return self._plain(batch)
        if self.precision == "fp32" and not agreement.cosine >= SMALLEST_AGREEMENT:
            log.warning(
                "%s differs from PyTorch on this network (cosine %.6f); PyTorch runs it instead.",
                kind,
                agreement.cosine,
            )
            return self._plain(batch)
        return runner, agreement, batch

    def _plain(self, batch: int) -> tuple[Runner, Agreement, int]:
        if self.device is not None:
            batch = min(batch, CPU_BATCH)
        runner = self.get("torch", batch)
        if self.precision == "fp32":
            return runner, ITSELF, batch
        return runner, self._agreement("torch", runner, batch), batch

    def _agreement(self, kind: str, runner: Runner, batch: int) -> Agreement:
        """On a sample of smooth pictures with noise, always the same."""

        def measured() -> Agreement:
            images = min(batch, SAMPLE_IMAGES)
            sample = np.zeros((batch, 3, self.size, self.size), np.float32)
            sample[:images] = sample_batch(images, self.size)
            return compare(self.module(), sample[:images], runner(sample)[:images])

        return self._once(kind, batch, "made-up pictures", measured)

    def agreement_on(
        self, kind: str, batch: int, inputs: Callable[[], Array], found: Array
    ) -> Agreement:
        """On images of a run; of the first run with this network on this machine.

        Args:
            kind: Which runner computed them.
            batch: Its batch size.
            inputs: Gives the images as the network got them, (N, 3, S, S).
            found: Their features, (N, D).
        """
        return self._once(kind, batch, "images", lambda: compare(self.module(), inputs(), found))

    def _once(
        self, kind: str, batch: int, sample: str, measured: Callable[[], Agreement]
    ) -> Agreement:
        """What is remembered of this sample, else the measurement, remembered."""
        key = self._key(batch) | {"kind": kind, "sample": sample}
        if self.fingerprint and (memory := machine.remembered("agreements", key)) is not None:
            try:
                return Agreement(**memory)
            except TypeError:
                log.debug("The cached result for %s cannot be read.", kind)
        agreement = measured()
        if self.fingerprint:
            machine.remember("agreements", key, agreement.to_dict())
        return agreement

    def _rate(self, runner: Runner, sample: Array) -> float:
        """Images a second with every core on batches of its own."""
        with cpu_pool(self.cores, pytorch=runner.kind == "torch") as pool:
            started = time.perf_counter()
            list(pool.map(runner, [sample] * (TRIAL_BATCHES * self.cores)))
            seconds = time.perf_counter() - started
        return TRIAL_BATCHES * self.cores * len(sample) / seconds

    def _build(self, kind: str, batch: int) -> Runner:
        if kind == "cuda":
            from graftline.inference.cuda import CudaRunner

            shape = (batch, 3, self.size, self.size)
            return CudaRunner(
                self.module(), shape, precision=self.precision, device=self.device or "cuda"
            )
        if kind == "torch":
            return TorchRunner(self.module(), precision=self.precision)
        if kind == "onnxruntime" and self.precision != "fp32":
            raise ConfigurationError(
                "ONNX Runtime computes in fp32 only on a CPU.",
                fix="Use `engine: auto` or `openvino` with bf16.",
            )
        graph = onnx_cache.cached(self.module, batch, self.size, self.fingerprint)
        if kind == "onnxruntime":
            return OnnxRuntimeRunner(graph)
        return OpenVinoRunner(
            graph, precision=self.precision, cores=self.cores, keep=self.fingerprint is not None
        )

    def _key(self, batch: int) -> dict[str, Any]:
        """What a measurement depends on."""
        return {
            "network": self.fingerprint,
            "size": self.size,
            "batch": batch,
            "precision": self.precision,
            "processor": machine.processor() if self.device is None else _device_name(self.device),
            "cores": self.cores,
            "versions": " ".join(version(name) for name in LIBRARIES),
        }


def compare(module: "nn.Module", images: Array, found: Array) -> Agreement:
    """Features of a few images against the module's own in fp32.

    Args:
        module: In eval mode.
        images: (N, 3, S, S), N at least 1.
        found: (N, D).
    """
    import torch

    with torch.no_grad():
        inputs = torch.from_numpy(images).contiguous(memory_format=torch.channels_last)
        wanted = module(inputs).float().flatten(1).numpy()
    norms = np.linalg.norm(wanted, axis=1) * np.linalg.norm(found, axis=1)
    cosine = (wanted * found).sum(1) / np.maximum(norms, 1e-12)
    largest = max(float(np.abs(wanted).max()), 1e-12)
    difference = float(np.abs(wanted - found).max()) / largest
    return Agreement(float(cosine.min()), difference, len(images))


def sample_batch(batch: int, size: int) -> npt.NDArray[np.float32]:
    """(batch, 3, size, size) smooth normalised pictures with some noise, always the same."""
    import torch

    generator = np.random.default_rng(0)
    coarse = torch.from_numpy(generator.normal(size=(batch, 3, 8, 8)).astype(np.float32))
    smooth = torch.nn.functional.interpolate(coarse, (size, size), mode="bicubic").numpy()
    noise = generator.normal(scale=0.1, size=smooth.shape).astype(np.float32)
    return np.ascontiguousarray(smooth + noise, dtype=np.float32)


def _device_name(device: str) -> str:
    import torch

    return f"{torch.cuda.get_device_name(device)}, CUDA {torch.version.cuda}"

"""The frozen lower part of a network in the engine that extracts features, while the rest trains.

It runs without gradient and its weights never change, so it need not be PyTorch: OpenVINO took
3.3 ms an image for the lower two thirds of EfficientNet-Lite0 at 224 pixels, where PyTorch took 12
(bf16, one core of a Xeon with AMX), and 11 where PyTorch took 18 for ResNet-50.

Whether the engine is used follows from the network and the amount of work alone, never from a
measured time: a training that was killed must go on with the same bits.
"""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from graftline import machine
from graftline.inference import onnx_cache
from graftline.inference.runners import OpenVinoRunner
from graftline.progress import message
from graftline.steps.fine_tune.network.precision import autocasts
from graftline.steps.fine_tune.network.split import Split
from graftline.steps.fine_tune.recipe import Settings

BATCH = 16  # of one call on one core; always filled up, since another size gives other last bits
LEAST_PASSES = 1000  # of images: opening the engine takes one to three seconds
AGREEMENT = {"bf16": 0.99, "fp32": 0.9999}  # cosine with PyTorch in fp32, on noise

Run = Callable[[NDArray[np.float32]], NDArray[np.float32]]


class FrozenEngine:
    """Gives what :meth:`Split.lower` gives, on every core at once.

    Args:
        run: Of a full batch in (B, S, S, 3), on the calling thread.
        shape: Of one output.
        cores: Threads.
    """

    def __init__(self, run: Run, shape: torch.Size, cores: int) -> None:
        self._run, self._shape = run, shape
        self._pool = ThreadPoolExecutor(cores, "frozen")

    def __call__(self, images: Tensor) -> Tensor:
        """Outputs of the frozen part.

        Args:
            images: (N, 3, S, S) float32, normalised.
        """
        pixels = images.permute(0, 2, 3, 1).contiguous().numpy()
        starts = range(0, len(pixels), BATCH)
        parts = self._pool.map(lambda start: self._filled(pixels[start : start + BATCH]), starts)
        lower = torch.from_numpy(np.concatenate(list(parts))).view(-1, *self._shape)
        return lower.contiguous(memory_format=torch.channels_last) if lower.dim() == 4 else lower

    def _filled(self, part: NDArray[np.float32]) -> NDArray[np.float32]:
        missing = BATCH - len(part)
        if missing:
            part = np.concatenate([part, np.repeat(part[:1], missing, axis=0)])
        return self._run(part)[: BATCH - missing]

    def close(self) -> None:
        """End the threads."""
        self._pool.shutdown()


def frozen_engine(
    halves: Split | None, settings: Settings, device: torch.device, images: int, processes: int
) -> FrozenEngine | None:
    """Open the engine for the lower half of a network.

    Args:
        halves: The network cut below its trained blocks; None where it is run as a whole.
        settings: How to train, without ``auto``.
        device: Where; a GPU runs the lower half itself.
        images: In an epoch.
        processes: That share this machine's cores.

    Returns:
        None where it is not worth opening, cannot be opened, or computes something else.
    """
    if halves is None or device.type != "cpu" or images * _passes(settings) < LEAST_PASSES:
        return None
    precision = "bf16" if autocasts(device, settings.precision) else "fp32"
    cores = max(1, machine.cores() // processes)
    size = halves.backbone.spec.preprocessing.input_size
    example = torch.randn(BATCH, size, size, 3, generator=torch.Generator().manual_seed(0))
    mode = halves.backbone.training
    module = _Lower(halves).eval()
    try:
        wanted = module(example)
        graph = onnx_cache.export(module, (BATCH, size, size, 3))
        run = OpenVinoRunner(graph, precision=precision, cores=cores)
        found = torch.from_numpy(run(example.numpy())).view(wanted.shape)
        cosine = nn.functional.cosine_similarity(wanted.flatten(1), found.flatten(1)).min()
    except Exception as error:  # whatever the exporters and OpenVINO raise
        message("The frozen blocks run in PyTorch: %s", str(error).split("\n")[0][:200])
        return None
    finally:
        halves.backbone.train(mode)
    if not float(cosine) >= AGREEMENT[precision]:
        message("The frozen blocks run in PyTorch: OpenVINO differs (cosine %.4f)", cosine)
        return None
    message("The frozen blocks run in OpenVINO (%s, cosine %.6f).", precision, cosine)
    return FrozenEngine(run, wanted.shape[1:], cores)


def _passes(settings: Settings) -> int:
    """How often the lower half runs on an image."""
    if not settings.augment:
        return 1
    return min(settings.views or settings.epochs, settings.epochs)


class _Lower(nn.Module):
    """The lower half as a module of images in the order of memory in which they are made."""

    def __init__(self, halves: Split) -> None:
        super().__init__()
        self.backbone, self._halves = halves.backbone, halves

    def forward(self, pixels: Tensor) -> Tensor:
        """(B, S, S, 3) to the lower half's outputs."""
        return self._halves.lower(pixels.permute(0, 3, 1, 2))

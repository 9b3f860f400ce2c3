"""Training batches made on a GPU, from images that lie there, while the step before is computed.

Threads of one Python process cannot crop and resize as many images as a fast GPU trains. So
decoded images are kept in the GPU's memory, as far as a share of it reaches; a batch of crops is
cut out there and resized by two matrix products, on a stream of its own.
"""

import queue
import threading
from collections.abc import Collection, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
from torch import Tensor

from graftline.images.preprocessing import Preprocessing
from graftline.images.resample import SUPPORT
from graftline.steps.fine_tune.inputs.augment import Policy

SHARE_OF_FREE = 0.25  # of the GPU's memory, for images; the network and its gradients need more
WAITING = 2  # batches that are ready before they are asked for

Value = TypeVar("Value")


@dataclass(frozen=True)
class Crop:
    """A part of an image.

    Attributes:
        image: (H, W, 3) uint8, on whatever device.
        part: Its rows and columns.
        mirrored: Whether it is to be mirrored.
        seed: Of the policy's variation.
    """

    image: Tensor
    part: tuple[slice, slice]
    mirrored: bool = False
    seed: int = 0

    def cut(self) -> Tensor:
        """The part on the CPU, mirrored where it is to be."""
        cut = self.image[self.part].cpu()
        return cut.flip(1) if self.mirrored else cut


@dataclass(frozen=True)
class Ready:
    """A batch on the device, which may still be in the making.

    Attributes:
        tensor: (B, 3, S, S), normalised, channels_last.
        made: Happens once it is there; None where it is there already.
    """

    tensor: Tensor
    made: Any

    def get(self) -> Tensor:
        """The batch, for the present stream."""
        if self.made is not None:
            stream = torch.cuda.current_stream(self.tensor.device)
            stream.wait_event(self.made)
            self.tensor.record_stream(stream)
        return self.tensor


class DeviceBatches:
    """Keeps images on a CUDA device and makes batches of their crops.

    Args:
        preprocessing: The network's.
        device: Where; tests have only the CPU.
        policy: Changes of colour and angle; None for none.
        room: Bytes for images; None for a share of what is free.
    """

    def __init__(
        self,
        preprocessing: Preprocessing,
        device: torch.device,
        policy: Policy | None = None,
        room: int | None = None,
    ) -> None:
        self._preprocessing, self._device, self._policy = preprocessing, device, policy
        self._stream: Any = None
        if device.type == "cuda":
            self._stream = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
        self._kept: dict[int, Tensor] = {}
        if room is None:
            room = int(torch.cuda.mem_get_info(device)[0] * SHARE_OF_FREE)
        self._room = room

    def kept(self) -> Collection[int]:
        """The rows whose images lie on the device now."""
        return set(self._kept)

    @property
    def full(self) -> bool:
        """Whether no more images are kept."""
        return self._room <= 0

    def get(self, row: int) -> Tensor | None:
        """A kept image."""
        return self._kept.get(row)

    def keep(self, row: int, image: Tensor) -> Tensor:
        """The image on the device, kept while there is room."""
        if self.full:
            return image
        try:
            with torch.cuda.stream(self._stream):
                there = image.to(self._device)
        except torch.OutOfMemoryError:
            self.let_go()
            return image
        self._room -= image.nbytes
        self._kept[row] = there
        return there

    def let_go(self) -> None:
        """Give back the memory, for good."""
        self._room = 0
        self._kept.clear()
        torch.cuda.empty_cache()

    def make(self, crops: Sequence[Crop]) -> Ready:
        """A batch of crops."""
        prepare = self._preprocessing
        with torch.cuda.stream(self._stream):
            batch = padded_batch(crops, self._device)
            x = resized(*batch, prepare.input_size, prepare.interpolation)
            if self._policy is not None:
                x = self._policy(x.to(torch.uint8), [crop.seed for crop in crops]).float()
            x = prepare.normalise(x).contiguous(memory_format=torch.channels_last)
        if self._stream is None:
            return Ready(x, None)
        made: Any = torch.cuda.Event()  # type: ignore[no-untyped-call]
        made.record(self._stream)
        return Ready(x, made)


def in_a_thread(values: Iterator[Value]) -> Iterator[Value]:
    """The same values, a few of them made before they are asked for."""
    made: queue.Queue[tuple[Value] | BaseException | None] = queue.Queue(WAITING)
    left = threading.Event()

    def put(each: tuple[Value] | BaseException | None) -> None:
        while not left.is_set():
            with suppress(queue.Full):
                made.put(each, timeout=0.1)
                return

    def work() -> None:
        try:
            for value in values:
                put((value,))
                if left.is_set():
                    return
            put(None)
        except BaseException as error:  # raised by whoever waits for the value
            put(error)

    thread = threading.Thread(target=work, name="batches", daemon=True)
    thread.start()
    try:
        while (each := made.get()) is not None:
            if isinstance(each, BaseException):
                raise each
            yield each[0]
    finally:
        left.set()
        thread.join()


def padded_batch(crops: Sequence[Crop], device: torch.device) -> tuple[Tensor, Tensor, Tensor]:
    """Crops of several sizes in one tensor.

    Returns:
        (B, H, W, 3) uint8 with undefined values beyond each crop, (B, 2) float32 heights and
        widths, and (B,) whether each is to be mirrored.
    """
    sizes = [[along.stop - along.start for along in crop.part] for crop in crops]
    height, width = (max(side) for side in zip(*sizes, strict=True))
    padded = torch.empty((len(crops), height, width, 3), dtype=torch.uint8, device=device)
    for place, crop, (high, wide) in zip(padded, crops, sizes, strict=True):
        place[:high, :wide].copy_(crop.image[crop.part], non_blocking=True)
    mirrored = torch.tensor([crop.mirrored for crop in crops])
    return padded, _moved(torch.tensor(sizes).float(), device), _moved(mirrored, device)


def _moved(values: Tensor, device: torch.device) -> Tensor:
    """On the device, without waiting for what it computes."""
    if device.type != "cuda":
        return values
    return values.pin_memory().to(device, non_blocking=True)


def resized(
    padded: Tensor, sizes: Tensor, mirrored: Tensor, side: int, interpolation: str
) -> Tensor:
    """Each crop resized to a square with antialiasing, in whole grey levels.

    Args:
        padded: (B, H, W, 3) uint8.
        sizes: (B, 2) float32, the part of each that counts.
        mirrored: (B,) which ones are mirrored.
        side: Of the square.
        interpolation: ``bilinear`` or ``bicubic``.

    Returns:
        (B, 3, side, side) float32 in 0..255.
    """
    batch, height, width, _ = padded.shape
    rows = _weights(sizes[:, 0], side, height, interpolation)
    columns = _weights(sizes[:, 1], side, width, interpolation)
    columns = torch.where(mirrored[:, None, None], columns.flip(1), columns)
    flat = padded.reshape(batch, height, width * 3).float()
    tall = torch.bmm(rows, flat).reshape(batch, side, width, 3)
    turned = tall.permute(0, 2, 1, 3).reshape(batch, width, side * 3)
    square = torch.bmm(columns, turned).reshape(batch, side, side, 3)
    return square.permute(0, 3, 2, 1).round().clamp(0, 255)


def _weights(lengths: Tensor, side: int, longest: int, interpolation: str) -> Tensor:
    """(B, side, longest) weights of PyTorch's antialiased resize from each length to a side."""
    scale = (lengths / side)[:, None, None]
    stretch = scale.clamp(min=1.0)
    out = torch.arange(side, device=lengths.device, dtype=torch.float32)[:, None]
    at = torch.arange(longest, device=lengths.device, dtype=torch.float32)
    distance = ((at + 0.5 - scale * (out + 0.5)) / stretch).abs()
    linear = interpolation == "bilinear"
    weights = (1.0 - distance).clamp(min=0.0) if linear else _cubic(distance)
    weights = weights * (at < lengths[:, None, None])
    return weights / weights.sum(2, keepdim=True)


def _cubic(x: Tensor) -> Tensor:
    """Keys' cubic with a = -0.5, as in :mod:`graftline.images.resample`."""
    near = (1.5 * x - 2.5) * x * x + 1.0
    far = ((-0.5 * x + 2.5) * x - 4.0) * x + 2.0
    return torch.where(x < 1.0, near, torch.where(x < SUPPORT["bicubic"], far, 0.0))

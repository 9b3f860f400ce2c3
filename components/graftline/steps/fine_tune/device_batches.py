"""Random crops resized in one go on the device, while the step before them is computed.

A CPU that resizes every crop cannot feed a fast GPU. So threads only read and cut; crops travel
as they are, in page-locked memory and on a stream of their own, and the device resizes a whole
batch by two matrix products.
"""

import queue
import threading
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
from torch import Tensor

from graftline.images.preprocessing import Preprocessing
from graftline.images.resample import SUPPORT

WAITING = 2  # batches that are ready before they are asked for
# A larger crop, of a very wide picture, is resized before: the batch has the largest one's shape.
LARGEST = 2  # sides of the network's input

Value = TypeVar("Value")


@dataclass(frozen=True)
class Ready:
    """A batch on the device, which may still be in the making.

    Attributes:
        tensor: (B, 3, S, S), normalised, channels_last.
        made: Happens once it is there.
    """

    tensor: Tensor
    made: Any

    def get(self) -> Tensor:
        """The batch, for the present stream."""
        stream = torch.cuda.current_stream(self.tensor.device)
        stream.wait_event(self.made)
        self.tensor.record_stream(stream)
        return self.tensor


class DeviceBatches:
    """Makes batches of crops on a CUDA device.

    Args:
        preprocessing: The network's.
        device: Where.
    """

    def __init__(self, preprocessing: Preprocessing, device: torch.device) -> None:
        self._preprocessing, self._device = preprocessing, device
        self._stream: Any = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]

    def make(self, crops: Sequence[Tensor]) -> Ready:
        """A batch of crops, (h, w, 3) uint8 each."""
        padded, sizes = padded_batch(crops, pinned=True)
        with torch.cuda.stream(self._stream):
            x = resized(
                padded.to(self._device, non_blocking=True),
                sizes.to(self._device, non_blocking=True),
                self._preprocessing.input_size,
                self._preprocessing.interpolation,
            )
            x = self._preprocessing.normalise(x).contiguous(memory_format=torch.channels_last)
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


def padded_batch(crops: Sequence[Tensor], *, pinned: bool = False) -> tuple[Tensor, Tensor]:
    """Crops of several sizes in one tensor.

    Args:
        crops: (h, w, 3) uint8 each.
        pinned: In page-locked memory.

    Returns:
        (B, H, W, 3) uint8 with undefined values beyond each crop, and (B, 2) heights and widths.
    """
    sizes = torch.tensor([crop.shape[:2] for crop in crops], dtype=torch.float32)
    height, width = (int(side) for side in sizes.amax(0))
    padded = torch.empty((len(crops), height, width, 3), dtype=torch.uint8, pin_memory=pinned)
    whole = padded.numpy()  # as numpy: less time with the interpreter's lock held
    for number, crop in enumerate(crops):
        whole[number, : crop.shape[0], : crop.shape[1]] = crop.numpy()
    return padded, sizes.pin_memory() if pinned else sizes


def resized(padded: Tensor, sizes: Tensor, side: int, interpolation: str) -> Tensor:
    """Each crop resized to a square with antialiasing, in whole grey levels.

    Args:
        padded: (B, H, W, 3) uint8.
        sizes: (B, 2) float32, the part of each that counts.
        side: Of the square.
        interpolation: ``bilinear`` or ``bicubic``.

    Returns:
        (B, 3, side, side) float32 in 0..255.
    """
    batch, height, width, _ = padded.shape
    rows = _weights(sizes[:, 0], side, height, interpolation)
    columns = _weights(sizes[:, 1], side, width, interpolation)
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

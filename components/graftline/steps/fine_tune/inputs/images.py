"""Training images: fetched once, decoded beside the network, cropped by seed, epoch and image."""

import hashlib
import math
import os
import struct
import tempfile
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from graftline import machine
from graftline.data.snapshot import Snapshot, read_images
from graftline.files import os_errors
from graftline.images import decode
from graftline.images.preprocessing import Preprocessing
from graftline.inference.cpu_pool import cpu_pool
from graftline.progress import progress
from graftline.storage.base import Store

Image = NDArray[np.uint8]
Item = TypeVar("Item")
Result = TypeVar("Result")

CROP_AREA = (0.6, 1.0)  # share of the image that a random crop keeps: light, so labels stay true
CROP_RATIO = (3 / 4, 4 / 3)
TRIES = 10  # of a crop that fits; then the whole image
DRAWS = 2 * TRIES + 3
LOG_RATIO = (math.log(CROP_RATIO[0]), math.log(CROP_RATIO[1]))
AHEAD = 64  # images decoded ahead of the network for each thread


class LocalImages:
    """The encoded images of some rows in one temporary file.

    An epoch reads them in random order. A store answers one request an image then; this file
    costs one pass in the store's own order.
    """

    def __init__(self, snapshot: Snapshot, rows: NDArray[np.int64], store: Store) -> None:
        self._places: dict[int, tuple[int, int]] = {}
        self._file = tempfile.TemporaryFile(prefix="graftline-images-")  # noqa: SIM115
        self._value_range = snapshot.value_range
        order = snapshot.storage_order(rows)
        end = 0
        with os_errors(f"{tempfile.gettempdir()}, where training images are kept,", "write"):
            images = read_images(snapshot, order, store=store)
            for row, data in progress(images, "fetching training images", total=len(order)):
                self._file.write(data)
                self._places[row] = (end, len(data))
                end += len(data)
            self._file.flush()

    def decoded(self, row: int) -> Image:
        """One image, (H, W, 3) uint8."""
        offset, length = self._places[int(row)]
        data = os.pread(self._file.fileno(), length, offset)
        return decode.decode(data, value_range=self._value_range)

    def close(self) -> None:
        """Remove the file."""
        self._file.close()


def ahead(
    work: Callable[[Item], Result], items: Iterable[Item], *, alone: bool = False
) -> Iterator[Result]:
    """``map(work, items)`` in threads, in order, with a bounded number of results waiting.

    Args:
        work: What is done.
        items: With these.
        alone: Each thread computes on one core, where nothing else computes on the processor.
    """
    threads = min(16, machine.cores())
    waiting: deque[Future[Result]] = deque()
    with cpu_pool(threads, pytorch=True) if alone else ThreadPoolExecutor(threads) as pool:
        try:
            for item in items:
                waiting.append(pool.submit(work, item))
                if len(waiting) > AHEAD * threads:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            for future in waiting:
                future.cancel()


def in_step(
    work: Callable[[Item], Result], groups: Iterable[Sequence[Item]]
) -> Iterator[list[Result]]:
    """The results of each group, computed in threads when they are asked for, on one core each."""
    threads, all_of_them = min(16, machine.cores()), torch.get_num_threads()
    with ThreadPoolExecutor(threads, "step", torch.set_num_threads, (1,)) as pool:
        for group in groups:
            results = list(pool.map(work, group))
            torch.set_num_threads(all_of_them)  # what the threads set counts for new threads too
            yield results


def random_crop(
    image: Image, *, seed: int, epoch: int, image_id: str, flip: bool, whole: bool = False
) -> Image:
    """A random part of the image, the same whenever seed, epoch and image are the same.

    Args:
        image: (H, W, 3) uint8.
        seed: Of the run.
        epoch: Which pass over the data.
        image_id: Of the image.
        flip: Mirror every second one, too.
        whole: Whether the network sees whole pictures (``image.fit: squash`` or ``pad``): a crop
            has the picture's own shape then, give or take :data:`CROP_RATIO`.

    Returns:
        (h, w, 3), resized by nobody yet: Inception's random resized crop (Szegedy et al. 2015).
    """
    size = image.shape[0], image.shape[1]
    part, mirrored = random_part(
        size, seed=seed, epoch=epoch, image_id=image_id, flip=flip, whole=whole
    )
    cut = image[part]
    return np.ascontiguousarray(cut[:, ::-1] if mirrored else cut)


def random_part(
    size: tuple[int, int], *, seed: int, epoch: int, image_id: str, flip: bool, whole: bool
) -> tuple[tuple[slice, slice], bool]:
    """Rows and columns of :func:`random_crop` of an image of this size, and whether to mirror."""
    # A digest as the source of numbers: NumPy's generators cost more to seed than all of this.
    digest = hashlib.shake_128(f"{seed}:{epoch}:{image_id}".encode()).digest(8 * DRAWS)
    random = iter(number / 2**64 for number in struct.unpack(f"<{DRAWS}Q", digest))
    height, width = size
    mirrored = flip and next(random) < 0.5
    for _ in range(TRIES):
        area = height * width * _between(CROP_AREA, next(random))
        ratio = math.exp(_between(LOG_RATIO, next(random)))
        if whole:
            ratio *= width / height
        w, h = round(math.sqrt(area * ratio)), round(math.sqrt(area / ratio))
        if 0 < w <= width and 0 < h <= height:
            top, left = (int(next(random) * (most + 1)) for most in (height - h, width - w))
            return (slice(top, top + h), slice(left, left + w)), mirrored
    return (slice(0, height), slice(0, width)), mirrored


def _between(ends: tuple[float, float], share: float) -> float:
    return ends[0] + share * (ends[1] - ends[0])


def network_input(
    images: Sequence[Image], preprocessing: Preprocessing, device: torch.device, *, cropped: bool
) -> Tensor:
    """Images of any size as one batch, (N, 3, S, S) float32, normalised, on the device.

    Args:
        images: (H, W, 3) uint8 each.
        preprocessing: The network's.
        device: Where the resize is computed.
        cropped: They are random crops, to be resized whole (with ``image.fit: pad``, on the mean
            colour); else they are resized and cropped as in evaluation.
    """
    size = preprocessing.input_size
    batch = torch.empty((len(images), 3, size, size), device=device)
    for number, image in enumerate(images):
        pixel = torch.from_numpy(image if image.flags.writeable else image.copy()).to(device)
        if cropped and preprocessing.fit != "pad":
            batch[number] = F.interpolate(
                pixel.permute(2, 0, 1)[None].float(),
                size=(size, size),
                mode=preprocessing.interpolation,
                align_corners=False,
                antialias=True,
            )[0]
        else:
            batch[number] = preprocessing.resize_and_crop(pixel)
    return preprocessing.normalise(batch)

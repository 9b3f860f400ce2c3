"""Training images: fetched once, decoded beside the network, cropped by seed, epoch and image."""

import hashlib
import os
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
from graftline.progress import progress
from graftline.storage.base import Store

Image = NDArray[np.uint8]
Item = TypeVar("Item")
Result = TypeVar("Result")

CROP_AREA = (0.6, 1.0)  # share of the image that a random crop keeps: light, so labels stay true
CROP_RATIO = (3 / 4, 4 / 3)
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


def ahead(work: Callable[[Item], Result], items: Iterable[Item]) -> Iterator[Result]:
    """``map(work, items)`` in threads, in order, with a bounded number of results waiting."""
    threads = min(16, machine.cores())
    waiting: deque[Future[Result]] = deque()
    with ThreadPoolExecutor(threads) as pool:
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
    digest = hashlib.sha256(f"{seed}:{epoch}:{image_id}".encode()).digest()
    random = np.random.default_rng(int.from_bytes(digest[:8], "little"))
    height, width = image.shape[:2]
    mirrored = flip and random.random() < 0.5
    top, left, h, w = 0, 0, height, width
    for _ in range(10):
        area = height * width * random.uniform(*CROP_AREA)
        ratio = np.exp(random.uniform(*np.log(CROP_RATIO)))
        if whole:
            ratio *= width / height
        w_try, h_try = round(np.sqrt(area * ratio)), round(np.sqrt(area / ratio))
        if 0 < w_try <= width and 0 < h_try <= height:
            h, w = h_try, w_try
            top = int(random.integers(height - h + 1))
            left = int(random.integers(width - w + 1))
            break
    part = image[top : top + h, left : left + w]
    return np.ascontiguousarray(part[:, ::-1] if mirrored else part)


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

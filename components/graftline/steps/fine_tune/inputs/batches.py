"""From manifest rows to what the network trains on, decoded and resized once.

Training images are kept decoded, a little larger than the network's input, in a file on the
node's own disk that fills while the first epoch trains. Where an image gives the same network
input again (validation, no augmentation, ``fine_tune.views``), what the frozen lower blocks make
of it is kept instead, and those blocks are never run on it again.
"""

import math
from collections.abc import Hashable, Iterable, Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from itertools import islice

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from graftline.images.preprocessing import MAX_ASPECT, Preprocessing
from graftline.steps.fine_tune.inputs.array_file import ArrayFile
from graftline.steps.fine_tune.inputs.augment import mixed, policy, seed_of, shrunk
from graftline.steps.fine_tune.inputs.device_batches import Crop, DeviceBatches, Ready, in_a_thread
from graftline.steps.fine_tune.inputs.images import (
    LocalImages,
    ahead,
    in_step,
    random_crop,
    random_part,
)
from graftline.steps.fine_tune.network.frozen_engine import FrozenEngine
from graftline.steps.fine_tune.network.precision import autocast
from graftline.steps.fine_tune.network.split import Split
from graftline.steps.fine_tune.recipe import Settings

ROOM = 8 / 7  # of a kept image's shorter side over the input's: 256 for 224
LOWER_BATCH = 16  # always of one size, filled up: another size gives other last bits
LOWER = "lower"  # begins the keys of the lower half's outputs: LOWER, row, view or HELD_OUT
HELD_OUT = "held out"


@dataclass(frozen=True)
class Item:
    """One image on its way to the network.

    Attributes:
        key: What the lower half's output is kept under; None where it is not kept.
        tensor: (S, S, 3) uint8; (3, S, S) float32 in 0..255; or the lower half's output.
        lower: Whether it is the latter.
        seed: Of the policy's variation; None for none.
    """

    key: Hashable | None
    tensor: Tensor
    lower: bool = False
    seed: int | None = None


class Batches:
    """Reads, varies and stacks the images of one training.

    Args:
        images: The encoded images.
        ids: Image ids by manifest row.
        preprocessing: The network's.
        settings: How to train, without ``auto``.
        halves: The network cut below its trained blocks; None where it is run as a whole.
        device: Where the network is.
        arrays: Where decoded images and outputs of the lower half are kept.
        engine: Runs the lower half on training images; None for PyTorch.
    """

    def __init__(
        self,
        images: LocalImages,
        ids: Sequence[str],
        preprocessing: Preprocessing,
        settings: Settings,
        halves: Split | None,
        device: torch.device,
        arrays: ArrayFile,
        engine: FrozenEngine | None = None,
    ) -> None:
        self._images, self._ids, self._arrays = images, ids, arrays
        self._preprocessing, self._settings = preprocessing, settings
        self._halves, self._device, self._engine = halves, device, engine
        self._policy = policy(settings.policy) if settings.augment else None
        repeats = not settings.augment or settings.views is not None
        self.keeps_lower = halves is not None and repeats
        crops = not repeats and preprocessing.fit != "pad"
        self._on_device = (
            DeviceBatches(preprocessing, device, self._policy)
            if crops and device.type == "cuda"
            else None
        )

    def ahead(
        self, steps: Sequence[tuple[NDArray[np.int64], NDArray[np.int64]]]
    ) -> Iterator[tuple[list[Item] | Ready, NDArray[np.int64]]]:
        """Training batches and their rows, in order.

        Beside a GPU they are prepared while the one before trains. A CPU has no core to spare, and
        threads that share cores wait for each other: there both take turns.

        Args:
            steps: Manifest rows of each batch, and which pass over the data each belongs to.
        """
        if not steps:
            return
        if self._on_device is not None:
            yield from in_a_thread(self._made(self._on_device, steps))
            return
        if self._device.type == "cpu":
            pairs = [list(zip(r.tolist(), p.tolist(), strict=True)) for r, p in steps]
            yield from zip(in_step(self._train_item, pairs), (r for r, _ in steps), strict=True)
            return
        loaded = self.load(*(np.concatenate(part) for part in zip(*steps, strict=True)))
        for rows, _ in steps:
            yield list(islice(loaded, len(rows))), rows

    def load(self, rows: NDArray[np.int64], passes: NDArray[np.int64]) -> Iterator[Item]:
        """Training images, decoded and cropped in threads, in order.

        Args:
            rows: Manifest rows.
            passes: Which pass over the data each belongs to; crops differ with it.
        """
        pairs = [(int(row), int(number)) for row, number in zip(rows, passes, strict=True)]
        return ahead(self._train_item, pairs)

    def load_held_out(self, rows: Iterable[int]) -> Iterator[Item]:
        """The same for images that are evaluated."""
        return ahead(self._held_out_item, [int(row) for row in rows])

    def stacked(self, items: Sequence[Item] | Ready, *, training: bool) -> Tensor:
        """Normalised images as one batch on the device, or outputs of the lower half.

        Args:
            items: From :meth:`ahead` or :meth:`load_held_out`.
            training: The lower half runs in the training's precision, else in fp32.
        """
        if isinstance(items, Ready):
            return items.get()
        if items[0].key is None:
            return self._network_input(items)
        missing = [item for item in items if not item.lower]
        fresh: dict[Hashable | None, Tensor] = {}
        for start in range(0, len(missing), LOWER_BATCH):
            part = missing[start : start + LOWER_BATCH]
            for item, lower in zip(part, self._lower(part, training=training), strict=False):
                self._arrays.put(item.key, lower)
                fresh[item.key] = lower
        lowers = [item.tensor if item.lower else fresh[item.key] for item in items]
        # In one order of memory, wherever they come from: kernels for another have other last bits.
        x = torch.stack([lower.contiguous() for lower in lowers]).to(self._device)
        return x.contiguous(memory_format=torch.channels_last) if x.dim() == 4 else x

    def mixed(self, x: Tensor, targets: Tensor, classes: int) -> tuple[Tensor, Tensor]:
        """The batch with each image mixed with the one before it, where the settings say so."""
        method = self._settings.mix
        if method == "none" or len(x) < 2:
            return x, targets
        if self.keeps_lower:
            method = "mixup"  # what the lower half gives has no area to cut
        return mixed(x, targets, classes, method)

    def _train_item(self, pair: tuple[int, int]) -> Item:
        row, number = pair
        settings = self._settings
        view = 0 if not settings.augment else number % (settings.views or number + 1)
        key = (LOWER, row, view) if self.keeps_lower else None
        if key is not None and (kept := self._arrays.get(key)) is not None:
            return Item(key, kept, lower=True)
        if not settings.augment:
            return Item(key, self._plain(row))
        seed = seed_of(settings.seed, view, self._ids[row]) if self._policy else None
        return Item(key, self._cropped(row, view), seed=seed)

    def _held_out_item(self, row: int) -> Item:
        key = (LOWER, row, HELD_OUT) if self._halves is not None else None
        if key is not None and (kept := self._arrays.get(key)) is not None:
            return Item(key, kept, lower=True)
        return Item(key, self._plain(row))

    def _plain(self, row: int) -> Tensor:
        """As in evaluation, exactly; kept where it will be needed again."""
        if (kept := self._arrays.get(("input", row))) is not None:
            return kept
        made = self._preprocessing.resize_and_crop(self._images.decoded(row))
        if self._halves is None:
            self._arrays.put(("input", row), made)
        return made

    def _cropped(self, row: int, view: int) -> Tensor:
        """A random part of the image at the network's size, (S, S, 3) uint8."""
        crop = random_crop(
            self._decoded(row).numpy(),
            seed=self._settings.seed,
            epoch=view,
            image_id=self._ids[row],
            flip=self._settings.flip,
            whole=self._preprocessing.fit != "crop",
        )
        if self._preprocessing.fit == "pad":
            crop = _squared(crop, self._preprocessing.mean)
        return self._shrunk(torch.from_numpy(crop))

    def _shrunk(self, crop: Tensor) -> Tensor:
        size = self._preprocessing.input_size
        return shrunk(crop, (size, size), self._preprocessing.interpolation)

    def _made(
        self,
        device: DeviceBatches,
        steps: Sequence[tuple[NDArray[np.int64], NDArray[np.int64]]],
    ) -> Iterator[tuple[list[Item] | Ready, NDArray[np.int64]]]:
        """Batches on the device; on the CPU where the device has no room for one."""
        there = device.kept()
        missing = [row for rows, _ in steps for row in rows.tolist() if row not in there]
        decode = self._decoded if device.full else self._fresh
        decoded = ahead(decode, missing, alone=True)
        for rows, passes in steps:
            crops = []
            for row, number in zip(rows.tolist(), passes.tolist(), strict=True):
                image = device.get(row) if row in there else device.keep(row, next(decoded))
                crops.append(
                    self._crop(self._decoded(row) if image is None else image, row, number)
                )
            batch: list[Item] | Ready
            try:
                batch = device.make(crops)
            except torch.OutOfMemoryError:  # whoever trains needs that memory more
                device.let_go()
                batch = [Item(None, self._shrunk(crop.cut()), seed=crop.seed) for crop in crops]
            yield batch, rows

    def _crop(self, image: Tensor, row: int, number: int) -> Crop:
        part, mirrored = random_part(
            (image.shape[0], image.shape[1]),
            seed=self._settings.seed,
            epoch=number,
            image_id=self._ids[row],
            flip=self._settings.flip,
            whole=self._preprocessing.fit != "crop",
        )
        seed = seed_of(self._settings.seed, number, self._ids[row]) if self._policy else 0
        return Crop(image, part, mirrored, seed)

    def _varied(self, item: Item) -> Tensor:
        """The image under the policy."""
        if self._policy is None or item.seed is None:
            return item.tensor
        image = item.tensor.permute(2, 0, 1)[None]
        return self._policy(image, [item.seed])[0].permute(1, 2, 0)

    def _decoded(self, row: int) -> Tensor:
        """(H, W, 3) uint8, no larger than crops need; decoded once."""
        if (kept := self._arrays.get(("decoded", row))) is not None:
            return kept
        image = self._fresh(row)
        self._arrays.put(("decoded", row), image)
        return image

    def _fresh(self, row: int) -> Tensor:
        """The same, decoded now."""
        image = torch.from_numpy(self._images.decoded(row).copy())  # decoders' own is read-only
        height, width = image.shape[:2]
        short, side = min(height, width), math.ceil(self._preprocessing.input_size * ROOM)
        if short > side:
            longest = MAX_ASPECT * side
            size = (round(height * side / short), round(width * side / short))
            image = shrunk(
                image,
                (min(size[0], longest), min(size[1], longest)),
                self._preprocessing.interpolation,
            )
        return image

    def _lower(self, items: Sequence[Item], *, training: bool) -> Tensor:
        """The lower half's outputs, on the CPU."""
        assert self._halves is not None
        x = self._network_input(items)
        if len(x) < LOWER_BATCH:
            x = torch.cat([x, x[:1].expand(LOWER_BATCH - len(x), -1, -1, -1)])
        if training and self._engine is not None:
            return self._engine(x)[: len(items)]
        with autocast(self._device, self._settings.precision) if training else nullcontext():
            return self._halves.lower(x)[: len(items)].cpu()

    def _network_input(self, items: Sequence[Item]) -> Tensor:
        batch = torch.stack([self._varied(item) for item in items]).to(self._device)
        if batch.dtype == torch.uint8:
            return self._preprocessing.normalise_batch(batch)
        x = self._preprocessing.normalise(batch)
        return x.contiguous(memory_format=torch.channels_last)


def _squared(image: NDArray[np.uint8], mean: Sequence[float]) -> NDArray[np.uint8]:
    """The image in the middle of a square of the mean colour, as ``image.fit: pad`` has it."""
    height, width = image.shape[:2]
    side = max(height, width)
    square = np.empty((side, side, 3), dtype=np.uint8)
    square[:] = np.round(np.asarray(mean) * 255)
    top, left = (side - height) // 2, (side - width) // 2
    square[top : top + height, left : left + width] = image
    return square

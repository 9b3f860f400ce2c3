"""Variations of training images that leave their label true.

Crops are drawn by seed, pass and image, everything else by seed and step: no variation depends
on what came before it.
"""

import hashlib
from collections.abc import Sequence
from itertools import groupby
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

MIXUP_ALPHA = 0.2  # Zhang et al. 2018; pairs are mostly one image with a trace of another
CUTMIX_ALPHA = 1.0  # Yun et al. 2019
FILL = 128  # grey where a turned image leaves the frame empty


def shrunk(image: Tensor, size: tuple[int, int], interpolation: str) -> Tensor:
    """An image resized with antialiasing, in whole grey levels.

    Args:
        image: (H, W, 3) uint8.
        size: Height and width wanted.
        interpolation: ``bilinear`` or ``bicubic``.

    Returns:
        (height, width, 3) uint8, a view of memory in that order.
    """
    if tuple(image.shape[:2]) == size:
        return image
    resized = F.interpolate(
        image.permute(2, 0, 1)[None],  # channels_last: the fast path for uint8
        size=size,
        mode=interpolation,
        align_corners=False,
        antialias=True,
    )
    return resized[0].permute(1, 2, 0).contiguous()


class Policy:
    """TrivialAugment (Müller and Hutter 2021) or RandAugment (Cubuk et al. 2020), on batches.

    Each image gets what torchvision's class of that name makes of it under the image's seed;
    images that get the same are computed together, which a GPU needs.

    Args:
        name: ``trivial`` or ``rand``.
    """

    def __init__(self, name: str) -> None:
        from torchvision.transforms import InterpolationMode, v2

        options: dict[str, Any] = {"interpolation": InterpolationMode.BILINEAR, "fill": [FILL] * 3}
        self._fixed: int | None = None
        self._operations = 1
        if name == "rand":
            self._of = v2.RandAugment(**options)
            self._fixed, self._operations = self._of.magnitude, self._of.num_ops
        else:
            self._of = v2.TrivialAugmentWide(**options)

    def __call__(self, images: Tensor, seeds: Sequence[int]) -> Tensor:
        """Change a batch.

        Args:
            images: (B, 3, H, W) uint8.
            seeds: Of each image.
        """
        height, width = images.shape[2:]
        drawn = [self._draw(seed, height, width) for seed in seeds]
        before = list(range(len(seeds)))  # which image lies at each place
        for layer in range(self._operations):
            order = sorted(before, key=lambda image: drawn[image][layer])
            images = images[_index([before.index(image) for image in order], images.device)]
            before, start = order, 0
            for operation, group in groupby(order, key=lambda image: drawn[image][layer]):
                end = start + len(list(group))
                images[start:end] = self._of._apply_image_or_video_transform(
                    images[start:end],
                    *operation,
                    interpolation=self._of.interpolation,
                    fill=self._of._fill,
                )
                start = end
        return images[_index([before.index(image) for image in range(len(seeds))], images.device)]

    def _draw(self, seed: int, height: int, width: int) -> list[tuple[str, float]]:
        """Operations and their strengths, drawn in torchvision's order."""
        generator = torch.Generator().manual_seed(seed)
        space = self._of._AUGMENTATION_SPACE
        drawn = []
        for _ in range(self._operations):
            name = tuple(space)[int(torch.randint(len(space), (), generator=generator))]
            strengths, signed = space[name]
            values = strengths(self._of.num_magnitude_bins, height, width)
            value = 0.0
            if values is not None:
                at = self._fixed
                if at is None:
                    bins = self._of.num_magnitude_bins
                    at = int(torch.randint(bins, (), generator=generator))
                value = float(values[at])
                if signed and torch.rand((), generator=generator) <= 0.5:
                    value *= -1
            drawn.append((name, value))
        return drawn


def _index(places: list[int], device: torch.device) -> Tensor:
    index = torch.tensor(places)
    if device.type != "cuda":
        return index
    return index.pin_memory().to(device, non_blocking=True)


def policy(name: str) -> Policy | None:
    """A policy by its name, or None for ``none``."""
    return None if name == "none" else Policy(name)


def mixed(x: Tensor, targets: Tensor, classes: int, method: str) -> tuple[Tensor, Tensor]:
    """Each image mixed with the one before it, and targets as shares of the classes.

    Args:
        x: (B, ...) images; for ``mixup`` anything that can be averaged.
        targets: (B,) class indices.
        classes: Number of classes.
        method: ``mixup`` or ``cutmix``.

    Returns:
        The images, and targets of shape (B, classes).
    """
    if method == "cutmix":
        from torchvision.transforms import v2

        cut: tuple[Tensor, Tensor] = v2.CutMix(alpha=CUTMIX_ALPHA, num_classes=classes)(x, targets)
        return cut
    share = float(torch.distributions.Beta(MIXUP_ALPHA, MIXUP_ALPHA).sample())
    whole = F.one_hot(targets, classes).to(torch.float32)
    return (
        x.lerp(x.roll(1, 0), 1 - share),
        whole.lerp(whole.roll(1, 0), 1 - share),
    )


def seed_of(*parts: object) -> int:
    """A seed for torch from anything that can be written down."""
    digest = hashlib.sha256(":".join(map(str, parts)).encode()).digest()
    return int.from_bytes(digest[:7], "little")

"""Variations of training images that leave their label true.

Crops are drawn by seed, pass and image, everything else by seed and step: no variation depends
on what came before it.
"""

import hashlib
from collections.abc import Callable
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


def policy(name: str) -> Callable[[Tensor], Tensor] | None:
    """A policy for one (3, H, W) uint8 image, or None for ``none``.

    Returns:
        ``trivial`` is TrivialAugment (Müller and Hutter 2021), ``rand`` RandAugment (Cubuk et al.
        2020), both torchvision's. Random numbers come from torch's global generator.
    """
    if name == "none":
        return None
    from torchvision.transforms import InterpolationMode, v2

    options: dict[str, Any] = {"interpolation": InterpolationMode.BILINEAR, "fill": [FILL] * 3}
    if name == "rand":
        return v2.RandAugment(**options)  # type: ignore[no-any-return]
    return v2.TrivialAugmentWide(**options)  # type: ignore[no-any-return]


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

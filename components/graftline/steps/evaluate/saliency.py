"""Class-activation maps: where in the image the given label came from.

Grad-CAM (Selvaraju et al. 2017) on the last spatial features: of a CNN the last map, of a vision
transformer the last block's patch tokens.
"""

import math
from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from graftline.classifier.bundle import Classifier
from graftline.progress import message, progress

Pixels = NDArray[np.uint8]
Maps = NDArray[np.float32]


def activation_maps(
    classifier: Classifier, images: Sequence[Pixels], targets: Sequence[int]
) -> tuple[list[Pixels], list[Maps]] | None:
    """What the network sees of each image, and how much each place speaks for the target class.

    Args:
        classifier: In eval mode.
        images: uint8, each (H, W, 3).
        targets: The class index to explain, one an image.

    Returns:
        The network's inputs as uint8 (S, S, 3) and maps float32 (S, S) between 0 and 1; None where
        the network has no spatial features that are understood.
    """
    if not images:
        return [], []
    layer = _Spatial(classifier)
    if not layer.found:
        message("no class-activation maps: %s has no spatial features", _name(classifier))
        return None
    inputs, maps = [], []
    work = list(zip(images, targets, strict=True))
    for image, target in progress(work, "class-activation maps"):
        pixels = classifier.preprocessing.resize_and_crop(image)
        with torch.enable_grad():
            found = layer.map(classifier.preprocessing.normalise(pixels)[None], target)
        inputs.append(pixels.round().clamp(0, 255).to(torch.uint8).permute(1, 2, 0).numpy())
        maps.append(_upscaled(found, pixels.shape[-1]))
    return inputs, maps


def overlay(image: Pixels, strength: Maps) -> Pixels:
    """The image in grey with the map over it: yellow where it speaks for the class, as uint8."""
    grey = image.astype(np.float32).mean(axis=2, keepdims=True) * 0.62
    weight = strength[..., None]
    low, high = np.array([200.0, 40.0, 30.0]), np.array([255.0, 225.0, 60.0])
    colour = low + (high - low) * weight
    mixed = grey * (1 - 0.75 * weight) + colour * 0.75 * weight
    return np.asarray(mixed.clip(0, 255), dtype=np.uint8)


class _Spatial:
    """Finds the last spatial features of a network by one pass, and reads them with gradients."""

    def __init__(self, classifier: Classifier) -> None:
        self.classifier = classifier
        size = classifier.preprocessing.input_size
        probe = torch.zeros(1, 3, size, size)
        self.layer: nn.Module | None = None
        seen: list[tuple[nn.Module, tuple[int, ...]]] = []
        hooks = [
            module.register_forward_hook(
                lambda module, _, output: (
                    seen.append((module, tuple(output.shape)))
                    if isinstance(output, Tensor)
                    else None
                )
            )
            for module in classifier.backbone.modules()
        ]
        try:
            with torch.no_grad():
                classifier.backbone(probe)
        finally:
            for hook in hooks:
                hook.remove()
        width = classifier.backbone.spec.feature_dim
        for module, shape in reversed(seen):
            # Inside attention there are maps of other widths: the last one as wide as the features
            # is what the pooling sees. For networks with a wider last layer any map will do.
            if _grid(shape) and width in shape[1:]:
                self.layer = module
                break
        else:
            self.layer = next((module for module, shape in reversed(seen) if _grid(shape)), None)
        # Two images at least never make the batch size and the width look alike.

    @property
    def found(self) -> bool:
        return self.layer is not None

    def map(self, x: Tensor, target: int) -> Tensor:
        """Positive evidence for the target, shape (h, w), between 0 and 1."""
        assert self.layer is not None
        kept: list[Tensor] = []

        def keep(module: nn.Module, inputs: object, output: Tensor) -> Tensor:
            leaf = output.detach().requires_grad_(True)
            kept.append(leaf)
            return leaf

        hook = self.layer.register_forward_hook(keep)
        try:
            logits = self.classifier(x)
            # Against the mean of the others: what speaks for all classes alike says nothing.
            score = logits[0, target] - logits[0].mean()
            (gradient,) = torch.autograd.grad(score, kept[-1])
        finally:
            hook.remove()
        return _cam(kept[-1].detach()[0], gradient[0])


def _cam(features: Tensor, gradient: Tensor) -> Tensor:
    features, gradient = _channels_last(features), _channels_last(gradient)
    if features.shape[:2] == (1, 1):
        return torch.zeros(1, 1)
    weights = gradient.mean(dim=(0, 1))
    heat = (features * weights).sum(dim=-1)
    if not (heat > 0).any():
        # Transformers normalise their tokens: there the product place by place says more.
        heat = (features * gradient).sum(dim=-1)
    heat = heat.clamp(min=0)
    top = heat.max()
    return heat / top if top > 0 else heat


def _channels_last(x: Tensor) -> Tensor:
    """(h, w, channels) from (channels, h, w), (h, w, channels) or (tokens, channels)."""
    if x.ndim == 2:
        side = math.isqrt(x.shape[0])
        return x[x.shape[0] - side * side :].reshape(side, side, -1)  # class tokens come first
    first, middle, last = x.shape
    return x if first == middle and first != last else x.permute(1, 2, 0)


def _grid(shape: tuple[int, ...]) -> bool:
    """Whether an output of one image has places: more than one, and few enough to be features."""
    if len(shape) == 4:
        return min(sorted(shape[1:])[:2]) > 1
    if len(shape) == 3 and shape[1] >= 4:
        side = math.isqrt(shape[1])
        return 0 <= shape[1] - side * side <= 8
    return False


def _upscaled(heat: Tensor, size: int) -> Maps:
    scaled = nn.functional.interpolate(
        heat[None, None].float(), size=(size, size), mode="bilinear", align_corners=False
    )
    result: Maps = scaled[0, 0].numpy()
    return result


def _name(classifier: Classifier) -> str:
    return classifier.backbone.spec.name

"""The networks that timm and torchvision know, without their classification heads."""

import difflib
import math
import sys
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor, nn

from graftline.errors import BackboneError, UnknownBackbone
from graftline.preprocessing import CropMode, Interpolation, Preprocessing

LIBRARIES = ("timm", "torchvision")
HEAD_CLASSES = 1000  # of the network with its head, built only to learn the names of its tensors


@dataclass(frozen=True)
class Architecture:
    """One network of one library.

    Attributes:
        library: ``timm`` or ``torchvision``.
        name: The library's name for it.
        tag: Which of the library's pretrained weights, None for its default.
        preprocessing: At the size it was pretrained with.
        pretrained: Whether the library has weights for it.
    """

    library: str
    name: str
    tag: str | None
    preprocessing: Preprocessing
    pretrained: bool

    @property
    def full_name(self) -> str:
        """``library/name`` or ``library/name.tag``."""
        return f"{self.library}/{self.name}" + (f".{self.tag}" if self.tag else "")


@lru_cache
def names(library: str) -> tuple[str, ...]:
    """All architecture names of a library."""
    if library == "timm":
        import timm

        return tuple(timm.list_models())
    import torchvision

    return tuple(torchvision.models.list_models(module=torchvision.models))


@lru_cache
def find(name: str) -> Architecture:
    """The architecture that a run file means by ``backbone:``.

    Args:
        name: ``resnet50``, ``timm/resnet50``, ``timm/resnet50.tv_in1k``, ``torchvision/resnet50``
            or ``torchvision/resnet50.IMAGENET1K_V2``; without a library, timm is asked first.

    Raises:
        UnknownBackbone: No library has it; near names are given.
    """
    library, _, bare = name.rpartition("/")
    if library and library not in LIBRARIES:
        raise UnknownBackbone(
            f"Backbone '{name}': there is no library '{library}'.",
            fix=f"Write {' or '.join(f'{known}/{bare}' for known in LIBRARIES)}.",
        )
    architecture, _, tag = bare.partition(".")
    for known in (library,) if library else LIBRARIES:
        if architecture in names(known):
            describe = _timm if known == "timm" else _torchvision
            return describe(architecture, tag or None)
    raise UnknownBackbone(
        f"No backbone is called '{name}'.",
        why="Neither timm nor torchvision has it." if not library else f"{library} has it not.",
        fix=_near(architecture),
    )


def create(architecture: Architecture, image_size: int, *, head: bool = False) -> nn.Module:
    """The network with random weights.

    Args:
        architecture: Which.
        image_size: Side of its input in pixels.
        head: With its classification head; else it ends in its pooled features.
    """
    if architecture.library == "timm":
        return create_timm(architecture, image_size, head=head, pretrained=False)
    network = _create_torchvision(architecture, image_size)
    return network if head else _without_head(network)


def create_timm(
    architecture: Architecture, image_size: int, *, head: bool, pretrained: bool
) -> nn.Module:
    """A timm network; its own loader fits pretrained weights to another image size."""
    import timm

    name = architecture.name + (f".{architecture.tag}" if architecture.tag else "")
    arguments: dict[str, Any] = {"num_classes": HEAD_CLASSES if head else 0}
    if image_size != timm_size(timm.get_pretrained_cfg(name)):
        arguments["img_size"] = image_size
    try:
        network: nn.Module = timm.create_model(name, pretrained=pretrained, **arguments)
    except TypeError as error:
        if "img_size" not in str(error):
            raise
        del arguments["img_size"]  # a convolutional network takes any size with the same weights
        network = timm.create_model(name, pretrained=pretrained, **arguments)
    return network


def timm_size(config: Any) -> int | None:
    """The square input size in timm's configuration, None where it is not square."""
    _, height, width = config.input_size if config is not None else (3, 224, 224)
    return int(height) if height == width else None


def checkpoint_filter(network: nn.Module) -> Callable[[dict[str, Tensor]], dict[str, Tensor]]:
    """What the library applies to a checkpoint to fit it: old names, position embeddings."""
    if type(network).__name__ == "VisionTransformer" and hasattr(network, "class_token"):
        return lambda state: _interpolate_torchvision_vit(network, state)
    filter_state = getattr(sys.modules[type(network).__module__], "checkpoint_filter_fn", None)
    if filter_state is None:
        return lambda state: state
    return lambda state: dict(filter_state(state, network))


@lru_cache
def _timm(name: str, tag: str | None) -> Architecture:
    import timm
    from timm.models import get_arch_pretrained_cfgs

    tags = [full.partition(".")[2] for full in get_arch_pretrained_cfgs(name)]
    if tag is not None and tag not in tags:
        raise UnknownBackbone(
            f"timm's '{name}' has no weights '{tag}'.",
            fix=f"It has: {', '.join(filter(None, tags)) or 'only its default'}.",
        )
    config = timm.get_pretrained_cfg(f"{name}.{tag}" if tag else name)
    if config is None:
        size, crop_pct, interpolation = 224, 0.875, "bicubic"
        crop_mode: CropMode = "center"
        mean, std = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
    else:
        size = timm_size(config) or min(config.input_size[1:])
        crop_pct, crop_mode = config.crop_pct or 0.875, config.crop_mode or "center"
        interpolation = config.interpolation
        mean, std = _three(config.mean), _three(config.std)
    preprocessing = Preprocessing(
        input_size=size,
        resize_size=max(size, math.floor(size / crop_pct)),
        interpolation=_interpolation(interpolation),
        crop_mode=crop_mode,
        mean=mean,
        std=std,
    )
    pretrained = config is not None and bool(config.has_weights)
    return Architecture("timm", name, tag, preprocessing, pretrained)


@lru_cache
def _torchvision(name: str, tag: str | None) -> Architecture:
    import torchvision

    known = torchvision.models.get_model_weights(name)
    if tag is not None and tag not in known.__members__:
        raise UnknownBackbone(
            f"torchvision's '{name}' has no weights '{tag}'.",
            fix=f"It has: {', '.join(known.__members__)}.",
        )
    preset = (known[tag] if tag else known.DEFAULT).transforms()
    size = int(preset.crop_size[0])
    preprocessing = Preprocessing(
        input_size=size,
        resize_size=max(size, int(preset.resize_size[0])),
        interpolation=_interpolation(preset.interpolation.value),
        crop_mode="center",
        mean=_three(preset.mean),
        std=_three(preset.std),
    )
    return Architecture("torchvision", name, tag, preprocessing, pretrained=True)


def _create_torchvision(architecture: Architecture, image_size: int) -> nn.Module:
    import torchvision

    name = architecture.name
    arguments: dict[str, Any] = {}
    if name in ("googlenet", "inception_v3"):
        # Their pretrained weights expect inputs in the older normalisation, made inside.
        arguments = {"aux_logits": False, "init_weights": False, "transform_input": True}
    elif name.startswith("vit_"):
        arguments = {"image_size": image_size}
    elif name.startswith("maxvit"):
        arguments = {"input_size": (image_size, image_size)}
    try:
        network: nn.Module = torchvision.models.get_model(name, weights=None, **arguments)
    except (ValueError, AssertionError, RuntimeError) as error:
        raise BackboneError(
            f"Backbone 'torchvision/{name}' cannot take images of {image_size} pixels.",
            why=str(error),
            fix=f"Leave image_size out, or use {architecture.preprocessing.input_size}.",
        ) from error
    return network


def _without_head(network: nn.Module) -> nn.Module:
    """Replace what makes classes out of the pooled features by nothing."""
    if type(network).__name__ == "SqueezeNet":  # its head is a convolution before the pooling
        network.classifier = nn.AdaptiveAvgPool2d((1, 1))
        return network
    for name in ("fc", "classifier", "heads", "head"):
        head = getattr(network, name, None)
        if isinstance(head, nn.Linear):
            setattr(network, name, nn.Identity())
            return network
        if isinstance(head, nn.Sequential):
            head[-1] = nn.Identity()
            return network
    raise BackboneError(f"torchvision's {type(network).__name__} has no head that is known here.")


def _interpolate_torchvision_vit(network: nn.Module, state: dict[str, Tensor]) -> dict[str, Tensor]:
    from torchvision.models.vision_transformer import interpolate_embeddings

    return dict(
        interpolate_embeddings(
            image_size=int(network.image_size),  # type: ignore[arg-type]
            patch_size=int(network.patch_size),  # type: ignore[arg-type]
            model_state=state,
            reset_heads=False,
        )
    )


def _near(name: str) -> str:
    candidates = {known: f"{library}/{known}" for library in LIBRARIES for known in names(library)}
    near = difflib.get_close_matches(name.lower(), list(candidates), n=5, cutoff=0.6)
    near += [known for known in candidates if name.lower() in known and known not in near][:5]
    if not near:
        return "See `graftline backbones` for the names."
    return f"Did you mean {', '.join(near[:6])}? See `graftline backbones` for all names."


def _interpolation(name: str) -> Interpolation:
    return "bilinear" if name == "bilinear" else "bicubic"


def _three(values: Any) -> tuple[float, float, float]:
    red, green, blue = (float(value) for value in values)
    return red, green, blue


def probe_features(network: nn.Module, image_size: int) -> int:
    """Width of a network's pooled features at this input size, found without computing.

    Raises:
        BackboneError: The network does not take this size or gives no pooled vector.
    """
    device = next(network.parameters()).device
    try:
        with torch.no_grad(), device:
            output = network.eval()(torch.zeros(2, 3, image_size, image_size, device=device))
            output = output.flatten(1) if output.shape[2:].numel() == 1 else output
    except NotImplementedError:
        raise
    except Exception as error:
        raise BackboneError(
            f"The network does not take images of {image_size} x {image_size} pixels.",
            why=str(error).splitlines()[0] if str(error) else type(error).__name__,
            fix="Leave image_size out, or use a multiple of 32.",
        ) from error
    if output.ndim != 2:
        raise BackboneError(
            f"The network has no pooled feature vector: it gives {tuple(output.shape[1:])}.",
            fix="Use another backbone.",
        )
    return int(output.shape[1])

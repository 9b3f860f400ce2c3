"""The networks that timm and torchvision know, without their classification heads."""

import math
import re
import sys
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor, nn

from graftline.errors import BackboneError, UnknownBackbone
from graftline.images.preprocessing import CropMode, Interpolation, Preprocessing
from graftline.models.names import BLOCKS, HUB, LIBRARIES, near

HEAD_CLASSES = 1000  # of the network with its head, built only to learn the names of its tensors


@dataclass(frozen=True)
class Architecture:
    """One network of one library.

    Attributes:
        library: ``timm`` or ``torchvision``.
        name: The library's name for it.
        tag: Which of the library's pretrained weights, None for its default.
        preprocessing: At the size it was pretrained with.
        source: Of the weights that the library publishes, in the form that
            :mod:`graftline.models.weights.published` takes; empty where it publishes none.
    """

    library: str
    name: str
    tag: str | None
    preprocessing: Preprocessing
    source: str

    @property
    def pretrained(self) -> bool:
        """Whether the library publishes weights for it."""
        return bool(self.source)

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
            or ``torchvision/resnet50.IMAGENET1K_V2``; without a library, timm is asked first. What
            follows a ``+`` says which features are taken, and is no part of the architecture.

    Raises:
        UnknownBackbone: No library has it; near names are given.
    """
    name = name.removesuffix(BLOCKS)
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
        why="Neither timm nor torchvision has it."
        if not library
        else f"{library} does not have it.",
        fix=near(architecture, [f"{each}/{n}" for each in LIBRARIES for n in names(each)]),
    )


def create(architecture: Architecture, image_size: int, *, head: bool = False) -> nn.Module:
    """The network with random weights.

    Args:
        architecture: Which.
        image_size: Side of its input in pixels.
        head: With its classification head; else it ends in its pooled features.
    """
    if architecture.library == "timm":
        return _create_timm(architecture, image_size, head=head)
    network = _create_torchvision(architecture, image_size)
    return network if head else _without_head(network)


def create_seeded(architecture: Architecture, image_size: int) -> nn.Module:
    """The headless network with random weights, the same ones at each call."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return create(architecture, image_size)


def _create_timm(architecture: Architecture, image_size: int, *, head: bool) -> nn.Module:
    import timm

    name = architecture.name + (f".{architecture.tag}" if architecture.tag else "")
    arguments: dict[str, Any] = {"num_classes": HEAD_CLASSES if head else 0}
    if image_size != timm_size(timm.get_pretrained_cfg(name)):
        arguments["img_size"] = image_size
    try:
        network: nn.Module = timm.create_model(name, pretrained=False, **arguments)
    except TypeError as error:
        if "img_size" not in str(error):
            raise
        del arguments["img_size"]  # a convolutional network takes any size with the same weights
        network = timm.create_model(name, pretrained=False, **arguments)
    return network


def timm_size(config: Any) -> int | None:
    """The square input size in timm's configuration, None where it is not square."""
    _, height, width = config.input_size if config is not None else (3, 224, 224)
    return int(height) if height == width else None


def checkpoint_filter(network: nn.Module) -> Callable[[dict[str, Tensor]], dict[str, Tensor]]:
    """What the library applies to a checkpoint to fit it: old names, position embeddings."""
    if type(network).__module__.startswith("torchvision."):
        return lambda state: _torchvision_filter(network, state)
    filter_state = getattr(sys.modules[type(network).__module__], "checkpoint_filter_fn", None)
    if filter_state is None:
        return lambda state: state
    return lambda state: dict(filter_state(state, network))


def tags_of(architecture: Architecture) -> tuple[str, ...]:
    """All the weights that the library has for an architecture, its default first."""
    if architecture.library == "timm":
        from timm.models import get_arch_pretrained_cfgs

        configs = get_arch_pretrained_cfgs(architecture.name)
        return tuple(
            full.partition(".")[2]
            for full, config in configs.items()
            if config.has_weights and "." in full
        )
    import torchvision

    known = torchvision.models.get_model_weights(architecture.name)
    default = known.DEFAULT.name
    return (default, *(name for name in known.__members__ if name not in (default, "DEFAULT")))


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
    source = ""
    if config is not None and config.has_weights:
        source = f"{HUB}{config.hf_hub_id}" if config.hf_hub_id else str(config.url or "")
    return Architecture("timm", name, tag, preprocessing, source)


@lru_cache
def _torchvision(name: str, tag: str | None) -> Architecture:
    import torchvision

    known = torchvision.models.get_model_weights(name)
    if tag is not None and tag not in known.__members__:
        raise UnknownBackbone(
            f"torchvision's '{name}' has no weights '{tag}'.",
            fix=f"It has: {', '.join(known.__members__)}.",
        )
    chosen = known[tag] if tag else known.DEFAULT
    preset = chosen.transforms()
    size = int(preset.crop_size[0])
    preprocessing = Preprocessing(
        input_size=size,
        resize_size=max(size, int(preset.resize_size[0])),
        interpolation=_interpolation(preset.interpolation.value),
        crop_mode="center",
        mean=_three(preset.mean),
        std=_three(preset.std),
    )
    return Architecture("torchvision", name, tag, preprocessing, str(chosen.url))


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
    network: nn.Module = torchvision.models.get_model(name, weights=None, **arguments)
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


def _torchvision_filter(network: nn.Module, state: dict[str, Tensor]) -> dict[str, Tensor]:
    """What torchvision does to its checkpoints in the functions that make the networks."""
    kind = type(network).__name__
    if kind == "VisionTransformer":
        from torchvision.models.vision_transformer import interpolate_embeddings

        return dict(
            interpolate_embeddings(
                image_size=int(network.image_size),  # type: ignore[arg-type]
                patch_size=int(network.patch_size),  # type: ignore[arg-type]
                model_state=OrderedDict(state),
                reset_heads=False,
            )
        )
    if kind == "DenseNet":  # its checkpoints are older than the rule of no dots in module names
        dotted = re.compile(r"(denselayer\d+\.(?:norm|relu|conv))\.([12])\.")
        return {dotted.sub(r"\1\2.", name): tensor for name, tensor in state.items()}
    if kind in ("GoogLeNet", "Inception3"):  # the second heads that training needs
        return {
            name: tensor for name, tensor in state.items() if not name.startswith(("aux", "AuxL"))
        }
    return state


def _interpolation(name: str) -> Interpolation:
    return "bilinear" if name == "bilinear" else "bicubic"


def _three(values: Any) -> tuple[float, float, float]:
    red, green, blue = (float(value) for value in values)
    return red, green, blue


def matching() -> list[str]:
    """All names of both libraries."""
    return [f"{library}/{name}" for library in LIBRARIES for name in names(library)]

"""Which blocks stay as they are, proof that they did, and how fast the others learn."""

import hashlib
import math
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import chain
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from graftline.classifier.bundle import Classifier
from graftline.errors import FrozenWeightsMoved
from graftline.models.backbone import Backbone
from graftline.steps.fine_tune.recipe import Settings, trained_count

DEEP = 20  # blocks; a ResNet-50 has 17, most transformers 13


@dataclass(frozen=True)
class Division:
    """The blocks of a network, from input to output.

    Attributes:
        frozen: Names of the blocks that stay.
        trained: Names of the blocks that are trained.
    """

    frozen: tuple[str, ...]
    trained: tuple[str, ...]


def divide(backbone: Backbone, frozen_fraction: float) -> Division:
    """Freeze the lower share of the blocks, rounded down; at 1 the whole backbone."""
    names = [name for name, _ in backbone.blocks()]
    count = min(len(names), math.floor(frozen_fraction * len(names) + 1e-9))
    return Division(tuple(names[:count]), tuple(names[count:]))


def divide_by(backbone: Backbone, unfreeze: float | str | None) -> Division:
    """Train the upper blocks that ``fine_tune.unfreeze`` names.

    Args:
        backbone: The network.
        unfreeze: ``all``; a whole number of blocks, 0 for the head alone; or the share of the
            blocks as a float, rounded down, but one block at least.
    """
    names = [name for name, _ in backbone.blocks()]
    count = trained_count(len(names), unfreeze)
    return Division(tuple(names[: len(names) - count]), tuple(names[len(names) - count :]))


def freeze(backbone: Backbone, division: Division) -> None:
    """Take the frozen blocks out of the gradient; the others into it."""
    for name, block in backbone.blocks():
        block.requires_grad_(name not in division.frozen)


def joined(backbone: Backbone, division: Division, count: int) -> Division:
    """Let the topmost ``count`` trained blocks take part; the others wait as if frozen."""
    waiting = len(division.trained) - count
    now = Division(division.frozen + division.trained[:waiting], division.trained[waiting:])
    for name, block in backbone.blocks():
        if name in division.trained:
            block.requires_grad_(name in now.trained)
    return now


def training_mode(classifier: Classifier, division: Division, *, adapt_batch_norm: bool) -> None:
    """Training mode above the frozen blocks.

    Frozen blocks stay in eval mode: BatchNorm in training mode would change its statistics even
    without a gradient. ``adapt_batch_norm`` False keeps the statistics of the trained blocks too.
    """
    classifier.train()
    for name, block in classifier.backbone.blocks():
        if name in division.frozen:
            block.eval()
        elif not adapt_batch_norm:
            for module in block.modules():
                if isinstance(module, _BatchNorm):
                    module.eval()


def frozen_digests(backbone: Backbone, division: Division) -> dict[str, str]:
    """Sha256 of every frozen parameter and buffer, by name."""
    trained = {id(tensor) for tensor in trained_tensors(backbone, division).values()}
    return {
        name: _digest(tensor) for name, tensor in _tensors(backbone) if id(tensor) not in trained
    }


def check_unmoved(backbone: Backbone, division: Division, before: dict[str, str]) -> None:
    """Compare with the digests from before training.

    Raises:
        FrozenWeightsMoved: A frozen tensor changed; it is named.
    """
    after = frozen_digests(backbone, division)
    moved = sorted(name for name in before if after.get(name) != before[name])
    if moved:
        shown = ", ".join(moved[:8]) + (f" and {len(moved) - 8} more" if moved[8:] else "")
        raise FrozenWeightsMoved(
            f"{len(moved)} frozen tensors changed during training: {shown}",
            why="the architecture updates them by itself, outside of the optimiser",
            fix="set fine_tune.frozen_fraction to 0 for this backbone, or choose another one, "
            "and report it",
        )


def trained_tensors(backbone: Backbone, division: Division) -> dict[str, Tensor]:
    """Parameters and buffers of the trained blocks, by their name in the backbone."""
    inside = set()
    for name, block in backbone.blocks():
        if name in division.trained:
            inside |= {id(tensor) for _, tensor in _tensors(block)}
    return {name: tensor for name, tensor in _tensors(backbone) if id(tensor) in inside}


def parameter_groups(
    classifier: Classifier,
    division: Division,
    *,
    learning_rate: float,
    layer_decay: float,
    weight_decay: float,
) -> list[dict[str, Any]]:
    """Groups for AdamW: the head learns fastest, each block below it slower by a factor.

    In a network of more than :data:`DEEP` blocks the factor counts for as large a share of the
    depth as it does there: the lowest of DenseNet's sixty layers would learn nothing else.
    Biases and normalisation (one-dimensional parameters) are not decayed.
    """
    blocks = dict(classifier.backbone.blocks())
    layer_decay **= min(1.0, DEEP / max(1, len(blocks)))
    places: list[tuple[nn.Module, float]] = [(classifier.head, learning_rate)]
    for depth, name in enumerate(reversed(division.trained), start=1):
        places.append((blocks[name], learning_rate * layer_decay**depth))
    groups: list[dict[str, Any]] = []
    for module, rate in places:
        own = [parameter for parameter in module.parameters() if parameter.requires_grad]
        for parameters, decay in (
            ([p for p in own if p.ndim > 1], weight_decay),
            ([p for p in own if p.ndim <= 1], 0.0),
        ):
            if parameters:
                group = {"params": parameters, "lr": rate, "peak": rate, "weight_decay": decay}
                groups.append(group)
    return groups


def optimizer_for(
    classifier: Classifier, division: Division, settings: Settings
) -> torch.optim.Optimizer:
    """AdamW, or SGD with Nesterov's momentum, with a learning rate for each block."""
    groups = parameter_groups(
        classifier,
        division,
        learning_rate=settings.learning_rate,
        layer_decay=settings.layer_decay,
        weight_decay=settings.weight_decay,
    )
    # On a CPU one pass over memory: 40 ms in place of 140 for 17 million parameters (AdamW).
    fused = True if next(classifier.parameters()).device.type == "cpu" else None
    if settings.optimizer == "sgd":
        return torch.optim.SGD(groups, momentum=0.9, nesterov=True, fused=fused)
    return torch.optim.AdamW(groups, betas=(0.9, 0.999), fused=fused)


def _tensors(module: nn.Module) -> Iterator[tuple[str, Tensor]]:
    """What a file of its weights holds.

    Other buffers are worked out by the network itself, some in its first forward pass (ConViT's
    tables of distances): they are no state that training could change.
    """
    saved = module.state_dict(keep_vars=True)
    for name, tensor in chain(module.named_parameters(), module.named_buffers()):
        if name in saved:
            yield name, tensor


def _digest(tensor: Tensor) -> str:
    raw = tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8)
    return hashlib.sha256(raw.numpy().tobytes()).hexdigest()

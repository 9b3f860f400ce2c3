"""Features of every block of a network, not only of its last one: ``backbone: NAME+blocks``.

The last block's features are made for the classes of ImageNet. What drawings, letters or textures
differ in is often found further down, and a linear classifier on all of it (Evci et al. 2022,
"Head2Toe: Utilizing Intermediate Representations for Better Transfer Learning") can reach what
fine-tuning reaches, for one forward pass an image.
"""

import math
import threading
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

# Features of one block, about; and parts of a picture along a side. Measured on the data sets of
# the forecast's half (docs/decision-guide.md): without parts a third of the gain is lost.
WIDTH, MOST_PARTS = 512, 4


class BlockOutputs:
    """Collects what the blocks give while a network runs.

    Args:
        modules: Whose outputs are collected, from input to output. They get a hook.
    """

    def __init__(self, modules: Sequence[nn.Module]) -> None:
        self._found = threading.local()  # networks run in several threads at once
        for number, module in enumerate(modules):
            module.register_forward_hook(_Keep(self, number))

    def __deepcopy__(self, memo: dict[int, Any]) -> "BlockOutputs":
        return self  # the hooks of a copied network write here, each thread for itself

    def begin(self) -> None:
        """Forget what an earlier pass left."""
        self._found.by_number = {}

    def keep(self, number: int, output: Any) -> None:
        """Note the output of one block, where it is a tensor of images."""
        value = output[0] if isinstance(output, tuple | list) and output else output
        if hasattr(self._found, "by_number") and isinstance(value, Tensor) and value.ndim > 1:
            self._found.by_number[number] = averaged(value)

    def joined(self, features: Tensor) -> Tensor:
        """All blocks' averages and the pooled features of the last, (N, width), for this pass."""
        found = self._found.by_number
        self._found.by_number = {}
        return torch.cat([*(found[number] for number in sorted(found)), features], dim=1)


class _Keep:
    """The hook on one block."""

    def __init__(self, outputs: BlockOutputs, number: int) -> None:
        self._outputs, self._number = outputs, number

    def __call__(self, module: nn.Module, inputs: tuple[Any, ...], output: Any) -> None:
        self._outputs.keep(self._number, output)


def averaged(output: Tensor) -> Tensor:
    """Means over parts of the picture, (N, width): of few channels more parts than of many.

    Args:
        output: (N, C, H, W); (N, H, W, C) as Swin transformers have it, known by equal sides; or
            (N, tokens, C), averaged over all tokens; or (N, C).
    """
    if output.ndim != 4:
        return output.mean(dim=1) if output.ndim == 3 else output.flatten(1)
    if output.shape[1] == output.shape[2] != output.shape[3]:
        output = output.permute(0, 3, 1, 2)
    _, channels, height, width = output.shape
    parts = max(1, min(MOST_PARTS, height, width, math.isqrt(WIDTH // channels)))
    rows, columns = (_means(parts, side).to(output) for side in (height, width))
    return torch.matmul(torch.matmul(rows, output), columns.T).flatten(1)


def _means(parts: int, side: int) -> Tensor:
    """Matrix (parts, side) that averages stretches of a line, as adaptive pooling cuts them.

    A product of matrices, because ONNX has no pooling into parts of unequal length.
    """
    matrix = torch.zeros(parts, side)
    for part in range(parts):
        first, end = part * side // parts, -(-(part + 1) * side // parts)
        matrix[part, first:end] = 1 / (end - first)
    return matrix


def last_modules(
    network: nn.Module, blocks: Sequence[tuple[str, Sequence[str]]]
) -> list[nn.Module]:
    """What gives each block's output, but for the last block's: the pooled features stand for it.

    Args:
        network: Without its classification head.
        blocks: Names of each block's parts, as of :func:`graftline.models.blocks.division_of`.
    """
    found = []
    for _, parts in blocks[:-1]:
        modules = [part for name in parts if (part := _module(network, name)) is not None]
        found += modules[-1:]
    return found


def _module(network: nn.Module, name: str) -> nn.Module | None:
    try:
        return network.get_submodule(name)
    except AttributeError:
        return None  # a loose parameter


def width(network: nn.Module, blocks: Sequence[tuple[str, Sequence[str]]], size: int) -> int:
    """How many features come out, found without computing where the network runs on shapes.

    Args:
        network: Without its classification head; hooked and thrown away by the caller.
        blocks: See :func:`last_modules`.
        size: Side of its input in pixels.
    """
    outputs = BlockOutputs(last_modules(network, blocks))
    device = next(network.parameters()).device
    with torch.no_grad():
        outputs.begin()
        pooled = network(torch.zeros(2, 3, size, size, device=device)).flatten(1)
        return int(outputs.joined(pooled).shape[1])

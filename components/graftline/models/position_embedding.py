"""What a transformer learnt about positions, carried over to another image size.

timm and torchvision do this for most of their families when they load weights; here it is done
for the others, whose position embeddings are grids too.
"""

import math
import re

import torch
from torch import Tensor
from torch.nn import functional

EMBEDDING = re.compile(r"(^|\.)pos_embed\w*$")
BIAS_TABLE = "relative_position_bias_table"


def resampled(name: str, tensor: Tensor, wanted: Tensor) -> Tensor | None:
    """A position embedding or bias table at another grid size; None for anything else.

    Args:
        name: Of the tensor.
        tensor: As it was learnt: (1, tokens, C), (1, C, H, W) or (1, H, W, C) for an embedding,
            ((2 H - 1) (2 W - 1), heads) for a table of biases.
        wanted: What the network has at the size asked for; its values are not read.
    """
    if name.endswith(BIAS_TABLE) and tensor.shape[1:] == wanted.shape[1:]:
        return _table(tensor, wanted)
    if not EMBEDDING.search(name) or tensor.ndim != wanted.ndim or tensor.shape[0] != 1:
        return None
    if tensor.ndim == 3 and tensor.shape[2] == wanted.shape[2]:
        return _tokens(tensor, wanted)
    if tensor.ndim == 4 and tensor.shape[1] == wanted.shape[1]:
        return _grid(tensor, wanted.shape[2], wanted.shape[3])
    if tensor.ndim == 4 and tensor.shape[3] == wanted.shape[3]:
        channels_first = tensor.permute(0, 3, 1, 2)
        return _grid(channels_first, wanted.shape[1], wanted.shape[2]).permute(0, 2, 3, 1)
    return None


def _tokens(tensor: Tensor, wanted: Tensor) -> Tensor | None:
    """Tokens of a square grid, row by row, after those that have no place in it."""
    for extra in (0, 1, 2):
        old, new = _root(tensor.shape[1] - extra), _root(wanted.shape[1] - extra)
        if old and new:
            break
    else:
        return None
    prefix, grid = tensor[:, :extra], tensor[:, extra:]
    square = grid.reshape(1, old, old, -1).permute(0, 3, 1, 2)
    resized = _grid(square, new, new).permute(0, 2, 3, 1).flatten(1, 2)
    return torch.cat([prefix, resized], dim=1)


def _table(tensor: Tensor, wanted: Tensor) -> Tensor | None:
    """One bias for each distance in a square window, from the farthest to the farthest."""
    old, new = _root(tensor.shape[0]), _root(wanted.shape[0])
    if not old or not new:
        return None
    square = tensor.reshape(1, old, old, -1).permute(0, 3, 1, 2)
    return _grid(square, new, new).permute(0, 2, 3, 1).flatten(0, 2)


def _grid(tensor: Tensor, height: int, width: int) -> Tensor:
    return functional.interpolate(
        tensor.float(), size=(height, width), mode="bicubic", antialias=True, align_corners=False
    ).to(tensor.dtype)


def _root(number: int) -> int | None:
    """The whole square root; None where there is none."""
    root = math.isqrt(max(number, 0))
    return root if root and root * root == number else None

"""How the learning rate moves, how far a step may go, and when a block joins the training."""

import math

import torch

LEAST_WARM_UP = 10  # steps


def rate_factor(step: int, steps: int, warmup_fraction: float) -> float:
    """Factor on the peak learning rate: linear warm-up, then half a cosine down to zero.

    The rate takes at least ten steps to its peak, or meets the cosine before: AdamW's first steps
    move every weight by the whole rate, whatever its gradient. Twelve steps, one of warm-up, lost
    up to 17 points to the probe that they started from, and 1.1 on average of 13 data sets of 80
    images; with this they gained 1.9 on average and lost 2.2 at most.

    Args:
        step: Steps done, from 0.
        steps: In all.
        warmup_fraction: Share of the steps in which the rate rises; 0: it starts at its peak.
    """
    warm = round(steps * warmup_fraction)
    least = LEAST_WARM_UP if warmup_fraction else 1
    rising = (step + 1) / max(warm, least)
    falling = 0.5 * (1 + math.cos(math.pi * max(0, step - warm) / max(1, steps - warm)))
    return min(rising, falling)


def set_rates(optimizer: torch.optim.Optimizer, factor: float) -> None:
    """Give each group of parameters this share of its own peak rate."""
    for group in optimizer.param_groups:
        group["lr"] = group["peak"] * factor


def clip(optimizer: torch.optim.Optimizer, longest: float) -> float:
    """Shorten the gradient of all parameters together to a length; its length before."""
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    return float(torch.nn.utils.clip_grad_norm_(parameters, longest))


def joined_blocks(progress: float, blocks: int, gradual: float) -> int:
    """How many of the trained blocks, counted from the top, are in training already.

    Gradual unfreezing (Howard and Ruder 2018, "Universal Language Model Fine-tuning"): the head
    alone, then one more block at a time.

    Args:
        progress: Share of the training that is done, 0 to 1.
        blocks: Blocks that are trained in the end.
        gradual: Share of the training at whose end all are; 0 for all at once.
    """
    if gradual <= 0 or progress >= gradual:
        return blocks
    return min(blocks, math.floor(progress / gradual * (blocks + 1)))

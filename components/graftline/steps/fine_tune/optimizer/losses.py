"""The loss of a batch in parts: summed, and divided by the whole batch's weight."""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F


def class_weights(labels: NDArray[np.int64], classes: int, *, balanced: bool) -> Tensor:
    """A weight for each class; balanced: inverse to its share of the training images.

    Args:
        labels: Of the training images. A class without any keeps a weight that nothing uses.
        classes: Number of classes.
        balanced: Else all are 1.
    """
    if not balanced:
        return torch.ones(classes)
    counts = np.bincount(labels, minlength=classes)
    shares = counts.sum() / ((counts > 0).sum() * np.maximum(counts, 1))
    return torch.from_numpy(shares).float()


def summed_loss(logits: Tensor, targets: Tensor, weights: Tensor, smoothing: float) -> Tensor:
    """Weighted cross-entropy, summed over images.

    Args:
        logits: (B, classes).
        targets: Class indices (B,), or shares of the classes (B, classes).
        weights: Of the classes.
        smoothing: Probability mass that is spread over all classes.
    """
    return F.cross_entropy(
        logits.float(), targets, weight=weights, label_smoothing=smoothing, reduction="sum"
    )


def total_weight(targets: Tensor, weights: Tensor) -> Tensor:
    """What the summed loss is divided by: each image counts with its class's weight."""
    if targets.dim() == 1:
        return weights[targets].sum()
    return (targets @ weights).sum()

"""A fitted classifier folded with its standardisation into one layer on raw features."""

import numpy as np
import torch
from torch import nn

from graftline.steps.fit_head.probes.linear import LinearFit
from graftline.steps.fit_head.probes.scaling import Standardisation


def fold(fit: LinearFit, scaling: Standardisation) -> nn.Linear:
    """One layer that takes raw features: ``W/s x + (b - W/s m)``, computed in float64."""
    weight = scaling.unfold(fit.weight)
    bias = fit.bias - weight @ scaling.mean
    layer = nn.Linear(weight.shape[1], weight.shape[0])
    with torch.no_grad():
        layer.weight.copy_(torch.from_numpy(np.ascontiguousarray(weight, dtype=np.float32)))
        layer.bias.copy_(torch.from_numpy(np.ascontiguousarray(bias, dtype=np.float32)))
    return layer.requires_grad_(True)

"""A fitted classifier folded with its standardisation into one layer on raw features."""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from graftline.steps.fit_head.linear import LinearFit
from graftline.steps.fit_head.scaling import Standardisation


def fold(fit: LinearFit, scaling: Standardisation) -> nn.Linear:
    """One layer that takes raw features: ``W/s x + (b - W/s m)``, computed in float64."""
    weight = scaling.unfold(fit.weight)
    bias = fit.bias - weight @ scaling.mean
    return linear_layer(weight, bias)


def fold_scikit_learn(
    coefficients: NDArray[np.float64],
    intercept: NDArray[np.float64],
    scaling: Standardisation,
) -> nn.Linear:
    """The layer of a fitted scikit-learn estimator; a binary one (1 row) becomes two classes.

    A binary decision value z becomes logits (-z/2, z/2): their softmax is sigmoid(z), and their
    difference is z.
    """
    if coefficients.shape[0] == 1:
        coefficients = np.concatenate([-coefficients / 2, coefficients / 2])
        intercept = np.concatenate([-intercept / 2, intercept / 2])
    weight = scaling.unfold(coefficients)
    return linear_layer(weight, intercept - weight @ scaling.mean)


def linear_layer(weight: NDArray[np.float64], bias: NDArray[np.float64]) -> nn.Linear:
    """A float32 layer with these values."""
    layer = nn.Linear(weight.shape[1], weight.shape[0])
    with torch.no_grad():
        layer.weight.copy_(torch.from_numpy(np.ascontiguousarray(weight, dtype=np.float32)))
        layer.bias.copy_(torch.from_numpy(np.ascontiguousarray(bias, dtype=np.float32)))
    return layer.requires_grad_(True)

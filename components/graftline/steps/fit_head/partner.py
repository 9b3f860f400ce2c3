"""The classifier on the last block beside the one on all blocks: a weighted sum of their logits.

Chosen on few images, each of the two is at times the worse one by chance. Both are linear in the
features that one pass gives, those of the last block being the last of all blocks', so their sum is
one linear layer again and costs nothing where it is used.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.optimize import minimize
from scipy.special import log_softmax, softmax
from torch import nn

from graftline.steps.fit_head.probes.folds import Index
from graftline.steps.fit_head.probes.search import Candidate
from graftline.steps.fit_head.suspects import Scores

# Before anything is seen, in units of a classifier's own deviation: the last block's half as loud
# as all blocks', each give or take a factor of e. Between 0.5 and 4 for the deviation of the
# logarithm, and 0.25 and 1 for the half, nothing changes on the data sets of the forecast's half.
USUAL = (0.5, 1.0)
LEAST_SPREAD = 1e-12


@dataclass(frozen=True)
class Partner:
    """The classifier on the features of the last block, and how much each of the two counts.

    Attributes:
        candidate: What is fitted on the last block's features.
        width: How many those are: the last ones of all blocks'.
        weights: Of its logits, and of those of the classifier on all blocks.
    """

    candidate: Candidate
    width: int
    weights: tuple[float, float]

    def to_dict(self) -> dict[str, Any]:
        """For records."""
        return {
            "features": self.width,
            "probe": self.candidate.to_dict(),
            "weights": [float(f"{weight:.6g}") for weight in self.weights],
        }


def weights_of(last: Scores, blocks: Scores, labels: Index) -> tuple[float, float]:
    """The weights whose sum makes the labels of held-out images most likely.

    The maximum of a posterior: log-loss of the images, and a normal distribution of the weights'
    logarithms about :data:`USUAL`, so that few images do not settle it and none is negative.

    Args:
        last: Logits by the classifier on the last block, of images that it has not seen, (N,
            classes).
        blocks: The same by the one on all blocks.
        labels: Class indices, shape (N,).
    """
    spreads = [_spread(scores) for scores in (last, blocks)]
    units = np.stack([last / spreads[0], blocks / spreads[1]])
    centre, rows = np.log(USUAL), np.arange(len(labels))

    def loss(logs: NDArray[np.float64]) -> tuple[float, NDArray[np.float64]]:
        weights = np.exp(logs)
        logits = np.tensordot(weights, units, 1)
        slope = softmax(logits, axis=1)
        slope[rows, labels] -= 1
        gradient = weights * np.tensordot(units, slope, 2) + (logs - centre)
        lost = -log_softmax(logits, axis=1)[rows, labels].sum()
        return float(lost + ((logs - centre) ** 2).sum() / 2), gradient

    found = minimize(loss, centre, jac=True, method="L-BFGS-B", bounds=[(-8.0, 4.0)] * 2)
    weights = np.exp(found.x) / spreads
    return float(weights[0]), float(weights[1])


def summed(scores: Sequence[Scores], weights: tuple[float, float]) -> Scores:
    """The sum of the last block's and all blocks' logits, (N, classes)."""
    return weights[0] * scores[0] + weights[1] * scores[1]


def layer_of_both(last: nn.Linear, blocks: nn.Linear, weights: tuple[float, float]) -> nn.Linear:
    """One layer on the features of all blocks that gives the weighted sum of both layers' logits.

    Args:
        last: On the features of the last block.
        blocks: On those of all blocks, the last ones of which are the last block's.
        weights: Of the two.
    """
    both = nn.Linear(blocks.in_features, blocks.out_features)
    with torch.no_grad():
        both.weight.copy_(weights[1] * blocks.weight)
        both.weight[:, -last.in_features :] += weights[0] * last.weight
        both.bias.copy_(weights[0] * last.bias + weights[1] * blocks.bias)
    return both


def _spread(scores: Scores) -> float:
    """Deviation of an image's logits about their mean."""
    return max(float((scores - scores.mean(axis=1, keepdims=True)).std()), LEAST_SPREAD)

"""Two classifiers as one: the weights against a search of all, the layer against both."""

import numpy as np
import pytest
import torch
from torch import nn

from graftline.steps.fit_head.partner import USUAL, layer_of_both, summed, weights_of


def logits(
    labels: np.ndarray, *, louder: float, noise: float, seed: int, classes: int = 3
) -> np.ndarray:
    """Of a classifier that knows the labels through so much noise."""
    draw = np.random.default_rng(seed).normal(0, noise, (len(labels), classes))
    scores: np.ndarray = louder * (np.eye(classes)[labels] + draw)
    return scores


@pytest.mark.parametrize("images", [12, 300])
@pytest.mark.parametrize("loud", [0.01, 1.0, 50.0])
def test_the_weights_are_the_most_likely_ones(images: int, loud: float) -> None:
    labels = np.arange(images) % 3
    last = logits(labels, louder=loud, noise=1.5, seed=1)
    blocks = logits(labels, louder=1.0, noise=0.7, seed=2)
    units = [float((x - x.mean(axis=1, keepdims=True)).std()) for x in (last, blocks)]
    grid = torch.linspace(-4, 3, 141, dtype=torch.float64)
    best, found = np.inf, (0.0, 0.0)
    for one in grid:
        both = torch.exp(one) * torch.from_numpy(last / units[0])
        both = both[None] + torch.exp(grid)[:, None, None] * torch.from_numpy(blocks / units[1])
        lost = nn.functional.cross_entropy(
            both.flatten(0, 1), torch.from_numpy(labels).repeat(len(grid)), reduction="none"
        )
        prior = (one - np.log(USUAL[0])) ** 2 + (grid - np.log(USUAL[1])) ** 2
        total = lost.reshape(len(grid), images).sum(dim=1) + prior / 2
        if float(total.min()) < best:
            best = float(total.min())
            found = (float(one.exp()), float(grid[total.argmin()].exp()))
    weights = weights_of(last, blocks, labels)
    expected = (found[0] / units[0], found[1] / units[1])
    assert weights == pytest.approx(expected, rel=0.06)  # the grid is as coarse as that


def test_a_classifier_that_knows_nothing_hardly_counts() -> None:
    labels = np.arange(300) % 3
    known = logits(labels, louder=1.0, noise=0.5, seed=1)
    noise = np.random.default_rng(2).normal(0, 1.0, (300, 3))
    small, large = weights_of(noise, known, labels)
    assert small < 0.2 * large
    small, large = weights_of(known, np.zeros((300, 3)), labels)
    assert np.isfinite([small, large]).all()
    right = summed((known, np.zeros((300, 3))), (small, large)).argmax(axis=1) == labels
    assert (right == (known.argmax(axis=1) == labels)).all()


def test_one_layer_gives_the_sum_of_both() -> None:
    torch.manual_seed(0)
    last, blocks, x = nn.Linear(4, 3), nn.Linear(10, 3), torch.randn(5, 10)
    both = layer_of_both(last, blocks, (0.3, 2.0))
    expected = 0.3 * last(x[:, 6:]) + 2.0 * blocks(x)
    assert torch.allclose(both(x), expected, atol=1e-5)

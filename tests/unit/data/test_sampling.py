"""Stratified samples: every beginning of the order holds each class in its share."""

import numpy as np
import pytest

from graftline.data.sampling import stratified_order, stratified_sample


@pytest.mark.parametrize("seed", range(3))
def test_every_beginning_is_stratified(seed: int) -> None:
    labels = np.random.default_rng(seed).permutation(np.repeat([0, 1, 2, 3], [600, 300, 90, 10]))
    order = stratified_order(labels, seed)
    assert np.array_equal(np.sort(order), np.arange(1000))
    for size in (7, 50, 333, 1000):
        counts = np.bincount(labels[order[:size]], minlength=4)
        assert np.abs(counts - np.array([600, 300, 90, 10]) * size / 1000).max() <= 1


def test_longer_samples_contain_shorter_ones_and_seeds_differ() -> None:
    labels = np.repeat([0, 1], 50)
    short, long = (set(stratified_sample(labels, size, 4)) for size in (20, 60))
    assert short < long
    assert set(stratified_sample(labels, 20, 5)) != short


def test_few_images_of_many_classes_are_not_always_the_first_classes() -> None:
    labels = np.arange(100)
    first = {int(label) for seed in range(30) for label in stratified_order(labels, seed)[:5]}
    assert len(first) > 60

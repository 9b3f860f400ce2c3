"""Samples of labelled rows in which every class keeps its share."""

import numpy as np
from numpy.typing import NDArray

Index = NDArray[np.int64]


def stratified_order(labels: Index, seed: int) -> Index:
    """Positions in an order of which every beginning holds each class in about its share.

    A class of n images stands at 1/2n, 3/2n, 5/2n... of the way, so a sample of k images has each
    class within one of its share, and a longer sample contains a shorter one.

    Args:
        labels: Class of each row, shape (N,).
        seed: Which images of a class come first.
    """
    shuffled = np.random.default_rng(seed).permutation(len(labels))
    by_class = shuffled[np.argsort(labels[shuffled], kind="stable")]
    _, starts, counts = np.unique(labels[by_class], return_index=True, return_counts=True)
    rank = np.arange(len(labels)) - np.repeat(starts, counts)
    way = (rank + 0.5) / np.repeat(counts, counts)
    # Equal shares in random order, not by class: a short beginning would lack the last classes.
    order = np.lexsort((np.argsort(shuffled)[by_class], way))
    return by_class[order].astype(np.int64)


def stratified_sample(labels: Index, size: int, seed: int) -> Index:
    """At most ``size`` positions, sorted: the beginning of :func:`stratified_order`."""
    return np.sort(stratified_order(labels, seed)[:size])

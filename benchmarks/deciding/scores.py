"""Scores of features that need no training: how well could a classifier on them do?"""

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]


def log_me(features: Floats, labels: NDArray[np.int64], steps: int = 30) -> float:
    """LogME (You et al. 2021): log evidence of Bayesian linear regression to one-hot labels.

    The mean over classes, for each image.
    """
    x = features.astype(np.float64)
    count, width = x.shape
    left, values, _ = np.linalg.svd(x, full_matrices=False)
    squares, total = values**2, 0.0
    classes = np.unique(labels)
    for label in classes:
        y = (labels == label).astype(np.float64)
        z = left.T @ y
        rest = float(y @ y - z @ z)
        alpha = beta = 1.0
        for _ in range(steps):
            gamma = float((squares * beta / (alpha + squares * beta)).sum())
            mean = values * z * beta / (alpha + squares * beta)
            length = float(mean @ mean)
            residual = float(((z - values * mean) ** 2).sum()) + max(rest, 0.0)
            alpha, beta = gamma / (length + 1e-9), max(1e-9, count - gamma) / (residual + 1e-9)
        total += 0.5 * (
            width * np.log(alpha)
            + count * np.log(beta)
            - count * np.log(2 * np.pi)
            - beta * residual
            - alpha * length
            - float(np.log(alpha + beta * squares).sum())
            - (width - len(squares)) * np.log(alpha)
        )
    return float(total / len(classes) / count)


def h_score(features: Floats, labels: NDArray[np.int64]) -> float:
    """H-score (Bao et al. 2019): trace of inverse covariance by covariance of the class means."""
    x = features.astype(np.float64) - features.mean(axis=0)
    between = np.zeros_like(x)
    for label in np.unique(labels):
        between[labels == label] = x[labels == label].mean(axis=0)
    covariance = x.T @ x / len(x)
    covariance[np.diag_indices(len(covariance))] += 0.1 * np.trace(covariance) / len(covariance)
    return float(np.trace(np.linalg.solve(covariance, between.T @ between / len(x))))

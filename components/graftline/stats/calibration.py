"""Calibration: the temperature, and how far confidence is from being right.

Guo et al. (2017), On Calibration of Modern Neural Networks: one temperature, fitted on validation
logits, divides the logits. Ints do not change, only how sure the model says it is.
"""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import optimize, special
from scipy.optimize import minimize_scalar
from scipy.special import log_softmax

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

BINS = 15
LOWEST, HIGHEST = 0.02, 50.0
# Between an image's best logit and its mean one. Those of networks stay below. Discriminant
# analysis adds up 1,280 features as if each were a proof of its own: 10,000 and more on 80 images.
USUAL_GAP = 20.0


@dataclass(frozen=True)
class Reliability:
    """Bins of equal width over the confidence that hold images.

    Attributes:
        confidence: Mean confidence in each bin.
        accuracy: Share that was right in each bin.
        count: Images in each bin.
    """

    confidence: list[float]
    accuracy: list[float]
    count: list[int]

    @property
    def ece(self) -> float:
        """Expected calibration error: mean distance of confidence and accuracy, by images."""
        total = sum(self.count)
        gaps = zip(self.confidence, self.accuracy, self.count, strict=True)
        return sum(n * abs(c - a) for c, a, n in gaps) / total if total else 0.0


def fit_temperature(logits: NDArray[np.float32], labels: Ints) -> float:
    """The temperature that makes the labels most likely.

    A weak prior (log-normal, as heavy as one image) keeps it finite where every validation image
    is classified correctly: then any lower temperature would fit better still. It lies around 1, or
    where logits are far apart, around the temperature that brings them to what is usual.

    Args:
        logits: Shape (n, classes), from a model that has not seen these images.
        labels: Class index of each, shape (n,).

    Returns:
        The temperature; 1 without images.
    """
    if len(labels) == 0:
        return 1.0
    values = np.asarray(logits, dtype=np.float64)
    values = values - values.max(axis=1, keepdims=True)
    chosen = values[np.arange(len(labels)), labels]

    middle = math.log(max(1.0, _gap(values) / USUAL_GAP))

    def loss(log_temperature: float) -> float:
        scale = math.exp(-log_temperature)
        likelihood = scale * chosen - special.logsumexp(scale * values, axis=1)
        return float(-likelihood.sum() + 0.5 * (log_temperature - middle) ** 2)

    bounds = (math.log(LOWEST), middle + math.log(HIGHEST))
    result = optimize.minimize_scalar(
        loss, bounds=bounds, method="bounded", options={"xatol": 1e-6}
    )
    return math.exp(float(result.x))


def softmax(logits: NDArray[np.float32], temperature: float = 1.0) -> Floats:
    """Probabilities, shape (n, classes), in double precision."""
    scaled = np.asarray(logits, dtype=np.float64) / temperature
    probabilities: Floats = special.softmax(scaled, axis=1)
    return probabilities


def bin_of(confidence: Floats, bins: int = BINS) -> Ints:
    """The bin of each confidence; bins are open at their lower edge, as Guo et al. have them."""
    return np.clip(np.ceil(np.asarray(confidence) * bins).astype(np.int64) - 1, 0, bins - 1)


def reliability(probabilities: Floats, labels: Ints, bins: int = BINS) -> Reliability:
    """Confidence of the predicted class against how often it was right, by bins."""
    if len(labels) == 0:
        return Reliability([], [], [])
    confidence = probabilities.max(axis=1)
    right = probabilities.argmax(axis=1) == labels
    where = bin_of(confidence, bins)
    count = np.bincount(where, minlength=bins)
    held = count > 0
    mean_confidence = np.bincount(where, confidence, bins)[held] / count[held]
    accuracy = np.bincount(where, right, bins)[held] / count[held]
    return Reliability(mean_confidence.tolist(), accuracy.tolist(), count[held].tolist())


def expected_noise(
    probabilities: Floats, *, confidence: float = 0.95, draws: int = 500, seed: int = 0
) -> float:
    """ECE that a perfectly calibrated model stays below, with these confidences and so few images.

    ECE of a finite test set is above 0 even for a perfect model. Ints are drawn from the
    model's own confidence (consistency resampling, Broecker and Smith 2007).
    """
    sure = np.asarray(probabilities).max(axis=1)
    n = len(sure)
    if n == 0:
        return 0.0
    order = np.argsort(bin_of(sure), kind="stable")
    where, sure = bin_of(sure)[order], sure[order]
    starts = np.flatnonzero(np.r_[True, where[1:] != where[:-1]])
    rng = np.random.default_rng(seed)
    step = max(1, 4_000_000 // n)
    errors = []
    for start in range(0, draws, step):
        right = rng.random((min(step, draws - start), n)) < sure
        gaps = np.add.reduceat(right - sure, starts, axis=1)
        errors.append(np.abs(gaps).sum(axis=1) / n)
    return float(np.quantile(np.concatenate(errors), confidence))


def sharpness(logits: NDArray[np.float32], truth: Ints) -> float:
    """The factor on the logits that makes their log-loss least; the inverse of a temperature.

    Targets are Platt's (1999): n right answers show a chance of (n + 1) / (n + 2), not of 1. Where
    every image is right, any larger factor would fit better still (20 times as sharp on 17 images).

    Args:
        logits: Shape (n, classes), from a model that has not seen these images.
        truth: Class index of each, shape (n,).
    """
    wide = logits.astype(np.float64)
    count, classes = wide.shape
    wrong = 1 / (count + 2)
    targets = np.full(wide.shape, wrong / max(1, classes - 1))
    targets[np.arange(count), truth] = 1 - wrong

    def loss(log_scale: float) -> float:
        return float(-(targets * log_softmax(wide * np.exp(log_scale), axis=1)).sum() / count)

    middle = -math.log(max(1.0, _gap(wide) / USUAL_GAP))
    found = minimize_scalar(loss, bounds=(middle - 3.0, 3.0), method="bounded")
    return float(np.exp(found.x))


def _gap(logits: Floats) -> float:
    """Between an image's best logit and its mean one, on average."""
    return float((logits.max(axis=1) - logits.mean(axis=1)).mean())

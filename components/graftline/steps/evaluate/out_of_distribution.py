"""When not to answer: by low confidence, and by images unlike any class.

Softmax confidence says little about images of no known class, so those are told by where their
features lie: the cosine distance to the nearest class mean of the training images.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from sklearn.metrics import roc_auc_score

Floats = NDArray[np.float64]
Floats32 = NDArray[np.float32]
Ints = NDArray[np.int64]

REFERENCE_FILE = "references.safetensors"
METHOD = "cosine distance of the centred features to the nearest class mean"
_CHUNK = 8192


@dataclass(frozen=True)
class Coverage:
    """Answering only the surest images.

    Attributes:
        curve: Points (share answered, accuracy on those), from few to all.
        at: For target accuracies: the confidence that reaches it and the share answered.
    """

    curve: list[tuple[float, float]]
    at: list[tuple[float, float, float]]


def coverage(probabilities: Floats, labels: Ints, points: int = 120) -> Coverage:
    """Accuracy against coverage; images of equal confidence are answered together or not."""
    sure = probabilities.max(axis=1)
    right = probabilities.argmax(axis=1) == labels
    order = np.argsort(-sure, kind="stable")
    sure, hits = sure[order], np.cumsum(right[order])
    last = np.flatnonzero(np.r_[sure[1:] != sure[:-1], True])
    share = (last + 1) / len(sure)
    accuracy = hits[last] / (last + 1)
    keep = np.unique(np.linspace(0, len(last) - 1, min(points, len(last))).astype(int))
    curve = [(round(float(share[i]), 5), round(float(accuracy[i]), 5)) for i in keep]
    at = []
    for target in (0.9, 0.95, 0.98, 0.99, 0.995):
        reached = np.flatnonzero(accuracy >= target)
        if len(reached) and accuracy[-1] < target:
            best = reached[-1]
            at.append((target, float(sure[last[best]]), float(share[best])))
    return Coverage(curve, at)


@dataclass(frozen=True)
class References:
    """Class means of the training features.

    Attributes:
        mean: Mean over the classes, shape (feature_dim,).
        means: Centred and scaled to length 1, shape (classes, feature_dim).
    """

    mean: Floats32
    means: Floats32

    def distances(self, embedding: Floats32) -> Floats32:
        """Cosine distance to each class, shape (n, classes), between 0 and 2."""
        pieces = [
            1 - _unit(embedding[start : start + _CHUNK] - self.mean) @ self.means.T
            for start in range(0, len(embedding), _CHUNK)
        ]
        empty = np.zeros((0, len(self.means)), dtype=np.float32)
        return np.concatenate([empty, *pieces])

    def save(self, folder: Path) -> None:
        """Keep them beside the classifier, for whoever serves it."""
        from safetensors.numpy import save_file

        save_file({"mean": self.mean, "means": self.means}, str(folder / REFERENCE_FILE))


@dataclass(frozen=True)
class NoneOfThese:
    """The threshold beyond which an image belongs to no class.

    Attributes:
        distance: The threshold; an image farther than it is of no known class.
        quantile: Share of the validation images that it lets pass.
        refused: Share of the test images that it refuses.
        unseen_auc: How well the distance tells a class it never saw from the others (area under
            the ROC curve): each class in turn is taken out of the references. NaN for one class.
        unseen_refused: Share of such images that the threshold refuses.
    """

    distance: float
    quantile: float
    refused: float
    unseen_auc: float
    unseen_refused: float

    def to_dict(self) -> dict[str, float | str]:
        """For the classifier's metadata, and from there for the ONNX file."""
        return {"method": METHOD, "distance": self.distance, "quantile": self.quantile}


def references(embedding: Floats32, labels: Ints, classes: int) -> References:
    """Class means; a class without images gets the zero vector, at distance 1 from everything.

    Args:
        embedding: Training features, shape (n, feature_dim); may be memory-mapped.
        labels: Their classes, shape (n,).
        classes: Number of classes.
    """
    sums = np.zeros((classes, embedding.shape[1]))
    for start in range(0, len(labels), _CHUNK):
        piece = np.asarray(embedding[start : start + _CHUNK], dtype=np.float64)
        np.add.at(sums, labels[start : start + _CHUNK], piece)
    counts = np.bincount(labels, minlength=classes)
    held = counts > 0
    means = sums / np.maximum(counts, 1)[:, None]
    mean = means[held].mean(axis=0) if held.any() else np.zeros(embedding.shape[1])
    centred = np.where(held[:, None], means - mean, 0.0)
    return References(mean.astype(np.float32), _unit(centred.astype(np.float32)))


def none_of_these(
    references: References, val: Floats32, test: Floats32, test_labels: Ints, quantile: float
) -> NoneOfThese | None:
    """The threshold from the validation images, and what it does to the test images."""
    if len(val) == 0 or len(test) == 0:
        return None
    nearest = references.distances(val).min(axis=1)
    threshold = float(np.quantile(nearest, quantile))
    distances = references.distances(test)
    known = distances.min(axis=1)
    areas, refused = [], []
    for label in np.unique(test_labels):
        if len(references.means) < 2:
            break
        own = test_labels == label
        if own.all():
            continue
        # Were this class unknown, the nearest of the others is what its images would be held to.
        others = np.delete(distances, label, axis=1).min(axis=1)
        areas.append(roc_auc_score(own, others))
        refused.append(float((others[own] > threshold).mean()))
    return NoneOfThese(
        distance=threshold,
        quantile=quantile,
        refused=float((known > threshold).mean()),
        unseen_auc=float(np.mean(areas)) if areas else float("nan"),
        unseen_refused=float(np.mean(refused)) if refused else float("nan"),
    )


def _unit(vectors: Floats32) -> Floats32:
    length = np.linalg.norm(vectors, axis=1, keepdims=True)
    unit: Floats32 = (vectors / np.maximum(length, 1e-12)).astype(np.float32)
    return unit

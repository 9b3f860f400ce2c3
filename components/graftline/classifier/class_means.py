"""Where the classes lie among the features: what tells an image of no known class.

``evaluate`` writes them beside the classifier; the exported graph computes the distance to them.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file

from graftline.errors import IntegrityError

CLASS_MEANS_FILE = "references.safetensors"
_CHUNK = 8192

Vectors = NDArray[np.float32]


@dataclass(frozen=True)
class ClassMeans:
    """Class means of the training features.

    Attributes:
        mean: Mean over the classes, shape (feature_dim,), float32.
        means: Of each class, centred and of length 1, shape (classes, feature_dim), float32.
    """

    mean: Vectors
    means: Vectors

    def distances(self, embedding: Vectors) -> Vectors:
        """Cosine distance to each class, shape (n, classes), between 0 and 2."""
        pieces = [
            1 - _unit(embedding[start : start + _CHUNK] - self.mean) @ self.means.T
            for start in range(0, len(embedding), _CHUNK)
        ]
        empty = np.zeros((0, len(self.means)), dtype=np.float32)
        return np.concatenate([empty, *pieces])

    def save(self, classifier_folder: Path) -> None:
        """Keep them beside the classifier, for whoever serves it."""
        tensors = {"mean": self.mean, "means": self.means}
        save_file(tensors, str(classifier_folder / CLASS_MEANS_FILE))


def class_means(embedding: Vectors, labels: NDArray[np.int64], classes: int) -> ClassMeans:
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
    return ClassMeans(mean.astype(np.float32), _unit(centred.astype(np.float32)))


def read_class_means(classifier_folder: Path) -> ClassMeans | None:
    """The class means beside a classifier; None where there are none.

    Raises:
        IntegrityError: They are damaged.
    """
    path = classifier_folder / CLASS_MEANS_FILE
    if not path.exists():
        return None
    try:
        tensors = load_file(str(path))
        return ClassMeans(tensors["mean"], tensors["means"])
    except (SafetensorError, KeyError) as error:
        raise IntegrityError(
            f"{path} does not hold the class means.",
            why=str(error)[:200],
            fix="Run the step evaluate again.",
        ) from error


def _unit(vectors: Vectors) -> Vectors:
    length = np.linalg.norm(vectors, axis=1, keepdims=True)
    unit: Vectors = (vectors / np.maximum(length, 1e-12)).astype(np.float32)
    return unit

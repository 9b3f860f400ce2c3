"""When not to answer: by low confidence, and by images unlike any class.

Softmax confidence says little about images of no known class, so those are recognised by where
their features lie: the cosine distance to the nearest class mean of the training images.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from sklearn.metrics import roc_auc_score

from graftline.classifier.class_means import ClassMeans, class_means
from graftline.steps.evaluate.answers import CalibratedAnswers
from graftline.steps.evaluate.robustness import sample

Floats = NDArray[np.float64]
Floats32 = NDArray[np.float32]
Ints = NDArray[np.int64]

METHOD = "cosine distance of the centred features to the nearest class mean"
REFERENCE_IMAGES = 1000  # training images for the class means of a fine-tuned network


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
class OutOfDistribution:
    """The threshold beyond which an image belongs to no class.

    Attributes:
        distance: The threshold; an image farther than it is of no known class.
        quantile: Share of the validation images that it lets pass.
        refused: Share of the test images that it refuses.
        unseen_auc: How well the distance tells a class it never saw from the others (area under
            the ROC curve): each class in turn is taken out of the means. NaN for one class.
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


def measure(
    test: CalibratedAnswers, quantile: float
) -> tuple[ClassMeans, OutOfDistribution] | None:
    """Class means of the training images, and the threshold for the distance to them.

    Args:
        test: Answers to the test images.
        quantile: Share of the validation images that must pass.

    Returns:
        None without validation images.
    """
    inference, rows = test.inference, test.snapshot.rows("train")
    labels = test.snapshot.labels()[rows]
    if inference.stored is None and len(rows) > REFERENCE_IMAGES:
        kept = sample(labels, REFERENCE_IMAGES, seed=0)
        rows, labels = rows[kept], labels[kept]
    embedding = inference.embedding(rows, "training images for the class means")
    means = class_means(embedding, labels, len(test.snapshot.classes))
    found = out_of_distribution(
        means, test.validation, test.answers.embedding, test.labels, quantile
    )
    return (means, found) if found else None


def out_of_distribution(
    means: ClassMeans, val: Floats32, test: Floats32, test_labels: Ints, quantile: float
) -> OutOfDistribution | None:
    """The threshold from the validation images, and what it does to the test images."""
    if len(val) == 0 or len(test) == 0:
        return None
    nearest = means.distances(val).min(axis=1)
    threshold = float(np.quantile(nearest, quantile))
    distances = means.distances(test)
    known = distances.min(axis=1)
    areas, refused = [], []
    for label in np.unique(test_labels):
        if len(means.means) < 2:
            break
        own = test_labels == label
        if own.all():
            continue
        # Were this class unknown, the nearest of the others is what its images would be held to.
        others = np.delete(distances, label, axis=1).min(axis=1)
        areas.append(roc_auc_score(own, others))
        refused.append(float((others[own] > threshold).mean()))
    return OutOfDistribution(
        distance=threshold,
        quantile=quantile,
        refused=float((known > threshold).mean()),
        unseen_auc=float(np.mean(areas)) if areas else float("nan"),
        unseen_refused=float(np.mean(refused)) if refused else float("nan"),
    )

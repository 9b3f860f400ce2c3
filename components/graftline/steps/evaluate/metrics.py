"""The metrics, by scikit-learn, and their bootstrap intervals.

Averages over classes are taken over the classes that the test split holds.
"""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import sparse
from sklearn import metrics as sk

from graftline.stats.answer_model import Answers
from graftline.stats.calibration import BINS, bin_of, reliability
from graftline.stats.intervals import (
    Bootstrap,
    difference_interval,
    expanded_interval,
    share_interval,
    worth,
)
from graftline.stats.macro_intervals import macro_intervals

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

CURVE_POINTS = 200
MOST_DECISIONS = 5_000_000  # that a curve is drawn of: more show no difference and take gigabytes
RESAMPLED = (
    "accuracy",
    "balanced_accuracy",
    "macro_f1",
    "top_k_accuracy",
    "log_loss",
    "brier",
    "ece",
)


@dataclass(frozen=True)
class ClassFigures:
    """One class on the test split.

    Attributes:
        name: The class.
        support: Test images of it.
        predicted: Test images that were given this label.
        precision: NaN where nothing was given this label.
        recall: NaN without test images.
        recall_interval: Exact interval of the recall.
        f1: NaN where neither is known.
        roc_auc: One against the rest; NaN where it is undefined.
        average_precision: Area under the precision-recall curve; NaN where it is undefined.
    """

    name: str
    support: int
    predicted: int
    precision: float
    recall: float
    recall_interval: tuple[float, float]
    f1: float
    roc_auc: float
    average_precision: float


def overall(
    probabilities: Floats,
    labels: Ints,
    top_k: int = 5,
    areas: tuple[Floats, Floats] | None = None,
) -> dict[str, float]:
    """Figures of the whole test split.

    Args:
        probabilities: Calibrated, shape (n, classes).
        labels: Class index of each image, shape (n,).
        top_k: For the top-k accuracy; no more than there are classes.
        areas: What :func:`areas_by_class` gave, to put their means in; left out for None.
    """
    n, classes = probabilities.shape
    predicted = probabilities.argmax(axis=1)
    every = np.arange(classes)
    present = np.unique(labels)
    precision, recall, f1, _ = sk.precision_recall_fscore_support(
        labels, predicted, labels=present, average="macro", zero_division=0.0
    )
    k = min(top_k, classes)
    figures = {
        "images": float(n),
        "accuracy": float(sk.accuracy_score(labels, predicted)),
        # Balanced accuracy is the macro recall; scikit-learn's function warns of strange labels.
        "balanced_accuracy": float(recall),
        "macro_precision": float(precision),
        "macro_recall": float(recall),
        "macro_f1": float(f1),
        "top_k": float(k),
        "top_k_accuracy": float(_in_top_k(probabilities, labels, k).mean()),
        "log_loss": float(sk.log_loss(labels, _normal(probabilities), labels=every)),
        "brier": float(_brier(probabilities, labels).mean()),
        "ece": reliability(probabilities, labels).ece,
    }
    for name, by_class_ in zip(
        ("macro_roc_auc", "macro_average_precision"), areas or (), strict=False
    ):
        known = by_class_[~np.isnan(by_class_)]
        figures[name] = float(known.mean()) if len(known) else float("nan")
    return figures


class Replicates(dict[str, Floats]):
    """Bootstrap replicates by metric, with the answers that they were made of.

    Attributes:
        labels: Class index of each image, shape (n,).
        given: Class index that the model gives, shape (n,).
        in_top_k: Whether the label is among the k likeliest, shape (n,).
        groups: Group number of each image, or None where images stand alone.
        units: Groups or images that were resampled.
    """

    labels: Ints
    given: Ints
    in_top_k: NDArray[np.bool_]
    groups: Ints | None
    units: int


def areas_by_class(probabilities: Floats, labels: Ints) -> tuple[Floats, Floats]:
    """Area under the ROC and the precision-recall curve, each class against the rest."""
    classes = probabilities.shape[1]
    roc, average = np.full(classes, np.nan), np.full(classes, np.nan)
    for index in np.unique(labels):
        truth = labels == index
        if truth.all():
            continue
        roc[index] = sk.roc_auc_score(truth, probabilities[:, index])
        average[index] = sk.average_precision_score(truth, probabilities[:, index])
    return roc, average


def by_class(
    probabilities: Floats,
    labels: Ints,
    names: tuple[str, ...],
    confidence: float,
    areas: tuple[Floats, Floats],
) -> list[ClassFigures]:
    """Figures of each class, in the order of the classes; ``areas`` as in :func:`overall`."""
    matrix = confusion(probabilities.argmax(axis=1), labels, len(names))
    roc, average = areas
    rows = []
    for index, name in enumerate(names):
        hits = int(matrix[index, index])
        support, predicted = int(matrix[index].sum()), int(matrix[:, index].sum())
        rows.append(
            ClassFigures(
                name=name,
                support=support,
                predicted=predicted,
                precision=hits / predicted if predicted else float("nan"),
                recall=hits / support if support else float("nan"),
                recall_interval=share_interval(hits, support, confidence),
                f1=2 * hits / (support + predicted) if support + predicted else float("nan"),
                roc_auc=float(roc[index]),
                average_precision=float(average[index]),
            )
        )
    return rows


def confusion(predicted: Ints, labels: Ints, classes: int) -> Ints:
    """Counts, shape (classes, classes): rows are true classes, columns are given labels."""
    matrix: Ints = sk.confusion_matrix(labels, predicted, labels=np.arange(classes))
    return matrix


def resampled(
    probabilities: Floats,
    labels: Ints,
    bootstrap: Bootstrap,
    *,
    classes: int | None = None,
    top_k: int = 5,
) -> Replicates:
    """Bootstrap replicates of the metrics named in :data:`RESAMPLED`, each (replicates,).

    All of them follow from sums over images, so that one pass over the resamples does.
    """
    count = classes or probabilities.shape[1]
    predicted = probabilities.argmax(axis=1)
    in_top_k = _in_top_k(probabilities, labels, min(top_k, probabilities.shape[1]))
    sums = bootstrap.sums(_summands(probabilities, labels, count, in_top_k))
    support, given, hits, gaps, losses = np.split(
        sums, np.cumsum([count, count, count, BINS]), axis=1
    )
    total = support.sum(axis=1)
    held = np.bincount(labels, minlength=count) > 0
    with np.errstate(divide="ignore", invalid="ignore"):
        recall = hits / support
        f1 = 2 * hits / (support + given)
    replicates = Replicates(
        {
            "accuracy": hits.sum(axis=1) / total,
            "balanced_accuracy": np.nanmean(recall[:, held], axis=1),
            "macro_f1": np.nanmean(f1[:, held], axis=1),
            "top_k_accuracy": losses[:, 2] / total,
            "log_loss": losses[:, 0] / total,
            "brier": losses[:, 1] / total,
            "ece": np.abs(gaps).sum(axis=1) / total,
        }
    )
    replicates.labels, replicates.given, replicates.in_top_k = labels, predicted, in_top_k
    replicates.groups, replicates.units = bootstrap.groups, bootstrap.units
    return replicates


def _summands(
    probabilities: Floats, labels: Ints, classes: int, in_top_k: NDArray[np.bool_]
) -> sparse.csr_array:
    """A row an image: what the metrics are sums of, as sparse columns.

    Its class, the label given and its class where that is right (``classes`` columns each), the
    gap of confidence and hit in the bin of the confidence, and three losses.
    """
    n = len(labels)
    rows = np.arange(n)
    predicted, sure = probabilities.argmax(axis=1), probabilities.max(axis=1)
    right = predicted == labels

    def one_hot(column: Ints, width: int, value: Any = None) -> Any:
        data = np.ones(n) if value is None else np.asarray(value, dtype=np.float64)
        return sparse.csr_array((data, (rows, column)), (n, width))

    losses = [_log_loss(probabilities, labels), _brier(probabilities, labels), in_top_k]
    return sparse.hstack(
        [
            one_hot(labels, classes),
            one_hot(predicted, classes),
            one_hot(labels, classes, right),
            one_hot(bin_of(sure), BINS, sure - right),
            sparse.csr_array(np.column_stack(losses)),
        ],
        format="csr",
    )


def intervals(
    replicates: Replicates, figures: dict[str, float], confidence: float
) -> dict[str, list[float]]:
    """Intervals of the metrics in :data:`RESAMPLED`.

    Exact ones for the shares and the macro means, which a bootstrap makes far too narrow for few
    images; of the losses and the calibration error, the bootstrap's.

    Args:
        replicates: As :func:`resampled` gives them.
        figures: As :func:`overall` gives them.
        confidence: Two-sided, such as 0.95.
    """
    result = {
        name: list(expanded_interval(replicates[name], replicates.units, confidence))
        for name in ("log_loss", "brier", "ece")
    }
    right = replicates.given == replicates.labels
    for name, hits in (("accuracy", right), ("top_k_accuracy", replicates.in_top_k)):
        n = worth(hits, replicates.groups, confidence)
        result[name] = list(share_interval(figures[name] * n, n, confidence))
    answers = Answers(replicates.labels, replicates.given, groups=replicates.groups)
    result |= {name: list(found) for name, found in macro_intervals(answers, confidence).items()}
    return {name: result[name] for name in RESAMPLED}


def difference_intervals(
    new: Replicates, old: Replicates, confidence: float
) -> dict[str, list[float]]:
    """Intervals of the differences of two models on the same images, from equal resamples.

    Args:
        new: As :func:`resampled` gives them.
        old: Of the model that is subtracted.
        confidence: Two-sided, such as 0.95.
    """
    result = {
        name: list(expanded_interval(new[name] - old[name], new.units, confidence))
        for name in ("log_loss", "brier", "ece")
    }
    pairs = {
        "accuracy": (new.given == new.labels, old.given == old.labels),
        "top_k_accuracy": (new.in_top_k, old.in_top_k),
    }
    for name, (ours, theirs) in pairs.items():
        n = worth(ours.astype(np.int64) - theirs, new.groups, confidence)
        scale = n / len(ours)
        gained, lost = float((ours & ~theirs).sum()), float((theirs & ~ours).sum())
        result[name] = list(difference_interval(gained * scale, lost * scale, n, confidence))
    answers = Answers(new.labels, new.given, old.given, new.groups)
    result |= {name: list(found) for name, found in macro_intervals(answers, confidence).items()}
    return {name: result[name] for name in RESAMPLED}


def curves(probabilities: Floats, labels: Ints) -> dict[str, list[tuple[float, float]]]:
    """ROC and precision-recall curves of :func:`_decisions`, thinned out."""
    truth, score = _decisions(probabilities, labels)
    if truth.all() or not truth.any():
        return {"roc": [], "precision_recall": []}
    false_rate, true_rate, _ = sk.roc_curve(truth, score)
    precision, recall, _ = sk.precision_recall_curve(truth, score)
    return {
        "roc": thinned(false_rate, true_rate),
        "precision_recall": thinned(recall[::-1], precision[::-1]),
    }


def roc_with_thresholds(probabilities: Floats, labels: Ints) -> list[tuple[float, float, float]]:
    """False positive rate, true positive rate and threshold of the same curve."""
    truth, score = _decisions(probabilities, labels)
    if truth.all() or not truth.any():
        return []
    false_rate, true_rate, thresholds = sk.roc_curve(truth, score)
    keep = _kept(false_rate, true_rate, CURVE_POINTS)
    columns = (false_rate[keep], true_rate[keep], np.minimum(thresholds[keep], 1.0))
    return [(float(a), float(b), float(c)) for a, b, c in zip(*columns, strict=True)]


def _decisions(probabilities: Floats, labels: Ints) -> tuple[NDArray[np.bool_], Floats]:
    """What is true, and how sure the model is, of every class of every image together.

    Of two classes, one is the other's complement: it is the second one for each image. Of many
    images and classes every k-th image will do: rows are in the order of a hash, by chance.
    """
    every = math.ceil(probabilities.size / MOST_DECISIONS)
    probabilities, labels = probabilities[::every], labels[::every]
    if probabilities.shape[1] == 2:
        return labels == 1, probabilities[:, 1]
    truth = np.zeros(probabilities.shape, dtype=bool)
    truth[np.arange(len(labels)), labels] = True
    return truth.ravel(), probabilities.ravel()


def thinned(x: Floats, y: Floats, most: int = CURVE_POINTS) -> list[tuple[float, float]]:
    """A curve by at most ``most`` of its points, even along its length, both ends kept."""
    keep = _kept(x, y, most)
    pairs = zip(x[keep], y[keep], strict=True)
    return [(round(float(a), 5), round(float(b), 5)) for a, b in pairs]


def _kept(x: Floats, y: Floats, most: int) -> Ints:
    if len(x) <= most:
        return np.arange(len(x))
    length = np.r_[0.0, np.cumsum(np.hypot(np.diff(x), np.diff(y)))]
    wanted = np.searchsorted(length, np.linspace(0, length[-1], most - 2))
    return np.unique(np.r_[0, np.clip(wanted, 0, len(x) - 1), len(x) - 1])


def _in_top_k(probabilities: Floats, labels: Ints, k: int) -> NDArray[np.bool_]:
    """Whether the label is among the k likeliest, shape (n,).

    Own, since scikit-learn's wants a column vector for two classes, and gives only the mean.
    """
    own = probabilities[np.arange(len(labels)), labels][:, None]
    # As argmax does, a tie goes to the earlier class.
    earlier = np.arange(probabilities.shape[1]) < labels[:, None]
    rank = ((probabilities > own) | ((probabilities == own) & earlier)).sum(axis=1)
    among: NDArray[np.bool_] = rank < k
    return among


def _log_loss(probabilities: Floats, labels: Ints) -> Floats:
    own = _normal(probabilities)[np.arange(len(labels)), labels]
    losses: Floats = -np.log(np.clip(own, np.finfo(np.float64).eps, 1.0))
    return losses


def _brier(probabilities: Floats, labels: Ints) -> Floats:
    own = probabilities[np.arange(len(labels)), labels]
    squared: Floats = (probabilities**2).sum(axis=1) - 2 * own + 1
    return squared


def _normal(probabilities: Floats) -> Floats:
    """Rows that add up to 1 in double precision, as scikit-learn wants them."""
    exact = np.asarray(probabilities, dtype=np.float64)
    normalised: Floats = exact / exact.sum(axis=1, keepdims=True)
    return normalised

"""Each metric against a second implementation, written out by hand or taken from scipy."""

import math

import numpy as np
import pytest
from scipy import stats

from graftline.stats.intervals import Bootstrap
from graftline.steps.evaluate import metrics


def answers(n: int = 300, classes: int = 5, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Probabilities of a fair model, and labels in which the last class is rare."""
    rng = np.random.default_rng(seed)
    labels = rng.choice(classes, n, p=[*[0.96 / (classes - 1)] * (classes - 1), 0.04])
    logits = rng.normal(size=(n, classes))
    logits[np.arange(n), labels] += 1.2
    exponents = np.exp(logits)
    return exponents / exponents.sum(axis=1, keepdims=True), labels


def by_hand(probabilities: np.ndarray, labels: np.ndarray, k: int) -> dict[str, float]:
    """The definitions, image by image and class by class."""
    n, classes = probabilities.shape
    given = [max(range(classes), key=lambda c: (row[c], -c)) for row in probabilities]
    recalls, precisions, f1s = [], [], []
    for c in sorted(set(labels.tolist())):
        hits = sum(g == c and y == c for g, y in zip(given, labels, strict=True))
        support, predicted = sum(y == c for y in labels), sum(g == c for g in given)
        recall, precision = hits / support, hits / predicted if predicted else 0.0
        recalls.append(recall)
        precisions.append(precision)
        f1s.append(2 * precision * recall / (precision + recall) if hits else 0.0)
    top = sum(
        y in sorted(range(classes), key=lambda c: (-row[c], c))[:k]
        for row, y in zip(probabilities, labels, strict=True)
    )
    squared = sum(
        sum((row[c] - (c == y)) ** 2 for c in range(classes))
        for row, y in zip(probabilities, labels, strict=True)
    )
    return {
        "accuracy": sum(g == y for g, y in zip(given, labels, strict=True)) / n,
        "balanced_accuracy": sum(recalls) / len(recalls),
        "macro_precision": sum(precisions) / len(precisions),
        "macro_recall": sum(recalls) / len(recalls),
        "macro_f1": sum(f1s) / len(f1s),
        "top_k_accuracy": top / n,
        "log_loss": -sum(math.log(row[y]) for row, y in zip(probabilities, labels, strict=True))
        / n,
        "brier": squared / n,
    }


@pytest.mark.parametrize("classes", [2, 5])
def test_overall_figures_are_those_of_their_definitions(classes: int) -> None:
    probabilities, labels = answers(classes=classes)
    figures = metrics.overall(probabilities, labels, top_k=2)
    for name, value in by_hand(probabilities, labels, 2).items():
        assert figures[name] == pytest.approx(value, abs=1e-12), name


def test_a_class_without_test_images_does_not_count_in_the_means() -> None:
    probabilities, labels = answers()
    seen = labels != 4
    figures = metrics.overall(probabilities[seen], labels[seen], top_k=3)
    for name, value in by_hand(probabilities[seen], labels[seen], 3).items():
        assert figures[name] == pytest.approx(value, abs=1e-12), name
    rows = metrics.by_class(
        probabilities[seen],
        labels[seen],
        tuple("abcde"),
        0.95,
        metrics.areas_by_class(probabilities[seen], labels[seen]),
    )
    assert rows[4].support == 0 and math.isnan(rows[4].recall) and math.isnan(rows[4].roc_auc)


def test_top_k_ties_go_to_the_earlier_class_as_argmax_has_it() -> None:
    probabilities = np.full((3, 4), 0.25)
    labels = np.array([0, 1, 3])
    assert metrics.overall(probabilities, labels, top_k=1)["top_k_accuracy"] == pytest.approx(1 / 3)
    assert metrics.overall(probabilities, labels, top_k=2)["top_k_accuracy"] == pytest.approx(2 / 3)
    assert metrics.overall(probabilities, labels, top_k=9)["top_k"] == 4


def test_areas_are_those_of_ranks_and_of_steps() -> None:
    probabilities, labels = answers()
    roc, average = metrics.areas_by_class(probabilities, labels)
    for c in range(5):
        score, truth = probabilities[:, c], labels == c
        wins = stats.mannwhitneyu(score[truth], score[~truth]).statistic
        assert roc[c] == pytest.approx(wins / (truth.sum() * (~truth).sum()))
        hits = truth[np.argsort(-score, kind="stable")]
        precision = np.cumsum(hits) / np.arange(1, len(hits) + 1)
        assert average[c] == pytest.approx(precision[hits].mean())


def test_classes_and_confusion_are_counted_rightly() -> None:
    probabilities, labels = answers()
    predicted = probabilities.argmax(axis=1)
    matrix = metrics.confusion(predicted, labels, 5)
    areas = metrics.areas_by_class(probabilities, labels)
    rows = metrics.by_class(probabilities, labels, tuple("abcde"), 0.95, areas)
    for c, row in enumerate(rows):
        for given in range(5):
            assert matrix[c, given] == ((labels == c) & (predicted == given)).sum()
        hits = ((labels == c) & (predicted == c)).sum()
        assert (row.name, row.support, row.predicted) == (
            "abcde"[c],
            (labels == c).sum(),
            (predicted == c).sum(),
        )
        assert row.precision == pytest.approx(hits / (predicted == c).sum())
        assert row.recall == pytest.approx(hits / (labels == c).sum())
        both = row.precision + row.recall
        assert row.f1 == pytest.approx(2 * row.precision * row.recall / both)
        exact = stats.binomtest(int(hits), int(row.support)).proportion_ci(0.95, "exact")
        assert row.recall_interval == pytest.approx((exact.low, exact.high))


@pytest.mark.parametrize("groups", [None, 4])
def test_replicates_are_the_metrics_of_the_resampled_images(groups: int | None) -> None:
    probabilities, labels = answers(n=200)
    of = None if groups is None else np.arange(200) // groups
    bootstrap = Bootstrap(labels, of, replicates=200, seed=3)
    fast = metrics.resampled(probabilities, labels, bootstrap, top_k=2)
    times = bootstrap.sums(np.eye(200)).astype(int)  # how often each image is in each resample
    assert set(fast) == set(metrics.RESAMPLED)
    for replicate in range(0, 200, 20):
        drawn = np.repeat(np.arange(200), times[replicate])
        slow = metrics.overall(probabilities[drawn], labels[drawn], top_k=2)
        for name in metrics.RESAMPLED:
            assert fast[name][replicate] == pytest.approx(slow[name], abs=1e-9), name


def test_curves_keep_their_ends_and_their_area() -> None:
    probabilities, labels = answers(n=3000)
    curves = metrics.curves(probabilities, labels)
    truth = np.eye(5)[labels].ravel() == 1
    score = probabilities.ravel()
    wins = stats.mannwhitneyu(score[truth], score[~truth]).statistic
    x, y = np.array(curves["roc"]).T
    assert len(x) <= metrics.CURVE_POINTS
    assert curves["roc"][0] == (0.0, 0.0) and curves["roc"][-1] == (1.0, 1.0)
    assert np.trapezoid(y, x) == pytest.approx(wins / (truth.sum() * (~truth).sum()), abs=2e-3)
    recall, precision = np.array(curves["precision_recall"]).T
    assert (np.diff(recall) >= 0).all()
    assert precision[-1] == pytest.approx(0.2)  # at the lowest threshold all is given


def test_curves_of_many_decisions_are_those_of_a_part_of_the_images(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    probabilities, labels = answers(n=6000)
    whole = np.array(metrics.curves(probabilities, labels)["roc"])
    monkeypatch.setattr(metrics, "MOST_DECISIONS", 10_000)
    part = np.array(metrics.curves(probabilities, labels)["roc"])
    third = np.array(metrics.curves(probabilities[::3], labels[::3])["roc"])
    np.testing.assert_array_equal(part, third)
    at = np.linspace(0, 1, 21)
    difference = np.interp(at, *part.T) - np.interp(at, *whole.T)
    assert 0 < np.abs(difference).max() < 0.03


def test_roc_with_thresholds_for_kfp() -> None:
    for classes in (2, 5):
        probabilities, labels = answers(classes=classes)
        points = metrics.roc_with_thresholds(probabilities, labels)
        truth = labels == 1 if classes == 2 else (np.eye(classes)[labels].ravel() == 1)
        score = probabilities[:, 1] if classes == 2 else probabilities.ravel()
        for false_rate, true_rate, threshold in points[1:-1:7]:
            assert (score[truth] >= threshold).mean() == pytest.approx(true_rate)
            assert (score[~truth] >= threshold).mean() == pytest.approx(false_rate)
        assert all(0 <= threshold <= 1 for _, _, threshold in points)
    assert metrics.roc_with_thresholds(np.ones((4, 1)), np.zeros(4, dtype=int)) == []


def test_the_interval_of_a_faultless_model_is_exact() -> None:
    probabilities = np.tile([0.9, 0.1], (20, 1))
    labels = np.zeros(20, dtype=int)
    bootstrap = Bootstrap(labels, replicates=200)
    figures = metrics.overall(probabilities, labels)
    found = metrics.intervals(metrics.resampled(probabilities, labels, bootstrap), figures, 0.95)
    for name in ("accuracy", "top_k_accuracy"):
        assert found[name] == pytest.approx([0.025 ** (1 / 20), 1.0])

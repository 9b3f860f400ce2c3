"""Intervals of macro means against exact ones, asymptotic ones, and truths that are known."""

import numpy as np
import pytest
from scipy import stats

from graftline.stats.answer_model import Answers
from graftline.stats.intervals import Bootstrap, difference_interval, share_interval, worth
from graftline.stats.macro_intervals import macro_intervals
from graftline.steps.evaluate import metrics

BOTH = ("balanced_accuracy", "macro_f1")


def wrongly(labels: np.ndarray, wrong: np.ndarray, classes: int, by: int = 1) -> np.ndarray:
    """The labels with the next class in place of some."""
    return np.where(wrong, (labels + by) % classes, labels)


@pytest.mark.parametrize(("classes", "each"), [(5, 1), (20, 1), (2, 3), (10, 3)])
@pytest.mark.parametrize("missed", [0, 1, 2])
def test_classes_of_equal_size_have_the_exact_interval_of_one_share(
    classes: int, each: int, missed: int
) -> None:
    labels = np.repeat(np.arange(classes), each)
    wrong = np.zeros(len(labels), dtype=bool)
    wrong[:: max(1, len(labels) // 2)][:missed] = True
    found = macro_intervals(Answers(labels, wrongly(labels, wrong, classes)), 0.95)
    n = len(labels)
    exact = stats.binomtest(n - int(wrong.sum()), n).proportion_ci(0.95, "exact")
    assert found["balanced_accuracy"] == pytest.approx((exact.low, exact.high), abs=0.03)


def test_a_small_class_is_not_hidden_behind_a_large_one() -> None:
    # 1,000 of 1,000 and 5 of 5 right: the second recall may be 0.478, so their mean 0.739.
    labels = np.repeat([0, 1], [1000, 5])
    found = macro_intervals(Answers(labels, labels), 0.95)
    low = (1 + 0.025 ** (1 / 5)) / 2
    assert found["balanced_accuracy"] == pytest.approx((low, 1.0), abs=0.03)
    assert found["macro_f1"][0] < 0.9


@pytest.mark.parametrize("classes", [3, 40])
def test_large_test_splits_have_the_asymptotic_width(classes: int) -> None:
    rng = np.random.default_rng(0)
    labels = np.repeat(np.arange(classes), 9000 // classes)
    first = wrongly(labels, rng.random(len(labels)) < 0.10, classes)
    second = wrongly(labels, rng.random(len(labels)) < 0.12, classes, 2)
    for other in (None, second):
        found = macro_intervals(Answers(labels, first, other), 0.95)
        right = (first == labels).astype(float)
        if other is not None:
            right -= other == labels
        width = 2 * 1.96 * right.std() / np.sqrt(len(labels))
        for name in BOTH:
            low, high = found[name]
            assert low < right.mean() < high
            assert high - low == pytest.approx(width, rel=0.15), name


def test_one_image_a_class_gives_no_interval_of_zero_width() -> None:
    labels = np.arange(8)
    probabilities = np.eye(8)[wrongly(labels, labels < 2, 8)] * 0.9 + 0.0125
    replicates = metrics.resampled(probabilities, labels, Bootstrap(labels, replicates=200))
    found = metrics.intervals(replicates, metrics.overall(probabilities, labels), 0.95)
    exact = stats.binomtest(6, 8).proportion_ci(0.95, "exact")
    assert found["accuracy"] == pytest.approx([exact.low, exact.high])
    for name in BOTH:
        low, high = found[name]
        assert high - low > 0.4, name


def covered(
    images: list[int], recall: list[float], other: list[float] | None, splits: int
) -> dict[str, float]:
    """How often the intervals hold the truth; wrong labels are any other class, evenly."""
    sizes, classes = np.array(images), len(images)
    labels = np.repeat(np.arange(classes), sizes)
    share = sizes / sizes.sum()

    def truth(recalls: np.ndarray) -> np.ndarray:
        false = ((1 - recalls) * share).sum() - (1 - recalls) * share
        f1 = 2 * share * recalls / (share + share * recalls + false / (classes - 1))
        return np.array([recalls.mean(), f1.mean()])

    def answers(recalls: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        step = rng.integers(1, classes, len(labels))
        return np.where(
            rng.random(len(labels)) < recalls[labels], labels, (labels + step) % classes
        )

    true = truth(np.array(recall)) - (truth(np.array(other)) if other else 0)
    hits = np.zeros(2)
    for split in range(splits):
        rng = np.random.default_rng(split)
        first = answers(np.array(recall), rng)
        second = answers(np.array(other), rng) if other else None
        found = macro_intervals(Answers(labels, first, second), 0.95)
        hits += [found[name][0] <= t <= found[name][1] for name, t in zip(BOTH, true, strict=True)]
    return dict(zip(BOTH, hits / splits, strict=True))


CASES = [
    ([1] * 5, [0.8] * 5, None),
    ([2] * 12, [0.6] * 12, None),
    ([1] * 40, [0.9] * 40, None),
    ([40, 4, 2, 1], [0.95, 0.8, 0.6, 0.5], None),
    ([10] * 5, [0.99] * 5, None),
    ([3] * 4, [0.9] * 4, [0.6] * 4),
    ([10] * 10, [0.99] * 10, [0.99] * 10),
]


@pytest.mark.parametrize(("images", "recall", "other"), CASES)
def test_intervals_hold_the_truth(
    images: list[int], recall: list[float], other: list[float] | None
) -> None:
    # 60 splits: 93% and less than this is seen in one of a thousand.
    for name, share in covered(images, recall, other, 60).items():
        assert share >= stats.binom.ppf(0.001, 60, 0.93) / 60, name


@pytest.mark.slow
@pytest.mark.parametrize(("images", "recall", "other"), CASES)
def test_intervals_hold_the_truth_on_many_splits(
    images: list[int], recall: list[float], other: list[float] | None
) -> None:
    for name, share in covered(images, recall, other, 1000).items():
        assert share >= 0.93, name


@pytest.mark.parametrize("n", [5, 12, 25])
def test_differences_of_accuracies_hold_the_truth_by_enumeration(n: int) -> None:
    gained, lost = (cells.ravel() for cells in np.meshgrid(np.arange(n + 1), np.arange(n + 1)))
    gained, lost = gained[gained + lost <= n], lost[gained + lost <= n]
    low, high = np.array(
        [difference_interval(g, m, n, 0.95) for g, m in zip(gained, lost, strict=True)]
    ).T
    cells = np.stack([gained, lost, n - gained - lost], axis=1)
    for up in (0.0, 0.02, 0.1, 0.3, 0.6, 0.9):
        for down in (0.0, 0.02, 0.1):
            if up + down >= 1:
                continue
            chance = stats.multinomial.pmf(cells, n, [up, down, 1 - up - down])
            inside = (low <= up - down + 1e-9) & (up - down <= high + 1e-9)
            assert chance[inside].sum() >= 0.93, (up, down)


def test_grouped_images_are_worth_as_many_as_there_are_groups_if_they_go_together() -> None:
    rng = np.random.default_rng(1)
    right = np.repeat(rng.random(200) < 0.8, 5)
    groups = np.arange(1000) // 5
    assert worth(right, groups) == pytest.approx(200, rel=0.05)
    assert worth(rng.random(1000) < 0.8, groups) == pytest.approx(1000, rel=0.2)
    assert worth(np.ones(1000), groups) == pytest.approx(200, rel=0.05)  # nothing tells: as one
    assert worth(right, None) == 1000
    labels = np.arange(200).repeat(5) % 4
    found = macro_intervals(Answers(labels, wrongly(labels, ~right, 4), groups=groups), 0.95)[
        "balanced_accuracy"
    ]
    low, high = share_interval(float(right.mean()) * 200, 200, 0.95)
    assert found[1] - found[0] == pytest.approx(high - low, rel=0.15)


def test_groups_of_several_classes_widen_the_interval() -> None:
    rng = np.random.default_rng(1)
    right = np.repeat(rng.random(200) < 0.8, 4)
    labels, groups = np.arange(800) % 4, np.arange(800) // 4
    widths = []
    for of in (None, groups):
        answers = Answers(labels, wrongly(labels, ~right, 4), groups=of)
        low, high = macro_intervals(answers, 0.95)["balanced_accuracy"]
        widths.append(high - low)
    assert widths[1] / widths[0] == pytest.approx(2.0, rel=0.2)


def test_equal_seeds_give_equal_intervals() -> None:
    labels = np.arange(30) % 5
    answers = Answers(labels, wrongly(labels, labels == 2, 5))
    assert macro_intervals(answers, 0.95, seed=3) == macro_intervals(answers, 0.95, seed=3)

"""The learning curve: points that follow the law, and forecasts against what more data gave."""

import numpy as np
import pytest
from numpy.typing import NDArray
from sklearn.datasets import load_digits

from graftline.steps.fit_head.decision.learning_curve import Point, extrapolate, learning_curve
from graftline.steps.fit_head.probes.divided import Divided
from graftline.steps.fit_head.probes.folds import make_folds
from graftline.steps.fit_head.probes.scaling import Scaling
from graftline.steps.fit_head.probes.search import Candidate, fit_candidate
from graftline.steps.fit_head.suspects import out_of_fold

DIGITS = tuple("0123456789")


def points(law: tuple[float, float, float], images: int = 20_000, seed: int = 0) -> list[Point]:
    """Errors of images that are drawn with the probability that the law says."""
    a, b, c = law
    random = np.random.default_rng(seed)
    hardness = random.random(images)  # of each image, the same at every size, as in real data
    return [
        Point(size / 16_000, size, 5, (hardness < a + b * size**-c).astype(float), 0.0, 0.0)
        for size in (1600.0, 4000.0, 8000.0, 16_000.0)
    ]


@pytest.mark.parametrize("law", [(0.0, 2.0, 0.3), (0.1, 3.0, 0.4), (0.05, 0.0, 1.0)])
def test_a_curve_that_follows_the_law_goes_on_by_it(law: tuple[float, float, float]) -> None:
    found = extrapolate(points(law), np.arange(20_000), 20_000, seed=0)
    a, b, c = law
    gain = b * (20_000.0**-c - 40_000.0**-c)
    low, high = found["twice"]["gain_interval"]
    assert low <= gain <= high
    # However exact the points are, the law may be off by as much as it foresees and a quarter.
    said = found["twice"]["gain"]
    assert low <= said - 1.25 * said + 1e-5 and high >= said + 1.25 * said - 1e-5
    assert found["twice"]["gain"] == pytest.approx(gain, abs=0.01)
    assert found["twice"]["accuracy"] == pytest.approx(1 - a - b * 40_000.0**-c, abs=0.01)
    assert found["labels"]["images"] == 1000
    assert found["sentence"].startswith("1,000 more labels would buy about ")
    assert "-" not in found["sentence"]  # a minus sign, as everywhere


def test_images_of_one_group_count_once_in_the_interval() -> None:
    one = points((0.1, 3.0, 0.4), images=500)
    ten = [
        Point(p.share, p.images, p.fits, np.repeat(p.errors, 10), p.noise, p.spread) for p in one
    ]
    alone = extrapolate(one, np.arange(500), 20_000, seed=0)["twice"]
    grouped = extrapolate(ten, np.repeat(np.arange(500), 10), 20_000, seed=0)["twice"]
    assert grouped["gain_interval"] == pytest.approx(alone["gain_interval"], abs=1e-6)


def curve(
    x: NDArray[np.float32], y: NDArray[np.int64], groups: NDArray[np.int64], seed: int = 0
) -> dict[str, object]:
    folds = make_folds(y, groups, DIGITS, 5, seed)
    chosen = Candidate("logistic", Scaling.SHARED, 0.1, 0.9, (0.8, 1.0), ())
    scores = out_of_fold(Divided(x, y, folds), 10, chosen, balanced=False)
    return learning_curve(
        x, y, groups, folds, scores, chosen, train_images=len(y), balanced=False, seed=seed
    )


def test_the_curve_of_digits_rises_and_foresees_what_twice_the_images_give() -> None:
    x, y = load_digits(return_X_y=True)
    x = x.astype(np.float32)
    seen = 0
    for seed in range(2):
        order = np.random.default_rng(seed).permutation(len(y))
        now, later, test = order[:400], order[:800], order[800:]
        found = curve(x[now], y[now], np.arange(400), seed)
        accuracies = [point["accuracy"] for point in found["points"]]  # type: ignore[attr-defined]
        assert accuracies == sorted(accuracies)
        assert [point["images"] for point in found["points"]] == [  # type: ignore[attr-defined]
            pytest.approx(share * 320, abs=8) for share in (0.1, 0.25, 0.5, 1.0)
        ]
        low, high = found["twice"]["gain_interval"]  # type: ignore[index]
        seen += low <= gain(x, y, later, test) - gain(x, y, now, test) <= high
    assert seen >= 1


def gain(
    x: NDArray[np.float32],
    y: NDArray[np.int64],
    rows: NDArray[np.int64],
    test: NDArray[np.int64],
) -> float:
    chosen = Candidate("logistic", Scaling.SHARED, 0.1, 0.9, (0.8, 1.0), ())
    fit, scaling = fit_candidate(x[rows], y[rows], 10, chosen, balanced=False)
    return float((fit.decide(scaling.apply(x[test])).argmax(axis=1) == y[test]).mean())


def test_too_few_images_give_points_and_no_forecast() -> None:
    x, y = load_digits(return_X_y=True)
    rows = np.concatenate([np.flatnonzero(y == label)[:2] for label in range(10)])
    found = curve(x[rows].astype(np.float32), y[rows], np.arange(len(rows)))
    assert "twice" not in found
    assert "too few images" in str(found["sentence"])


def test_the_curve_is_repeatable() -> None:
    x, y = load_digits(return_X_y=True)
    first = curve(x[:200].astype(np.float32), y[:200], np.arange(200))
    assert curve(x[:200].astype(np.float32), y[:200], np.arange(200)) == first

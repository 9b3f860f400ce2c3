"""Temperature and calibration error, against brute force and simulation."""

import numpy as np
import pytest
from scipy import special

from graftline.stats.calibration import (
    bin_of,
    expected_noise,
    fit_temperature,
    reliability,
    sharpness,
    softmax,
)


def drawn(temperature: float, n: int = 4000, classes: int = 4) -> tuple[np.ndarray, np.ndarray]:
    """Logits, and labels drawn from the softmax of the logits divided by the temperature."""
    rng = np.random.default_rng(0)
    logits = (rng.normal(size=(n, classes)) * 3).astype(np.float32)
    chances = special.softmax(logits / temperature, axis=1)
    labels = (chances.cumsum(axis=1) > rng.random((n, 1))).argmax(axis=1)
    return logits, labels


@pytest.mark.parametrize("truth", [0.4, 1.0, 3.0])
def test_the_temperature_is_found_and_is_the_best_of_a_grid(truth: float) -> None:
    logits, labels = drawn(truth)
    found = fit_temperature(logits, labels)
    assert found == pytest.approx(truth, rel=0.08)
    grid = np.geomspace(0.1, 10, 401)
    own = np.arange(len(labels)), labels
    losses = [-special.log_softmax(logits / t, axis=1)[own].sum() for t in grid]
    assert found == pytest.approx(grid[int(np.argmin(losses))], rel=0.02)


def test_logits_of_any_size_are_calibrated() -> None:
    """Log-posteriors of 1,280 features, added up, are thousands apart: not only a factor of 50."""
    logits, labels = drawn(1.0)
    assert fit_temperature(logits * 1e4, labels) == pytest.approx(1e4, rel=0.08)
    assert sharpness(logits * 1e4, labels) == pytest.approx(1e-4, rel=0.08)


def test_scaling_calibrates_and_keeps_every_label() -> None:
    logits, labels = drawn(3.0)
    before = softmax(logits)
    after = softmax(logits, fit_temperature(logits, labels))
    assert (before.argmax(axis=1) == after.argmax(axis=1)).all()
    assert reliability(before, labels).ece > 0.2
    assert reliability(after, labels).ece < 0.03
    np.testing.assert_allclose(after.sum(axis=1), 1)


def test_the_temperature_stays_finite_where_all_is_right_and_is_one_without_images() -> None:
    logits = np.eye(3, dtype=np.float32)
    assert 0.02 < fit_temperature(logits, np.arange(3)) < 1
    assert fit_temperature(np.zeros((0, 3), np.float32), np.zeros(0, int)) == 1.0


def test_calibration_error_is_that_of_its_definition() -> None:
    logits, labels = drawn(2.0, n=500)
    probabilities = softmax(logits)
    sure, given = probabilities.max(axis=1), probabilities.argmax(axis=1)
    expected = 0.0
    for b in range(15):
        within = [i for i in range(500) if b / 15 < sure[i] <= (b + 1) / 15]
        if within:
            gap = np.mean(sure[within]) - np.mean(given[within] == labels[within])
            expected += len(within) / 500 * abs(gap)
    found = reliability(probabilities, labels)
    assert found.ece == pytest.approx(expected)
    assert sum(found.count) == 500
    assert reliability(probabilities[:0], labels[:0]).ece == 0.0


def test_bins_are_open_at_their_lower_edge() -> None:
    assert bin_of(np.array([0.0, 1 / 15, 1 / 15 + 1e-9, 1.0])).tolist() == [0, 0, 1, 14]


def test_a_calibrated_model_stays_below_the_noise_as_often_as_stated() -> None:
    rng = np.random.default_rng(1)
    below = 0
    for seed in range(120):
        logits = rng.normal(size=(150, 3)) * 2
        chances = special.softmax(logits, axis=1)
        labels = (chances.cumsum(axis=1) > rng.random((150, 1))).argmax(axis=1)
        noise = expected_noise(chances, confidence=0.9, draws=200, seed=seed)
        below += reliability(chances, labels).ece <= noise
    assert 0.82 <= below / 120 <= 0.97

"""Not answering: coverage by hand, distances against scipy."""

from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file
from scipy.spatial.distance import cdist
from scipy.stats import mannwhitneyu

from graftline.classifier.class_means import class_means
from graftline.steps.evaluate.out_of_distribution import coverage, out_of_distribution


def two(sure: list[float]) -> np.ndarray:
    """Probabilities of two classes with class 0 given at that confidence."""
    return np.column_stack([sure, 1 - np.array(sure)])


def test_coverage_by_hand() -> None:
    probabilities = two([0.99, 0.9, 0.8, 0.7, 0.6])
    labels = np.array([0, 0, 1, 0, 1])  # right, right, wrong, right, wrong
    found = coverage(probabilities, labels)
    assert found.curve == [(0.2, 1.0), (0.4, 1.0), (0.6, 0.66667), (0.8, 0.75), (1.0, 0.6)]
    assert found.at[0] == (0.9, 0.9, 0.4)  # for 90%: answer from confidence 0.9, two of five


def test_images_of_equal_confidence_are_answered_together() -> None:
    found = coverage(two([0.9, 0.9, 0.8]), np.array([0, 1, 0]))
    assert found.curve == [(0.66667, 0.5), (1.0, 0.66667)]


def test_a_target_that_all_images_reach_needs_no_threshold() -> None:
    assert coverage(two([0.9, 0.8]), np.array([0, 0])).at == []


def clusters(n: int = 60, spread: float = 0.3) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    labels = np.arange(n) % 3
    centres = np.eye(3, 8) * 4 + 5
    return (centres[labels] + rng.normal(size=(n, 8)) * spread).astype(np.float32), labels


def test_distances_are_scipys_cosine_distances_of_the_centred_features() -> None:
    embedding, labels = clusters()
    found = class_means(embedding, labels, 3)
    means = np.stack([embedding[labels == c].mean(axis=0) for c in range(3)])
    centre = means.mean(axis=0)
    expected = cdist(embedding - centre, means - centre, "cosine")
    np.testing.assert_allclose(found.distances(embedding), expected, atol=1e-5)
    assert (found.distances(embedding).argmin(axis=1) == labels).all()


def test_a_class_without_training_images_attracts_nothing() -> None:
    embedding, labels = clusters()
    found = class_means(embedding, labels, 4)
    np.testing.assert_allclose(found.distances(embedding)[:, 3], 1.0)


def test_the_threshold_lets_the_stated_share_pass_and_refuses_what_is_far() -> None:
    embedding, labels = clusters(300)
    train, val, test = slice(0, 150), slice(150, 240), slice(240, 300)
    means = class_means(embedding[train], labels[train], 3)
    found = out_of_distribution(means, embedding[val], embedding[test], labels[test], 0.9)
    assert found is not None
    passed = (means.distances(embedding[val]).min(axis=1) <= found.distance).mean()
    assert passed == pytest.approx(0.9, abs=0.02)
    assert found.refused == (means.distances(embedding[test]).min(axis=1) > found.distance).mean()
    far = np.full((1, 8), 5, np.float32)
    far[0, 7] = 9  # a direction of no class
    assert means.distances(far).min() > found.distance
    # Each class left out in turn is told from the others, by the rank statistic.
    areas = []
    for c in range(3):
        others = np.delete(means.distances(embedding[test]), c, axis=1).min(axis=1)
        own = labels[test] == c
        wins = mannwhitneyu(others[own], others[~own]).statistic
        areas.append(wins / (own.sum() * (~own).sum()))
    assert found.unseen_auc == pytest.approx(np.mean(areas))
    assert found.unseen_auc > 0.99 and found.unseen_refused > 0.95
    assert found.to_dict()["distance"] == found.distance


def test_no_validation_images_no_threshold(tmp_path: Path) -> None:
    embedding, labels = clusters()
    means = class_means(embedding, labels, 3)
    assert out_of_distribution(means, embedding[:0], embedding, labels, 0.99) is None
    means.save(tmp_path)
    kept = load_file(tmp_path / "references.safetensors")
    np.testing.assert_array_equal(kept["means"], means.means)

"""Occlusion finds the place that a model looks at, whatever the image's size."""

from typing import Any

import numpy as np
import pytest

from graftline.onnx_model.predict import OnnxClassifier
from graftline.onnx_model.saliency import occlusion, overlay


class Looks:
    """A model of two classes that sees only the mean red of one place, given in shares."""

    classes = ("red", "other")

    def __init__(self, top: float, left: float) -> None:
        self.top, self.left = top, left

    def probabilities(self, images: Any) -> np.ndarray:
        found = []
        for image in images:
            height, width = image.shape[:2]
            rows = slice(int(self.top * height), int(self.top * height) + max(1, height // 10))
            columns = slice(int(self.left * width), int(self.left * width) + max(1, width // 10))
            red = image[rows, columns, 0].mean() / 255
            found.append([0.02 + 0.96 * red, 0.98 - 0.96 * red])
        return np.array(found, np.float32)


@pytest.mark.parametrize(("top", "left"), [(0.1, 0.1), (0.45, 0.8), (0.85, 0.4)])
@pytest.mark.parametrize("shape", [(40, 40), (300, 200), (90, 1200), (12, 7)])
def test_the_place_is_found(shape: tuple[int, int], top: float, left: float) -> None:
    height, width = shape
    image = np.zeros((height, width, 3), np.uint8)
    rows = slice(int(top * height), int((top + 0.12) * height) + 1)
    columns = slice(int(left * width), int((left + 0.12) * width) + 1)
    image[rows, columns] = 255
    model: Any = Looks(top, left)
    found = occlusion(model, image, "red")
    assert found.picture.shape[:2] == found.strength.shape and max(found.strength.shape) <= 256
    assert found.strength.dtype == np.float32
    assert found.strength.min() >= 0 and found.strength.max() <= 1
    where = np.unravel_index(found.strength.argmax(), found.strength.shape)
    shares = np.array(where) / found.strength.shape
    assert np.abs(shares - (top + 0.05, left + 0.05)).max() < 0.2
    assert found.lowest < model.probabilities([image])[0, 0]
    assert overlay(found).shape == found.picture.shape and overlay(found).dtype == np.uint8


def test_where_nothing_matters_nothing_is_marked() -> None:
    class Constant(Looks):
        def probabilities(self, images: Any) -> np.ndarray:
            return np.array([[0.7, 0.3] for _ in images], np.float32)

    model: Any = Constant(0, 0)
    found = occlusion(model, np.full((50, 80, 3), 9, np.uint8), "red")
    assert found.strength.max() == 0


@pytest.mark.parametrize("shape", [(1, 1), (1, 500), (700, 3)])
def test_a_real_file_and_odd_shapes(exported_model: tuple, shape: tuple[int, int]) -> None:
    model = OnnxClassifier(exported_model[2].onnx)
    image = np.random.default_rng(0).integers(0, 256, (*shape, 3), dtype=np.uint8)
    found = occlusion(model, image, model.classes[1])
    assert np.isfinite(found.strength).all() and 0 <= found.lowest <= 1
